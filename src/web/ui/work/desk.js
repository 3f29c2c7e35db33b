// What the work pages share: a list with its filters and further pages, and beside it the one entry that the address names after "#".
// Both are looked at again every few seconds; what has not changed is not touched, so that focus and selection stay.

import { call, served } from "./api.js";
import { resultsGoTo } from "./ask.js";
import { $, h, tell } from "./dom.js";
import { ago, clock, setNow, t } from "./format.js";

const PAGE = 50;
const MOST = 1000;
const REFRESH_MS = 10000;
const TICK_MS = 5000;
const RESULT_MS = 15000;

export const post = (path, body) => call("POST", path, body);

let forget = 0;
const done = (text) => {
  clearTimeout(forget);
  $("done-text").textContent = text ?? "";
  $("done").hidden = !text;
  if (text) forget = setTimeout(() => { $("done").hidden = true; }, RESULT_MS);
};
resultsGoTo(done);
$("done-close").addEventListener("click", () => done(""));

const tick = () => {
  setNow(served.atMs + performance.now() - served.heardAt);
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const text = ago(element.dateTime);
    if (element.textContent !== text) element.textContent = text;
  }
};
tick();
setInterval(tick, TICK_MS);

const typing = (element) => element?.matches("input, textarea, select");

// Rows that are kept as long as what they show does not change.
const keyed = (container, draw) => {
  const rows = new Map();
  return (items, keyOf) => {
    const focused = container.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : null;
    const now = items.map((item) => {
      const key = keyOf(item);
      const text = JSON.stringify(item);
      const known = rows.get(key);
      if (known?.text === text) return known.element;
      const element = draw(item);
      element.dataset.key = key;
      rows.set(key, { text, element });
      return element;
    });
    const kept = new Set(now);
    for (const [key, { element }] of rows) if (!kept.has(element)) rows.delete(key);
    if (now.length !== container.children.length || now.some((element, i) => element !== container.children[i])) {
      container.replaceChildren(...now);
    }
    if (focused && !container.contains(document.activeElement)) rows.get(focused)?.element.querySelector("a, button")?.focus();
  };
};

// The list. `load(cursor, limit)` answers {items, nextCursor}; `row(item)` is what stands in its line; `link(item)` is the part of the
// address that opens it, `key(item)` what tells it from the others.
export const list = ({ load, row, key = (item) => item.id, link = key, empty, ids = "list" }) => {
  const items = $(`${ids}-items`);
  const draw = keyed(items, (item) => h("li", null, link ? h("a", { class: "item", href: `#${link(item)}` }, row(item)) : row(item)));
  let shown = [];
  let next = null;
  let turn = 0;
  const selected = () => {
    for (const element of items.querySelectorAll("a.item")) {
      if (element.hash && element.hash === location.hash) element.setAttribute("aria-current", "true");
      else element.removeAttribute("aria-current");
    }
  };
  const show = (error) => {
    tell($(`${ids}-problem`), error);
    draw(shown, key);
    selected();
    items.setAttribute("aria-busy", "false");
    $(`${ids}-none`).hidden = shown.length > 0 || Boolean(error);
    // A page may be short of a list that goes on.
    $(`${ids}-none`).textContent = next ? t("none.soFar") : empty();
    $(`${ids}-more`).hidden = !next;
    if (!error) $(`${ids}-as-of`).textContent = t("asOf", { at: clock(new Date(served.atMs).toISOString()) });
  };
  const turnTo = async (cursor, limit, before) => {
    const mine = ++turn;
    items.setAttribute("aria-busy", "true");
    try {
      const page = await load(cursor, limit);
      if (mine !== turn) return;
      tick();
      shown = [...before, ...page.items];
      next = page.nextCursor;
      show(null);
    } catch (error) {
      if (mine === turn) show(error);
    }
  };
  const reload = () => turnTo(null, Math.min(Math.max(Math.ceil(shown.length / PAGE), 1) * PAGE, MOST), []);
  $(`${ids}-more`).addEventListener("click", () => turnTo(next, PAGE, shown));
  addEventListener("hashchange", selected);
  setInterval(() => { if (!document.hidden && !$("ask").open && shown.length <= MOST) reload(); }, REFRESH_MS);
  return { reload, from: () => { shown = []; next = null; return reload(); } };
};

// A form of filters: any change starts the list anew.
export const filters = (form, restart) => {
  let wait = 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    clearTimeout(wait);
    wait = setTimeout(restart, event.target.localName === "select" ? 0 : 300);
  });
  return () => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
};

// The entry that the address names. `fetch(key, again)` brings its data, `again` where it is shown already; `draw(data)` brings its elements
// with a heading first. With `again` it is looked at every few seconds.
export const entry = ({ fetch, draw, again = true }) => {
  const panel = $("entry");
  const body = $("entry-body");
  let shown = "";
  let text = "";
  const put = (nodes) => {
    const had = panel.contains(document.activeElement) && document.activeElement !== $("entry-back");
    body.replaceChildren(...nodes);
    if (had && !panel.contains(document.activeElement)) body.querySelector("h2")?.focus();
  };
  const show = async (arrived) => {
    const key = location.hash.slice(1);
    $("split").dataset.open = key ? "1" : "";
    if (key !== shown) {
      text = "";
      tell($("entry-problem"), null);
      body.replaceChildren(key ? h("p", { class: "none" }, t("loading")) : "");
    }
    const before = shown;
    shown = key;
    if (!key) {
      if (arrived && before) document.querySelector(`#list-items a[href="#${CSS.escape(before)}"]`)?.focus();
      return;
    }
    try {
      const data = await fetch(key, before === key);
      if (key !== location.hash.slice(1)) return;
      tick();
      tell($("entry-problem"), null);
      const now = JSON.stringify(data);
      if (now !== text) put(draw(data, key));
      text = now;
      if (arrived && before !== key) body.querySelector("h2")?.focus();
    } catch (error) {
      if (key !== location.hash.slice(1)) return;
      if (!text) body.replaceChildren();
      tell($("entry-problem"), error);
    }
  };
  addEventListener("hashchange", () => show(true));
  if (again) {
    setInterval(() => {
      const busy = document.hidden || $("ask").open || (panel.contains(document.activeElement) && typing(document.activeElement));
      if (shown && !busy) show(false);
    }, REFRESH_MS);
  }
  show(false);
  return { reload: () => show(false) };
};

export const heading = (...children) => h("h2", { tabindex: "-1" }, children);
