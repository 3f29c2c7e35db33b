// Alerts, open and past: one with its history and with who was told of it or why nobody was. And silences: what is not told for a while.

import { get } from "./api.js";
import { ask } from "./ask.js";
import { entry, filters, heading, list, post } from "./desk.js";
import { $, at, button, facts, h, icon, may, pill, section, standing, timeline, toneOf, when } from "./dom.js";
import { count, number, t, word } from "./format.js";
import { matchersText, silence, silences } from "./silences.js";

const chosen = filters($("filters"), () => alerts.from());

// "Open" is two states to the API: both lists are turned page by page and put in order.
const openOnes = async (query, cursor, limit) => {
  const places = cursor ?? { firing: null, acknowledged: null };
  const pages = await Promise.all(Object.entries(places).map(async ([state, place]) => [state,
    await get("/api/alerts", { ...query, state, limit, cursor: place })]));
  const items = pages.flatMap(([, page]) => page.items).sort((a, b) => (a.openedAt < b.openedAt ? 1 : -1));
  const rest = pages.filter(([, page]) => page.nextCursor).map(([state, page]) => [state, page.nextCursor]);
  return { items, nextCursor: rest.length ? Object.fromEntries(rest) : null };
};

const alerts = list({
  load: (cursor, limit) => {
    const { state, ...query } = chosen();
    return state === "open" ? openOnes(query, cursor, limit) : get("/api/alerts", { ...query, state, limit, cursor });
  },
  empty: () => t(chosen().state === "open" ? "alerts.noneOpen" : "none.filtered"),
  row: (alert) => [
    h("span", { class: "sign", "data-level": alert.level, "data-state": alert.state },
      icon(alert.state === "resolved" ? "done" : alert.level)),
    h("span", { class: "what", "data-level": alert.level },
      h("span", { class: "title" }, h("span", { class: "level" }, word("level", alert.level)), " ", h("b", null, alert.name), " ",
        h("span", { class: "subject" }, alert.subject), alert.count > 1 ? ` ×${count(alert.count)}` : ""),
      h("span", { class: "text" }, alert.text),
      h("span", { class: "meta" }, standingOf(alert), " · ", when(alert.openedAt))),
  ],
});

const standingOf = (alert) => (alert.state === "acknowledged" ? t("alerts.ackBy", { who: alert.acknowledgedBy ?? "" })
  : word("alert.state", alert.state));

// ---- One alert

const EVENTS = { firing: "bad", escalated: "bad", acknowledged: "wait", resolved: "good", repeat: "warn" };
const historyOf = (alert) => timeline((alert.history ?? []).map((event) => ({
  at: event.at, tone: EVENTS[event.event],
  title: [word("alert.event", event.event), event.event === "firing" || event.event === "escalated" ? word("level", event.level) : "",
    event.actor].filter(Boolean).join(" · "),
  text: [event.text, event.reason ? t("alerts.because", { reason: event.reason }) : ""].filter(Boolean).join("\n"),
})));

// Who was told and what became of it; or why nobody was.
const notice = (one) => {
  const told = Boolean(one.deliveryId);
  const whom = [one.sink, one.recipient].filter(Boolean).join(" → ");
  const failed = ["dead", "uncertain"].includes(one.state);
  return h("li", { "data-tone": told ? toneOf(one.state) : "none" }, icon(told ? toneOf(one.state) : "none"), h("div", null,
    h("p", { class: "title" }, h("b", null, whom || t("alerts.notTold")), " ", told ? (one.state ? standing(one.state) : null) : whom
      && pill("none", t("alerts.notTold")), " ", at(one.at)),
    h("p", { class: "text" },
      `${word("alert.event", one.event)}: ${word("told", one.reason)}${one.detail && one.reason !== "digest" ? ` (${one.detail})` : ""}`),
    one.error && one.state !== "sent" ? h("p", { class: "text" }, one.error) : null,
    one.answer ? h("pre", { tabindex: "0" }, one.answer) : null,
    failed && may("operate") ? h("p", null, h("a", { href: `/failures#${encodeURIComponent(one.deliveryId)}` }, t("messages.decide")))
      : null));
};

const notices = (alert) => (alert.notifications?.length
  ? h("ol", { class: "steps" }, alert.notifications.map(notice))
  : h("p", { class: "none" }, t("alerts.nobody")));

const acknowledge = (alert) => ask({
  title: t("ack.label", { name: alert.name, subject: alert.subject }), text: t("alerts.ackNote"),
  fields: [{ name: "reason", label: "reason.optional", max: 200 }], ok: "ack",
  work: async ({ reason }) => {
    await post(`/api/alerts/${encodeURIComponent(alert.id)}/ack`, reason ? { reason } : {});
    alerts.reload();
    one.reload();
    return t("say.acked", { what: `${alert.name} ${alert.subject}` });
  },
});

const one = entry({
  fetch: (key) => get(`/api/alerts/${encodeURIComponent(key)}`),
  draw: (alert) => [
    heading(h("span", { class: "sign", "data-level": alert.level, "data-state": alert.state },
      icon(alert.state === "resolved" ? "done" : alert.level)),
      " ", word("level", alert.level), " · ", alert.name, " ", h("span", { class: "subject" }, alert.subject)),
    h("p", { class: "lead-text" }, alert.text),
    may("operate") && alert.state !== "resolved" ? h("p", { class: "buttons" },
      alert.state === "firing" ? button("ack", () => acknowledge(alert), { class: "main" }) : null,
      button("alerts.silenceThis", () => silence({ name: alert.name, subject: alert.subject }))) : null,
    facts([
      ["state", standingOf(alert)], ["alerts.opened", when(alert.openedAt)],
      ["alerts.acknowledged", alert.acknowledgedAt ? [when(alert.acknowledgedAt)] : null],
        ["alerts.resolved", alert.resolvedAt ? when(alert.resolvedAt) : null],
      ["alerts.value", alert.value == null ? null : number(alert.value, 2)],
        ["alerts.threshold", alert.threshold == null ? null : number(alert.threshold, 2)],
      ["alerts.count", count(alert.count)], ["alerts.kind", word("alert.kind", alert.kind)],
      ["labels", matchersText({ labels: alert.labels })],
    ]),
    section("alerts.told", notices(alert)),
    section("history", historyOf(alert)),
  ].filter(Boolean),
});
silences(() => { alerts.reload(); one.reload(); });
alerts.reload();
