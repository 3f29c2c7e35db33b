// What waits for a person: failures by cause, the failures of one cause, and one with its evidence and the decisions about it.

import { call, get } from "./api.js";
import { REASON, ask } from "./ask.js";
import { entry, heading, list, post } from "./desk.js";
import { $, answer, at, button, facts, h, may, pill, section, standing, tell, timeline, toneOf, when } from "./dom.js";
import { count, t, word } from "./format.js";

// Readings have no list of causes: so many of the newest are grouped here.
const READINGS = 200;
const PAGE = 50;
const REDRIVE_MOST = 10000;

// A group in the address: group/delivery/SINK/STATE/ERROR or group/reading//CAUSE/ERROR.
const linkOf = (group) => ["group", group.kind, group.sink, group.state,
  group.errorType].map((part) => encodeURIComponent(part ?? "")).join("/");
const groupOf = (link) => {
  const [word, kind, sink, state,
    errorType] = link.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return ""; } });
  return word === "group" ? { kind, sink, state, errorType } : null;
};

const gather = (groups, group, one) => {
  const link = linkOf(group);
  const known = groups.get(link);
  if (!known) return groups.set(link, { ...group, ...one });
  known.count += one.count;
  if (one.newestAt > known.newestAt) Object.assign(known, { newestAt: one.newestAt, sample: one.sample });
  if (one.oldestAt < known.oldestAt) known.oldestAt = one.oldestAt;
  return groups;
};

const load = async () => {
  const [causes, readings] = await Promise.allSettled([get("/admin/failures/causes"),
    get("/admin/failures", { kind: "reading", limit: READINGS })]);
  if (causes.status === "rejected") throw causes.reason;
  const groups = new Map();
  for (const { sink, errorType, state, count: n, oldestAt, newestAt, sample } of causes.value.items) {
    const text = [sample?.recipient, sample?.message].filter(Boolean).join(": ");
    gather(groups, { kind: "delivery", sink, state, errorType }, { count: n, oldestAt, newestAt, sample: text });
  }
  if (readings.status === "fulfilled") {
    const more = Boolean(readings.value.nextCursor);
    for (const { cause, errorCode, createdAt, engineId, message } of readings.value.items) {
      const one = { count: 1, oldestAt: createdAt, newestAt: createdAt, sample: `${engineId}: ${message}`, more };
      gather(groups, { kind: "reading", sink: "", state: cause, errorType: errorCode }, one);
    }
  }
  const away = causes.value.away?.length || readings.reason?.status === 503;
  if (readings.status === "rejected" && readings.reason.status !== 503) throw readings.reason;
  $("away").hidden = !away;
  return { items: [...groups.values()].sort((a, b) => (a.newestAt < b.newestAt ? 1 : -1)), nextCursor: null };
};

const nameOf = (group) => (group.kind === "reading" ? t("failures.readings") : group.sink);
const stand = (item) => (item.kind === "reading" ? pill(toneOf(item.cause ?? item.state), word("failure", item.cause ?? item.state))
  : standing(item.state));
const many = (group) => `${count(group.count)}${group.more ? "+" : ""}`;

const groups = list({
  load, link: linkOf, key: linkOf, empty: () => t("failures.empty"),
  row: (group) => [
    h("span", { class: "many" }, many(group)),
    h("span", { class: "what" },
      h("span", { class: "title" }, h("b", null, nameOf(group)), " ", stand(group), group.errorType
        ? [" ", h("code", null, group.errorType)] : null),
      h("span", { class: "text" }, group.sample),
      h("span", { class: "meta" }, t("failures.newest"), " ", when(group.newestAt),
        group.count > 1 ? [" · ", t("failures.oldest"), " ", when(group.oldestAt)] : null)),
  ],
});

// ---- One group

const members = (group, cursor) => get("/admin/failures", group.kind === "reading"
  ? { kind: "reading", limit: READINGS, cursor }
  : { kind: "delivery", sink: group.sink, state: group.state, errorType: group.errorType, limit: PAGE, cursor });
const belongs = (group, item) => item.kind === group.kind && item.cause === group.state && (item.errorCode ?? "") === group.errorType
  && (group.kind === "reading" || item.sink === group.sink);

const fetchGroup = async (group) => {
  const page = await members(group);
  return { group, items: page.items.filter((item) => belongs(group, item)), nextCursor: page.nextCursor };
};

const member = (item) => h("li", null, h("a", { class: "item", href: `#${item.id}` }, h("span", { class: "what" },
  h("span", { class: "title" }, h("b", null, item.engineId ?? (item.recipient || subjectOf(item)))),
  h("span", { class: "text" }, item.message),
  h("span", { class: "meta" }, when(item.createdAt), " · ", t("attempts.count", { n: count(item.attempts) })))));

const drawGroup = ({ group, items, nextCursor }) => {
  const rows = h("ul", { class: "items", "aria-label": t("failures.inGroup") }, items.map(member));
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  let next = nextCursor;
  const more = button("more", async () => {
    try {
      const page = await members(group, next);
      rows.append(...page.items.filter((item) => belongs(group, item)).map(member));
      next = page.nextCursor;
      more.hidden = !next;
      tell(problem, null);
    } catch (error) { tell(problem, error); }
  }, { hidden: !next });
  // Without the word for its failure a group cannot be named to the server, which would take all of the sink.
  const retryable = group.state !== "conflict" && (group.kind === "reading" || Boolean(group.errorType));
  return [
    heading(nameOf(group), " ", stand(group), group.errorType ? [" ", h("code", null, group.errorType)] : null),
    may("operate") && retryable ? h("p", { class: "buttons" }, button("failures.redrive", () => redrive(group, items.length),
      { class: "main" })) : null,
    items.length ? rows : h("p", { class: "none" }, t("failures.groupEmpty")), problem, h("p", { class: "more" }, more),
  ].filter(Boolean);
};

const redrive = (group, seen) => ask({
  title: t("failures.redriveAsk", { name: nameOf(group) }),
  text: t(group.kind === "reading" ? "failures.redriveReadings" : group.state === "uncertain" ? "failures.redriveUncertain"
    : "failures.redriveNote"),
  fields: [
    { name: "limit", label: "failures.limit", type: "number", min: 1, value: String(Math.min(Math.max(seen, 100), REDRIVE_MOST)),
      required: true },
    ...(group.kind === "reading" ? [] : [{ name: "perSecond", label: "failures.perSecond", type: "number", min: 0.001, step: "any",
      value: "10", note: t("failures.perSecondNote") }]),
    REASON,
  ],
  ok: "failures.redrive",
  work: async ({ limit, perSecond, reason }) => {
    const which = group.kind === "reading" ? { kind: "reading" } : { kind: "delivery", sink: group.sink, state: group.state,
      errorType: group.errorType || undefined };
    const told = await post("/admin/failures/redrive", { ...which, limit: Number(limit), perSecond: perSecond ? Number(perSecond)
      : undefined, reason });
    groups.reload();
    one.reload();
    return t("failures.redriven", { n: count(told.redriven), failed: count(told.failed) });
  },
});

// ---- One failure

const messageOf = (item) => item.payload?.message;
const subjectOf = (item) => messageOf(item)?.subject ?? item.payload?.title ?? item.subject ?? "";
const pretty = (json) => (typeof json === "string" ? json : JSON.stringify(json, null, 2));
const open = (item) => (item.kind === "reading" ? item.state === "open" : ["dead", "uncertain"].includes(item.state));

// The attempts as they were kept, or what the delivery itself knows of the last one.
const stepsOf = (item) => {
  const kept = (item.history ?? []).map((one) => ({
    at: one.endedAt ?? one.at, tone: { sent: "good", dead: "bad", uncertain: "warn", retry: "warn" }[one.outcome] ?? "wait",
    title: t("attempt.title", { n: count(one.attempt), outcome: word("delivery", one.outcome) }),
    text: [one.errorType, one.error].filter(Boolean).join(": "), answer: one.answer,
  }));
  const last = { at: item.updatedAt, tone: item.state === "dead" ? "bad" : "warn", title: t("attempt.last", { n: count(item.attempts) }),
    text: [item.errorCode, item.message].filter(Boolean).join(": ") };
  return [
    { at: item.createdAt, title: t("attempt.made") },
    ...(kept.length || !item.attempts ? kept : [last]),
    ...(item.dueAt && !item.settledAt && !open(item) ? [{ at: item.dueAt, title: t("attempt.due") }] : []),
    ...(item.settledAt ? [{ at: item.settledAt, tone: item.state === "sent" ? "good" : "none", title: word("delivery", item.state),
      answer: kept.length ? null : item.answer }] : []),
  ];
};

const decide = (item, { verb, ask: title, text, fields = [REASON], body = ({ reason }) => ({ reason }) }) => ask({
  title: t(title), text: text ? t(text) : "", fields, ok: `do.${verb}`,
  work: async (given) => {
    const path = `/admin/failures/${encodeURIComponent(item.id)}`;
    const told = verb === "retry" || verb === "edit" ? await call("PATCH", `${path}/retry`, body(given))
      : await post(`${path}/${verb}`, body(given));
    groups.reload();
    one.reload();
    return told.settled === false ? t("failures.failedAgain") : t(`done.${verb}`);
  },
});

// What an admin may set right before a delivery goes out again; what was not changed is not sent.
const edit = (item) => {
  const message = messageOf(item);
  const before = message ? { recipient: item.recipient ?? "", subject: message.subject ?? "", body: message.body ?? "" }
    : { recipient: item.recipient ?? "", payload: pretty(item.payload) };
  const fields = [
    ...(item.recipient ? [{ name: "recipient", label: "recipient", value: before.recipient }] : []),
    ...(message ? [{ name: "subject", label: "subject", value: before.subject, max: 200 },
      { name: "body", label: "body", value: before.body, lines: 8, note: message.html ? t("failures.htmlDropped") : "" }]
      : [{ name: "payload", label: "payload", value: before.payload, lines: 12 }]),
    REASON,
  ];
  const body = ({ reason, ...given }) => {
    const changed = Object.fromEntries(Object.entries(given).filter(([name, value]) => value !== before[name]?.trim()));
    if (changed.payload) {
      try { changed.payload = JSON.parse(changed.payload); } catch (error) { throw Object.assign(error,
        { details: [{ field: "payload", message: error.message }] }); }
    }
    return { reason, edit: changed };
  };
  return decide(item, { verb: "edit", ask: "ask.edit", text: item.state === "uncertain" ? "failures.mayRepeat" : "", fields, body });
};

const decisions = (item) => {
  if (!may("operate") || !open(item)) return null;
  const reading = item.kind === "reading";
  const retry = { verb: "retry", ask: "ask.retry", text: item.state === "uncertain" ? "failures.mayRepeat" : "" };
  return h("p", { class: "buttons" },
    item.cause === "conflict" ? null : button("retry", () => decide(item, retry), { class: "main" }),
    !reading && may("edit") ? button("do.edit", () => edit(item)) : null,
    reading ? null : button("markSent", () => decide(item, { verb: "mark-sent", ask: "ask.mark-sent", text: "failures.markNote" })),
    button("discard", () => decide(item, { verb: "discard", ask: "ask.discard" })));
};

// The reading that holds the key and the one that came later, metric by metric.
const compare = ({ existing, payload }) => {
  if (!existing || typeof existing !== "object") return section("payload", h("pre", { tabindex: "0" }, pretty(payload)));
  const names = [...new Set([...Object.keys(existing), ...Object.keys(payload ?? {})])];
  const cell = (value) => (value === undefined ? t("unknown") : typeof value === "string" ? value : JSON.stringify(value));
  return section("failures.compare", h("table", { class: "compare" },
    h("thead", null, h("tr", null, ["field", "failures.keptValue", "failures.sentValue"].map((key) => h("th", { scope: "col" }, t(key))))),
    h("tbody", null, names.map((name) => h("tr", { "data-differs": JSON.stringify(existing[name]) !== JSON.stringify(payload?.[name])
      ? "1" : null },
      h("th", { scope: "row" }, name), h("td", null, cell(existing[name])), h("td", null, cell(payload?.[name])))))));
};

// The way from one failure to the others of its cause.
const crumb = (item) => {
  const group = { kind: item.kind, sink: item.sink ?? "", state: item.cause, errorType: item.errorCode };
  return open(item) ? h("p", { class: "crumb" }, h("a", { href: `#${linkOf(group)}` },
    [nameOf(group), word("failure", item.cause), item.errorCode].filter(Boolean).join(" · "))) : null;
};

const drawReading = (item) => [
  crumb(item),
  heading(item.engineId, " ", stand(item)),
  h("p", { class: "lead-text" }, item.message),
  decisions(item),
  facts([
    ["state", word("failure.state", item.state), item.state === "open" ? "warn" : ""], ["failures.observed", at(item.observedAt)],
    ["failures.failedAt", when(item.createdAt)], ["failures.receipt", `${item.stream} / ${item.seq}`], ["failures.code", item.errorCode],
    ["attempts", count(item.attempts)], ["failures.decidedBy", item.actor], ["failures.why", item.reason],
  ]),
  compare(item),
];

const drawDelivery = (item) => {
  const message = messageOf(item);
  return [
    crumb(item),
    heading(subjectOf(item) || item.sink, " ", standing(item.state)),
    item.possibleRepeat ? h("p", { class: "lead-text" }, pill("warn", t("possibleRepeat"))) : null,
    item.message ? h("p", { class: "lead-text" }, item.errorCode ? [h("code", null, item.errorCode), " "] : null, item.message) : null,
    decisions(item),
    section("failures.timeline", timeline(stepsOf(item))),
    item.answer && !item.settledAt && !item.history?.length ? answer(item.answer) : null,
    facts([
      ["sink", item.sink], ["recipient", item.recipient], ["attempts",
        t("attempts.of", { n: count(item.attempts), most: count(item.maxAttempts) })],
      ["failures.kept", t(`store.${item.store}`)], ["failures.onUnknown", item.onUnknown ? word("onUnknown", item.onUnknown) : null],
      ["deliveryId", h("code", null, item.id)],
      ["failures.ofMessage", message?.id && !String(message.id).startsWith("test/")
        ? h("a", { href: `/messages#${encodeURIComponent(message.id)}` }, t("failures.toMessage")) : null],
      ["failures.ofAlert", item.payload?.id && !message ? h("a", { href: `/alerts#${encodeURIComponent(item.payload.id)}` },
        t("failures.toAlert")) : null],
    ]),
    message ? section("body", h("p", { class: "letter" }, message.body ?? "")) : null,
    h("details", null, h("summary", null, t("payload")), h("pre", { tabindex: "0" }, pretty(item.payload))),
  ];
};

const one = entry({
  fetch: (key) => {
    const group = groupOf(key);
    return group ? fetchGroup(group) : get(`/admin/failures/${encodeURIComponent(key)}`);
  },
  draw: (data) => (data.group ? drawGroup(data) : data.kind === "reading" ? drawReading(data) : drawDelivery(data)).filter(Boolean),
});
groups.reload();
