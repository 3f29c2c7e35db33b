// The ways out: how each one is, and a test that shows what its receiver answers.

import { get } from "./api.js";
import { REASON, ask } from "./ask.js";
import { list, post } from "./desk.js";
import { answer, button, facts, h, may, pill, toneOf } from "./dom.js";
import { count, t, word } from "./format.js";

const LOOK_MS = 400;
const LOOKS = 75;
const OVER = ["sent", "dead", "uncertain", "discarded", "cancelled"];

// What became of the last test of each sink, as long as the page is open.
const tests = new Map();

const sinks = list({
  key: (sink) => sink.name, link: null,
  load: async () => {
    const { items } = await get("/admin/sinks");
    // The test is a part of the row: it is drawn again when it changes.
    return { items: items.map((sink) => ({ ...sink, test: tests.get(sink.name) ?? null })), nextCursor: null };
  },
  empty: () => t("sinks.empty"),
  row: (sink) => h("div", { class: "item sink" },
    h("span", { class: "what" },
      h("span", { class: "title" }, h("b", null, sink.name), " ", h("span", { class: "via" }, sink.kind), " ",
        pill(toneOf(sink.circuit), word("circuit", sink.circuit))),
      facts([
        ["sinks.backlog", count(sink.backlog), sink.backlog > 0 && sink.circuit !== "closed" ? "warn" : ""],
          ["sinks.inFlight", count(sink.inFlight)],
        ["sinks.concurrency", count(sink.concurrency)], ["sinks.perMinute", sink.perMinute == null ? t("sinks.noLimit")
          : count(sink.perMinute)],
        ["sinks.fallback", sink.fallback ?? null],
      ]),
      sink.test ? h("div", { class: "shown", role: "status" }, told(sink.test)) : null),
    may("operate") ? button("sinks.test", () => test(sink), { "aria-label": t("sinks.testOf", { name: sink.name }) }) : null),
});

const told = ({ state, error, reply, attempts }) => [
  h("p", null, pill(toneOf(state), t("sinks.tested", { state: word("delivery", state) }))),
  error ? h("p", { class: "text" }, error) : null, reply ? answer(reply) : null,
  attempts && state === "retry" ? h("p", { class: "note" }, t("attempts.count", { n: count(attempts) })) : null,
].filter(Boolean);

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

// Follows a test delivery until it is over, for half a minute at most.
const follow = async (name, id) => {
  for (let look = 0; look < LOOKS; look += 1) {
    const item = await get(`/admin/failures/${encodeURIComponent(id)}`);
    tests.set(name, { state: item.state, error: [item.errorCode, item.message].filter(Boolean).join(": "), reply: item.answer ?? "",
      attempts: item.attempts });
    await sinks.reload();
    if (OVER.includes(item.state)) return item.state;
    await pause(LOOK_MS);
  }
  return tests.get(name)?.state;
};

const test = (sink) => ask({
  title: t("sinks.testAsk", { name: sink.name }), text: t("sinks.testNote"),
  fields: [...(sink.takesRecipients ? [{ name: "to", label: "recipient", note: t("sinks.toNote") }] : []), REASON], ok: "sinks.test",
  work: async ({ to, reason }) => {
    const { deliveryId } = await post(`/admin/sinks/${encodeURIComponent(sink.name)}/test`, to ? { to, reason } : { reason });
    const state = await follow(sink.name, deliveryId);
    return t("sinks.result", { name: sink.name, state: word("delivery", state) });
  },
});
sinks.reload();
