// One dialog for every decision: fields, a reason, and the work itself. What is refused is told in the dialog, beside the field where
// there is one; what was typed stays. Nothing is done by closing it.

import { $, h, tell } from "./dom.js";
import { t } from "./format.js";

let sayDone = () => {};
// Where the result of a decision is told.
export const resultsGoTo = (say) => { sayDone = say; };

const input = (field) => {
  const common = {
    name: field.name, id: `field-${field.name}`, required: field.required, maxlength: field.max, placeholder: field.placeholder,
    autocomplete: "off", "aria-describedby": `field-${field.name}-note`,
  };
  if (field.options) {
    return h("select", common, field.options.map(([value, label]) => h("option", { value, selected: value === field.value }, label)));
  }
  const element = field.lines
    ? h("textarea", { ...common, rows: field.lines })
    : h("input", { ...common, type: field.type ?? "text", min: field.min, step: field.step });
  element.value = field.value ?? "";
  return element;
};

const labelled = (field) => h("div", { class: "field", "data-field": field.name },
  h("label", { for: `field-${field.name}` }, t(field.label)), input(field),
  h("p", { class: "note", id: `field-${field.name}-note` }, field.note ?? ""));

export const REASON = { name: "reason", label: "reason", max: 200, required: true };

// The field that a detail is about: "edit.subject", "to[2]" and "matchers.labels" are the dialog's own subject, to and labels.
const nameOf = (detail) => String(detail?.field ?? "").replace(/\[\d+\].*$/, "").split(".").pop();

const mark = (details, fields) => {
  for (const field of fields) {
    const box = $("ask-fields").querySelector(`[data-field="${field.name}"]`);
    const wrong = details.filter((detail) => nameOf(detail) === field.name).map((detail) => `${detail.field}: ${detail.message}`);
    box.dataset.wrong = wrong.length ? "1" : "";
    box.lastElementChild.textContent = wrong.join("\n") || (field.note ?? "");
    $(`field-${field.name}`).setAttribute("aria-invalid", String(wrong.length > 0));
  }
  $("ask-fields").querySelector("[aria-invalid=true]")?.focus();
};

// `work(values)` does it and returns the sentence that tells the result. `look(values)`, where there is one, shows beforehand what would
// be done. `set(dialog)` may tie fields to each other. Resolves when the dialog is closed, with true where the work was done.
export const ask = ({ title, text = "", fields = [REASON], ok = "ok", look, set, work }) => new Promise((resolve) => {
  const dialog = $("ask");
  const form = $("ask-form");
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-ok").textContent = t(ok);
  $("ask-look").hidden = !look;
  $("ask-shown").replaceChildren();
  $("ask-fields").replaceChildren(...fields.map(labelled));
  dialog.dataset.wide = fields.length > 3 ? "1" : "";
  tell($("ask-problem"), null);
  const values = () => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
  let done = false;
  let working = false;
  const attempt = async (button, step) => {
    if (working) return;
    working = true;
    button.setAttribute("aria-disabled", "true");
    try {
      await step(values());
      tell($("ask-problem"), null);
      mark([], fields);
    } catch (error) {
      tell($("ask-problem"), error);
      mark(error.details ?? [], fields);
    }
    button.removeAttribute("aria-disabled");
    working = false;
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    attempt($("ask-ok"), async (given) => {
      const said = await work(given);
      done = true;
      dialog.close();
      sayDone(said);
    });
  };
  $("ask-look").onclick = () => attempt($("ask-look"), async (given) => { $("ask-shown").replaceChildren(await look(given)); });
  $("ask-cancel").onclick = () => dialog.close();
  dialog.addEventListener("close", () => {
    // What was pressed may be gone by now: the focus must not be lost with it.
    if (document.activeElement === document.body) $("main").focus();
    resolve(done);
  }, { once: true });
  set?.(form);
  dialog.showModal();
});
