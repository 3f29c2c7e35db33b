// Elements from data. What others wrote becomes text and attribute values, never markup: there is no way from here to innerHTML.

import { ago, clock, t, word } from "./format.js";

export const $ = (id) => document.getElementById(id);

// h("a", { href: "#x", click: go }, "text", other): attributes that are null or false and children that are empty are left out; a
// function is a listener.
export const h = (tag, attributes, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value != null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false && child !== ""));
  return element;
};

const SVG = "http://www.w3.org/2000/svg";
export const icon = (name) => {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "i");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
};

export const pill = (tone, label, shape = tone) => h("span", { class: "pill tag", "data-tone": tone }, icon(shape), h("span", null, label));

const TONES = {
  sent: "good", dead: "bad", uncertain: "warn", retry: "warn", discarded: "none", cancelled: "none", conflict: "warn", open: "bad",
  closed: "good", "half-open": "warn", retried: "good", lost: "bad",
};
export const toneOf = (state) => TONES[state] ?? "wait";
// Where a delivery, a message or a failure stands.
export const standing = (state) => pill(toneOf(state), word("delivery", state));

// How long ago, kept true by the desk's tick; the exact time is one hover away.
export const when = (iso) => (iso ? h("time", { datetime: iso, title: iso, "data-ago": "" }, ago(iso)) : t("unknown"));
export const at = (iso) => (iso ? h("time", { datetime: iso, title: iso }, clock(iso)) : t("unknown"));

// [[label, value, tone]]: what is null is left out.
export const facts = (rows) => h("dl", { class: "facts sheet" }, rows.filter(([, value]) => value != null && value !== "")
  .map(([label, value, tone]) => h("div", { "data-tone": tone }, h("dt", null, t(label)), h("dd", null, value))));

// [{ at, tone, title, text, answer }], oldest first.
export const timeline = (steps) => h("ol", { class: "steps" }, steps.map((step) => h("li", { "data-tone": step.tone ?? "wait" },
  icon(step.tone ?? "wait"),
  h("div", null,
    h("p", { class: "title" }, h("b", null, step.title), step.at ? [" ", at(step.at)] : null),
    step.text ? h("p", { class: "text" }, step.text) : null,
    step.answer ? answer(step.answer) : null))));

// What a receiver said, word by word.
export const answer = (text) => h("div", { class: "answer" }, h("span", { class: "note" }, t("receiver.answer")),
  h("pre", { tabindex: "0" }, text));

export const section = (title, ...children) => h("section", { class: "part" }, h("h3", null, t(title)), children);
export const button = (label, click, more) => h("button", { type: "button", click, ...more }, t(label));
export const may = (right) => document.body.dataset[right] === "1";

// A failure in words at its place: what was refused, and what to do about it.
export const tell = (element, error) => {
  element.hidden = !error;
  element.replaceChildren(...(error ? [
    h("p", null, error.said ?? error.message), error.hint ? h("p", { class: "note" }, error.hint) : "",
    error.status === 401 ? h("p", null, h("a", { href: "/login" }, t("signIn"))) : "",
  ] : []));
};
