// Messages: the list, one with where each of its deliveries stands, calling off, and a form for a new one.

import { get } from "./api.js";
import { REASON, ask } from "./ask.js";
import { entry, filters, heading, list, post } from "./desk.js";
import { $, at, button, facts, h, may, pill, section, standing, timeline, toneOf, when } from "./dom.js";
import { bytes, count, t, word } from "./format.js";

// Deliveries that stand so can still be called off, whatever has become of the others of their message.
const CALLABLE = ["scheduled", "ready", "retry"];
const FAILED = ["dead", "uncertain"];

const chosen = filters($("filters"), () => messages.from());
const messages = list({
  load: (cursor, limit) => get("/api/messages", { ...chosen(), limit, cursor }),
  empty: () => t(Object.values(chosen()).some(Boolean) ? "none.filtered" : "messages.empty"),
  row: (item) => [
    h("span", { class: "what" },
      h("span", { class: "title" }, h("b", null, item.subject), " ", standing(item.status)),
      h("span", { class: "meta" }, item.via, " · ", deliveries(item.deliveries), " · ", item.createdBy, " · ", when(item.createdAt),
        item.sendAt && item.status === "scheduled" ? [" · ", t("messages.leaves"), " ", at(item.sendAt)] : null)),
  ],
});

const deliveries = (counts) => Object.entries(counts ?? {}).map(([state, n]) => `${word("delivery", state)} ${count(n)}`).join(", ");

// ---- One message

const stepOf = (delivery) => ({
  at: delivery.settledAt ?? delivery.updatedAt, tone: toneOf(delivery.state), title: word("delivery", delivery.state),
  text: [
    t("attempts.of", { n: count(delivery.attempts), most: count(delivery.maxAttempts) }),
    // Of one that has arrived the last failure is past; the evidence has it.
    delivery.state === "sent" ? "" : [delivery.errorType, delivery.error].filter(Boolean).join(": "),
  ].filter(Boolean).join("\n"),
  answer: delivery.answer,
});

const drawDelivery = (delivery, via) => h("section", { class: "card" },
  h("p", { class: "title" }, h("b", null, delivery.recipient || via), " ", standing(delivery.state),
    delivery.possibleRepeat ? pill("warn", t("possibleRepeat")) : null),
  timeline([{ at: delivery.dueAt, title: t("attempt.due") }, stepOf(delivery)]),
  FAILED.includes(delivery.state) && may("operate")
    ? h("p", null, h("a", { href: `/failures#${encodeURIComponent(delivery.id)}` }, t("messages.decide"))) : null);

const cancel = (item) => ask({
  title: t("messages.cancelAsk"), text: t("messages.cancelNote"), ok: "messages.cancel",
  work: async ({ reason }) => {
    const told = await post(`/api/messages/${encodeURIComponent(item.id)}/cancel`, { reason });
    messages.reload();
    one.reload();
    return t("messages.cancelled", { n: count(told.cancelled.length), late: count(told.tooLate.length) });
  },
});

const one = entry({
  fetch: (key) => get(`/api/messages/${encodeURIComponent(key)}`),
  draw: (item) => [
    heading(item.subject, " ", standing(item.status)),
    may("operate") && item.deliveries.some((delivery) => CALLABLE.includes(delivery.state)) ? h("p", { class: "buttons" }, button("messages.cancel", () => cancel(item))) : null,
    facts([
      ["sink", item.via], ["messages.by", item.createdBy], ["messages.at", when(item.createdAt)],
      ["sendAt", item.sendAt ? at(item.sendAt) : null], ["replyTo", item.replyTo], ["messages.id", h("code", null, item.id)],
    ]),
    section("body", h("p", { class: "letter" }, item.body), item.html ? h("p", { class: "note" }, t("messages.html")) : null),
    item.attachments?.length ? section("attachments", h("ul", { class: "plain" }, item.attachments.map((file) =>
      h("li", null, file.name, " ", h("span", { class: "note" }, `${file.contentType}, ${bytes(file.bytes)}`))))) : null,
    section("messages.deliveries", item.deliveries.map((delivery) => drawDelivery(delivery, item.via))),
    section("history", timeline((item.history ?? []).map((event) => ({
      at: event.at, title: t("by", { what: word("messages.event", event.event), who: event.actor }), text: event.reason,
    })))),
  ].filter(Boolean),
});

// ---- A new message

// A key of its own: where the answer was lost, the same form sent again makes no second message.
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const ways = JSON.parse($("ways").textContent);

const compose = () => {
  const first = ways.find((way) => way.isDefault) ?? ways[0];
  const idempotencyKey = newKey();
  return ask({
    title: t("messages.new"), ok: "messages.send",
    fields: [
      { name: "via", label: "sink", options: ways.map((way) => [way.name, way.name]), value: first?.name },
      { name: "to", label: "messages.to", note: t("messages.toNote"), required: true },
      { name: "subject", label: "subject", max: 200, required: true },
      { name: "body", label: "body", lines: 8, required: true },
      { name: "sendAt", label: "sendAt", type: "datetime-local", note: t("messages.sendAtNote") },
    ],
    set: (form) => {
      const tie = () => {
        const takes = ways.find((way) => way.name === form.elements.via.value)?.takesRecipients;
        form.querySelector("[data-field=to]").hidden = !takes;
        form.elements.to.required = Boolean(takes);
        form.elements.to.disabled = !takes;
      };
      form.elements.via.addEventListener("change", tie);
      tie();
    },
    work: async ({ via, to, subject, body, sendAt }) => {
      const recipients = (to ?? "").split(/[,;\n]/).map((one) => one.trim()).filter(Boolean);
      const made = await post("/api/messages", {
        via, to: recipients.length ? recipients : undefined, subject, body, idempotencyKey,
        sendAt: sendAt ? new Date(sendAt).toISOString() : undefined,
      });
      await messages.from();
      location.hash = made.id;
      return t("messages.taken", { status: word("delivery", made.status) });
    },
  });
};
$("new").addEventListener("click", compose);
messages.reload();
