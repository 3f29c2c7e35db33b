// Silences: the list, a new one with a look at what it would keep quiet, and the end of one before its time.

import { call, get } from "./api.js";
import { REASON, ask } from "./ask.js";
import { list, post } from "./desk.js";
import { $, at, button, h, may, pill, when } from "./dom.js";
import { count, t, word } from "./format.js";

const HOUR_MS = 3600000;
const LASTS = [1, 4, 24, 168];
const TONES = { active: "warn", pending: "wait", expired: "none" };

let changed = () => {};

const labelsText = (labels) => Object.entries(labels ?? {}).map(([name, value]) => `${name}=${value}`).join(", ");
export const matchersText = ({ kind, name, subject, level, labels }) => [
  name, subject, level ? word("level", level) : "", kind ? word("alert.kind", kind) : "", labelsText(labels),
].filter(Boolean).join(" · ");

const expire = (one) => ask({
  title: t("silences.expireAsk"), text: matchersText(one.matchers), ok: "silences.expire",
  work: async ({ reason }) => {
    await call("DELETE", `/api/silences/${encodeURIComponent(one.id)}`, { reason });
    shown.reload();
    changed();
    return t("silences.expired");
  },
});

const shown = list({
  ids: "silences", link: null,
  load: (cursor, limit) => get("/api/silences", { limit, cursor }),
  empty: () => t("silences.empty"),
  row: (one) => h("div", { class: "item" }, h("span", { class: "what" },
    h("span", { class: "title" }, h("b", null, matchersText(one.matchers)), " ",
      pill(TONES[one.state] ?? "wait", word("silence", one.state))),
    h("span", { class: "text" }, one.reason),
    h("span", { class: "meta" }, one.createdBy, " · ", when(one.createdAt), " · ", t("silences.until"), " ",
      at(one.expiredAt ?? one.endsAt))),
  may("operate") && one.state !== "expired" ? button("silences.expire", () => expire(one)) : null),
});

const labelsOf = (text) => {
  const labels = {};
  for (const part of (text ?? "").split(",").map((one) => one.trim()).filter(Boolean)) {
    const at = part.indexOf("=");
    labels[part.slice(0, at < 0 ? part.length : at).trim()] = at < 0 ? "*" : part.slice(at + 1).trim();
  }
  return labels;
};
const matchersOf = ({ name, subject, level, kind, labels }) => {
  const given = { name, subject, level, kind };
  const matchers = Object.fromEntries(Object.entries(given).filter(([, value]) => value));
  const wanted = labelsOf(labels);
  return Object.keys(wanted).length ? { ...matchers, labels: wanted } : matchers;
};

const endOf = ({ lasts }) => new Date(Date.now() + Number(lasts) * HOUR_MS).toISOString();

const meant = (title, { count: n, items, complete = true }) => [
  h("p", null, h("b", null, t(title, { n: `${count(n)}${complete ? "" : "+"}` }))),
  items.length ? h("ul", { class: "plain" }, items.slice(0, 8).map((alert) => h("li", null,
    `${word("level", alert.level)} · ${alert.name} · ${alert.subject}`))) : "",
];

// A new silence; `before` fills what is known already.
export const silence = (before = {}) => ask({
  title: t("silences.new"), text: t("silences.note"), ok: "silences.make",
  fields: [
    { name: "name", label: "silences.name", value: before.name, placeholder: "overheat" },
    { name: "subject", label: "silences.subject", value: before.subject, placeholder: "engine-*", note: t("silences.star") },
    { name: "level", label: "level", options: ["", "CRITICAL", "WARNING",
      "INFO"].map((level) => [level, level ? word("level", level) : t("any")]), value: "" },
    { name: "kind", label: "alerts.kind", options: ["", "rule", "system"].map((kind) => [kind, kind ? word("alert.kind", kind)
      : t("any")]), value: "" },
    { name: "labels", label: "labels", placeholder: "site=north" },
    { name: "lasts", label: "silences.lasts", options: LASTS.map((hours) => [String(hours),
      t(hours < 48 ? "unit.h" : "unit.d", { n: hours < 48 ? hours : hours / 24 })]), value: "4" },
    REASON,
  ],
  look: async (given) => {
    const { open, lastWeek } = await post("/api/silences/preview", { matchers: matchersOf(given), endsAt: endOf(given) });
    return h("div", { class: "shown" }, meant("silences.open", open), meant("silences.lastWeek", lastWeek));
  },
  work: async (given) => {
    await post("/api/silences", { matchers: matchersOf(given), endsAt: endOf(given), reason: given.reason });
    shown.reload();
    changed();
    return t("silences.made");
  },
});

export const silences = (then) => {
  changed = then;
  $("new").addEventListener("click", () => silence());
  shown.reload();
};
