// What a visitor can do: acknowledge an alert, look through the failures, retry or discard one.

import { call } from "./api.js";
import { clock, t, word } from "./format.js";

const $ = (id) => document.getElementById(id);

const show = (id, error) => {
  $(id).textContent = error?.message ?? "";
  $(id).hidden = !error;
};

// Buttons are marked with aria-disabled while they work: a disabled one would lose the focus.
const busy = async (button, problem, work) => {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
    show(problem, null);
  } catch (error) {
    show(problem, error);
  }
  button.removeAttribute("aria-disabled");
};

export const acknowledge = (alerts, announce) => {
  alerts.container.addEventListener("click", (event) => {
    const button = event.target.closest("[data-act=ack]");
    const row = button?.closest("[data-key]");
    if (!row) return;
    busy(button, "alert-problem", async () => {
      await call("POST", `/api/alerts/${encodeURIComponent(row.dataset.key)}/ack`, {});
      // The button goes; the focus stays where the visitor was. The next event brings who and when.
      button.dataset.on = "";
      if (button === document.activeElement) row.focus();
      announce(t("say.acked", { what: row.querySelector(".title").innerText }));
    });
  });
};

const ask = (title) => new Promise((resolve) => {
  const dialog = $("ask");
  $("ask-title").textContent = title;
  $("ask-reason").value = "";
  dialog.returnValue = "";
  dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? $("ask-reason").value.trim() : null), { once: true });
  dialog.showModal();
});

const failureRow = (item) => {
  const isReading = item.kind === "reading";
  const compare = [["failure.kept", item.existing], ["failure.sent", item.payload]]
    .filter(([, json]) => isReading && json).map(([key, json]) => t(key, { json: JSON.stringify(json) }));
  return {
    key: item.id, kind: word("failure", item.cause),
    title: [item.engineId ?? item.sink, item.subject, item.errorCode].filter(Boolean).join(" · "),
    detail: [item.message, ...compare].filter(Boolean).join("\n"),
    atIso: item.createdAt, at: clock(item.createdAt),
    retry: item.cause === "conflict" ? "" : "1", markSent: item.cause === "uncertain" ? "1" : "",
  };
};

export const failures = (list) => {
  const button = $("failures-load");
  let open = false;
  const load = async () => {
    const items = open ? (await call("GET", "/admin/failures?limit=50"))?.items ?? [] : [];
    list.update(items.map(failureRow));
    $("no-failures").hidden = !open || items.length > 0;
    button.setAttribute("aria-expanded", String(open));
    button.textContent = t(open ? "failures.hide" : "failures.show");
  };
  button.addEventListener("click", () => busy(button, "failure-problem", () => { open = !open; return load().catch((error) => { open = !open; throw error; }); }));
  list.container.addEventListener("click", async (event) => {
    const act = event.target.closest("[data-act]");
    const row = act?.closest("[data-key]");
    if (!row) return;
    const reason = await ask(t(`ask.${act.dataset.act}`));
    if (!reason) return;
    await busy(act, "failure-problem", async () => {
      const verb = act.dataset.act;
      await call(verb === "retry" ? "PATCH" : "POST", `/admin/failures/${encodeURIComponent(row.dataset.key)}/${verb}`, { reason });
      await load();
    });
    if (!act.isConnected) button.focus();
  });
};
