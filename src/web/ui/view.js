// What stands in each list of the page, derived from one snapshot: pure, without the document. view/*.rs derives the
// same for the first state, list by list and slot by slot: change both or neither.

import { ago, bytes, clock, count, instant, isOld, number, since, span, t, word } from "./format.js";

const ENGINES_SHOWN = 12;
const ALERTS_SHOWN = 40;
const RESOLVED_SHOWN = 15;

const TONES = {
  ready: "good", ok: "good", closed: "good", running: "good",
  buffering: "warn", stopping: "warn", "half-open": "warn", backoff: "warn",
  full: "bad", failing: "bad", open: "bad", stalled: "bad", stopped: "bad",
  alive: "good", dead: "bad",
};
const toneOf = (state) => TONES[state] ?? "wait";
const icon = (name) => `#i-${name}`;
const rank = (level) => ({ CRITICAL: 3, WARNING: 2, INFO: 1 })[level] ?? 0;
const alarmed = (value, tone) => (value > 0 ? tone : "");
const fact = (key, label, value, tone = "") => ({ key, label: t(label), value, tone });
const clamp = (value) => Math.min(Math.max(value || 0, 0), 100);
const waiting = (ms) => (ms > 0 ? span(ms) : t("unknown"));

const pill = (key, tone, mark, label) => ({ key, tone, icon: icon(mark), label });

const readiness = (s) => {
  const tone = toneOf(s.readiness);
  return [pill("ready", tone, tone, word("readiness", s.readiness))];
};

// A buffer in memory is bounded by its readings, a journal by its bytes.
const bufferNote = ({ rowsBound, bytes: used }) =>
  (rowsBound == null ? t("figure.buffer.disk", { n: bytes(used) }) : t("figure.buffer.note", { n: count(rowsBound) }));

const figures = (s, alerts) => {
  const figure = (key, value, note, tone = "") =>
    ({ key, label: t(`figure.${key}`), value, note: t(`figure.${key}.note`, note), tone });
  const out = s.outbox ?? {};
  const toSend = ["scheduled", "ready", "claimed", "sending", "retry"].reduce((sum, state) => sum + (out[state] ?? 0), 0);
  const rate = s.ingest?.ratePerS;
  const uptime = s.system?.process?.uptimeS;
  return [
    figure("alerts", count(alerts.open ?? 0), { n: count(alerts.critical ?? 0) }, alerts.critical ? "bad" : alerts.open ? "warn" : ""),
    figure("engines", count(s.engines?.total), { n: count(s.engines?.alarmed) }),
    figure("rate", number(rate, (rate ?? 0) < 100 ? 1 : 0), { n: count(s.ingest?.acceptedTotal) }),
    { ...figure("buffer", count(s.buffer?.rows)), note: bufferNote(s.buffer ?? {}) },
    figure("outbox", count(toSend), { n: count(out.sentTotal) }),
    figure("uptime", uptime == null ? t("unknown") : span(Math.max(uptime, 1) * 1000), { n: s.version ?? "" }),
  ];
};

const isResolved = (alert) => alert.state === "resolved";
const later = (a, b) => (instant(b) || 0) - (instant(a) || 0);

const alertRow = (a) => ({
  key: a.id, level: a.level, state: a.state, name: a.name, subject: a.subject, text: a.text,
  icon: icon(isResolved(a) ? "done" : a.level),
  levelLabel: word("level", a.level),
  count: a.count > 1 ? `× ${count(a.count)}` : "",
  openedIso: a.openedAt, opened: clock(a.openedAt),
  status: a.state === "acknowledged" ? t("alert.acknowledged", { who: a.acknowledgedBy || "–", time: since(a.acknowledgedAt) })
    : isResolved(a) ? t("alert.resolved", { time: span(Math.max((instant(a.resolvedAt) - instant(a.openedAt)) || 0, 1000)) })
    : t("alert.firing", { time: since(a.openedAt) }),
  ack: a.state === "firing" ? "1" : "",
  ackLabel: t("ack.label", { name: a.name, subject: a.subject }),
});

const alertRows = (s) => {
  const all = s.alerts ?? [];
  const open = all.filter((a) => !isResolved(a)).sort((a, b) => rank(b.level) - rank(a.level) || later(a.openedAt, b.openedAt));
  const done = all.filter(isResolved).sort((a, b) => later(a.resolvedAt, b.resolvedAt)).slice(0, RESOLVED_SHOWN);
  return [...open, ...done].slice(0, ALERTS_SHOWN).map(alertRow);
};

// A line through the samples in a box of 72 by 18. The scale spans at least 2 % of the value.
const spark = (samples) => {
  const values = (samples ?? []).filter((value) => typeof value === "number");
  if (values.length < 2) return "";
  const low = Math.min(...values);
  const high = Math.max(...values);
  const middle = (low + high) / 2;
  const span = Math.max(high - low, Math.abs(middle) * 0.02, 1e-9);
  const step = 70 / (values.length - 1);
  let x = 71 - step * (values.length - 1);
  let path = "";
  for (const value of values) {
    path += `${path ? "L" : "M"}${x.toFixed(1)} ${(9 - ((value - middle) / span) * 15).toFixed(1)}`;
    x += step;
  }
  return path;
};

// Keys are kept: the padding is the same once a second for every engine.
const naturals = new Map();
const natural = (id) => {
  let key = naturals.get(id);
  if (key === undefined) {
    if (naturals.size > 5000) naturals.clear();
    key = id.replace(/\d+/g, (digits) => digits.padStart(12, "0"));
    naturals.set(id, key);
  }
  return key;
};

const engineRow = (e) => {
  const level = rank(e.alarm) > 0 ? e.alarm : "";
  return {
    key: e.engineId, engineId: e.engineId, level, old: isOld(e.observedAt) ? "1" : "",
    icon: icon(level || "none"),
    state: level ? word("level", level) : e.status || t("unknown"),
    status: level ? e.status : "",
    temperature: number(e.temperature, 1), rpm: number(e.rpm, 0), pressure: number(e.pressure, 2), fuelFlow: number(e.fuelFlow, 2),
    sparkT: spark(e.trend?.temperature), sparkR: spark(e.trend?.rpm),
    seenIso: e.observedAt, seen: ago(e.observedAt),
  };
};

const engineRows = (s, { filter, all }) => {
  const wanted = (s.engines?.items ?? []).filter((e) => !filter || `${e.engineId} ${e.status ?? ""} ${word("level", e.alarm)}`.toLowerCase().includes(filter));
  wanted.sort((a, b) => rank(b.alarm) - rank(a.alarm) || (natural(a.engineId) < natural(b.engineId) ? -1 : 1));
  return { matching: wanted.length, rows: (all ? wanted : wanted.slice(0, ENGINES_SHOWN)).map(engineRow) };
};

const party = (words, name, state, detail) => {
  const tone = toneOf(state);
  return { key: name, name, tone, icon: icon(tone), state: word(words, state), detail };
};
const sources = (s) => (s.ingest?.sources ?? []).map((source) => {
  const answered = source.lastOkAt ? t("source.last", { time: ago(source.lastOkAt) }) : t("source.never");
  return party("source", source.name, source.state, source.error ? `${answered}: ${source.error}` : answered);
});
const sinks = (s) => (s.outbox?.sinks ?? []).map((sink) =>
  party("circuit", sink.name, sink.state, t("sink.backlog", { n: count(sink.backlog) })));

const circuits = (s) => (s.circuits ?? []).map((c) => party("breaker", c.party, c.state, t("breaker.since", { time: since(c.since) })));
const level = (value, bound, write) => t("recovery.level", { n: write(value ?? 0), bound: write(bound ?? 0) });
const seconds = (s) => span(Math.max(s, 1) * 1000);
const percent = (n) => `${(n ?? 0).toFixed(2)} %`;
const recovery = ({ recovery: r = {} }) => {
  const late = (value, bound) => (value > bound ? "warn" : "");
  return [
    fact("outbox", "recovery.outbox", level(r.outboxS, r.outboxWithinS, seconds), late(r.outboxS, r.outboxWithinS)),
    fact("buffer", "recovery.buffer", level(r.bufferS, r.bufferWithinS, seconds), late(r.bufferS, r.bufferWithinS)),
    fact("running", "recovery.running", level(r.runningS, r.withinS, seconds), late(r.runningS, r.withinS)),
    fact("last", "recovery.last", r.lastS == null ? t("unknown") : seconds(r.lastS)),
    fact("success", "recovery.success", level(r.successPercent, r.successLevel, percent), late(r.successLevel, r.successPercent)),
  ];
};

// One instance alone is no news.
const instances = (s) => ((s.instances ?? []).length < 2 ? [] : s.instances).map((i) => {
  const seen = i.this ? t("instance.this") : t("instance.seen", { time: ago(i.lastSeenAt) });
  const holds = (i.holds ?? []).join(", ");
  return { ...party("instance", `${i.host} ${i.pid}`, i.state, holds ? `${seen}: ${holds}` : seen), key: i.instance };
});

const ingest = ({ ingest: i = {} }) => [
  fact("accepted", "ingest.accepted", count(i.acceptedTotal)),
  fact("rejected", "ingest.rejected", count(i.rejectedTotal), alarmed(i.rejectedTotal, "warn")),
];

const bufferBars = ({ buffer: b = {} }) => {
  const bar = (key, label, used, bound, write) => {
    const share = (100 * (used ?? 0)) / Math.max(bound ?? 0, 1);
    return {
      key, label: t(label), value: write(used), note: t("bound", { n: write(bound) }), limit: "",
      tone: share >= 100 ? "bad" : share >= 80 ? "warn" : "", fill: clamp(share).toFixed(1),
    };
  };
  return [
    // A journal is bounded by its bytes alone.
    ...(b.rowsBound == null ? [] : [bar("rows", "buffer.rows", b.rows, b.rowsBound, count)]),
    bar("bytes", "buffer.bytes", b.bytes, b.bytesBound, bytes),
  ];
};

// The server says it at length and in English; the table says it shortly for the codes it knows.
const mayLose = ({ mayLoseCode: code, mayLose }) => (word("mayLose", code) === (code ?? "") ? mayLose : word("mayLose", code));
const journal = ({ fullInMs, lanes, account: a = {} }) => {
  const gone = (a.quarantined ?? 0) + (a.void ?? 0) + (a.lost ?? 0);
  return [
    fact("fullIn", "buffer.fullIn", fullInMs == null ? t("buffer.notFilling") : span(fullInMs), alarmed(fullInMs, "warn")),
    fact("lanes", "buffer.lanes", count(lanes)),
    fact("gaps", "buffer.gaps", count(gone), alarmed(gone, "bad")),
  ];
};
const buffer = ({ buffer: b = {}, redis }) => [
  fact("tier", "buffer.tier", b.tier),
  fact("oldest", "buffer.oldest", waiting(b.oldestAgeMs)),
  ...(redis ? [fact("redis", "buffer.redis", word("redis", redis.state), redis.state === "up" ? "good" : "warn")] : []),
  ...(redis?.uncopied == null ? [] : [fact("uncopied", "buffer.uncopied", count(redis.uncopied))]),
  ...(b.tier === "memory" ? [] : journal(b)),
  fact("mayLose", "buffer.mayLose", mayLose(b)),
];

// What takes how much on the disk; what is not known is left out.
const disk = ({ disk: k, diskFreeBytes, diskFullInMs }) => [
  ...["readings", "deliveries", "ledger", "index", "free", "control"].filter((kind) => k?.[`${kind}Bytes`] != null)
    .map((kind) => fact(kind, `disk.${kind}`, bytes(k[`${kind}Bytes`]))),
  ...(k?.partitions ? [fact("partitions", "disk.partitions", count(k.partitions))] : []),
  ...(k?.oldestReadingAt ? [fact("oldest", "disk.oldest", t("disk.ago", { time: since(k.oldestReadingAt) }))] : []),
  ...(diskFreeBytes == null ? [] : [fact("diskFree", "disk.diskFree", diskFullInMs == null ? bytes(diskFreeBytes)
    : t("disk.filling", { n: bytes(diskFreeBytes), time: span(diskFullInMs) }), alarmed(diskFullInMs, "warn"))]),
];

const store = ({ store: d = {} }) => {
  const down = d.state === "down";
  const { faults, rows, endedAt } = d.integrity ?? {};
  const checked = faults == null ? t("store.unchecked")
    : faults ? t("store.unsound", { n: count(faults), time: since(endedAt) })
      : t("store.sound", { n: count(rows), time: since(endedAt) });
  return [
    fact("backend", "store.backend", d.backend),
    fact("state", "store.state", down ? t("store.down", { time: since(d.downSince) }) : t("store.up"), down ? "bad" : "good"),
    fact("size", "store.size", bytes(d.sizeBytes)),
    ...disk(d),
    fact("integrity", "store.integrity", checked, alarmed(d.integrity?.faults, "bad")),
    ...(d.weak ? [fact("weak", "store.weak", d.weak, "bad")] : []),
  ];
};

const outbox = ({ outbox: o = {} }) => [
  ...[["ready"], ["scheduled"], ["claimed"], ["sending"], ["retry", "warn"], ["uncertain", "warn"], ["dead", "bad"]]
    .map(([state, tone = ""]) => fact(state, `delivery.${state}`, count(o[state]), alarmed(o[state], tone))),
  fact("sent", "delivery.sent", count(o.sentTotal)),
  fact("oldest", "delivery.oldest", waiting(o.oldestAgeS * 1000)),
];

const TERMS = [
  ["accepted", 1, ""], ["stored", 1, ""], ["duplicate", 1, ""], ["conflict", 1, "warn"], ["dead", 1, "bad"],
  ["discarded", 0, ""], ["quarantined", 0, "bad"], ["void", 0, "bad"], ["lost", 0, "bad"], ["buffered", 1, ""],
];
const account = (s) => {
  const sums = s.buffer?.account ?? {};
  return TERMS.filter(([term, always]) => always || sums[term])
    .map(([term, , tone], i) => ({
      ...fact(term, `account.${term}`, count(sums[term]), alarmed(sums[term], tone)), sign: ["", "=", "+"][Math.min(i, 2)],
    }));
};
const verdict = (s) => {
  const off = s.buffer?.difference ?? 0;
  return [off ? pill("verdict", "bad", "bad", t("account.off", { n: count(off) })) : pill("verdict", "good", "done", t("account.even"))];
};

const failureCounts = (s) => {
  const { conflict, dead } = s.buffer?.account ?? {};
  return [
    ["conflict", "failures.conflict", conflict, "warn"], ["dead", "failures.dead", dead, "bad"],
    ["deliveries", "failures.deliveries", s.outbox?.dead, "bad"], ["uncertain", "failures.uncertain", s.outbox?.uncertain, "warn"],
  ].map(([key, label, n, tone]) => fact(key, label, count(n), alarmed(n, tone)));
};

const system = (s) => ["cpu", "memory", "disk"].map((part) => {
  const { percent, limit, usedBytes, totalBytes } = s.system?.[part] ?? {};
  const known = typeof limit === "number";
  return {
    key: part, label: t(part), value: `${number(percent, 1)} %`,
    note: [
      totalBytes == null ? "" : t("used", { used: bytes(usedBytes), total: bytes(totalBytes) }),
      known ? t("limit", { n: count(limit) }) : "",
    ].filter(Boolean).join(" · "),
    tone: !known || percent == null ? "" : percent >= limit ? "bad" : percent >= limit * 0.9 ? "warn" : "",
    fill: clamp(percent).toFixed(1), limit: known ? `M${clamp(limit).toFixed(1)} 0V6` : "",
  };
});
const process = ({ system: { process: p = {} } = {} }) => [
  fact("private", "process.private", bytes(p.privateBytes)),
  fact("rss", "process.rss", bytes(p.rssBytes)),
];

const actors = (s) => (s.actors ?? []).map((a) => {
  const tone = toneOf(a.state);
  return {
    key: a.name, name: a.name, tone, icon: icon(tone), state: word("actor", a.state), restarts: count(a.restarts),
    mailbox: `${count(a.mailboxDepth)} / ${count(a.mailboxBound)}`,
    fill: clamp((100 * (a.mailboxDepth ?? 0)) / Math.max(a.mailboxBound ?? 0, 1)).toFixed(1),
    progress: a.lastProgressMs == null ? t("unknown") : span(a.lastProgressMs),
  };
});

const inbox = (s) => {
  const seen = new Map();
  return (s.inbox ?? []).map((mail) => {
    const base = `${mail.at}|${mail.via}|${mail.title}`;
    const twins = seen.get(base) ?? 0;
    seen.set(base, twins + 1);
    return { key: twins ? `${base}#${twins}` : base, via: mail.via, title: mail.title, body: mail.body, atIso: mail.at, at: clock(mail.at) };
  });
};

// `shown` says how the visitor wants the engines: {filter, all}.
export const view = (s, shown) => {
  const alerts = s.alertCounts ?? {};
  const engines = engineRows(s, shown);
  const restarts = (s.actors ?? []).reduce((sum, actor) => sum + (actor.restarts ?? 0), 0);
  return {
    title: `${alerts.critical ? `(${alerts.critical}) ` : ""}${s.instance ?? ""} · belayd`,
    matching: engines.matching,
    total: s.engines?.items?.length ?? 0,
    texts: {
      instance: s.instance ?? "", version: s.version ?? "",
      alertsNote: t("alerts.note", { open: count(alerts.open ?? 0), resolved: `${count(alerts.resolved ?? 0)}${alerts.resolvedMore ? "+" : ""}` }),
      enginesNote: t("engines.note", { shown: engines.rows.length, total: count(s.engines?.total) }),
      actorsNote: t("actors.note", { n: count(restarts) }),
    },
    lists: {
      ready: readiness(s), figures: figures(s, alerts), alerts: alertRows(s), engines: engines.rows, inbox: inbox(s),
      sources: sources(s), ingest: ingest(s), bufferBars: bufferBars(s), buffer: buffer(s), store: store(s), instances: instances(s), sinks: sinks(s),
      outbox: outbox(s), account: account(s), verdict: verdict(s), failureCounts: failureCounts(s),
      system: system(s), process: process(s), circuits: circuits(s), recovery: recovery(s), actors: actors(s),
    },
  };
};
