// The live page: takes over what the server rendered, follows the stream, and says the truth about the connection.

import { acknowledge, failures } from "./actions.js";
import { instant, setNow, span, t } from "./format.js";
import { List, differences } from "./lists.js";
import { follow } from "./stream.js";
import { view } from "./view.js";

const STALE_MS = 3000;
const FLASH_MS = 6000;

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const lists = Object.fromEntries([...document.querySelectorAll("[data-list]")].map((element) => [element.dataset.list, new List(element)]));
const texts = [...document.querySelectorAll("[data-text]")];
const shown = { filter: "", all: false };

let snapshot = JSON.parse($("state").textContent);
const pageVersion = snapshot.version;
let arrived = performance.now();
let heardOnce = false;
let trouble = null;

// ---- Drawing

const flash = (element, before, item) => {
  if (!before || Number(item.restarts) <= Number(before.restarts)) return;
  element.dataset.flash = "1";
  clearTimeout(element.flashTimer);
  element.flashTimer = setTimeout(() => { delete element.dataset.flash; }, FLASH_MS);
};

const draw = () => {
  // Time goes on while nothing is heard: ages must not stand still on a page that is out of date.
  setNow(instant(snapshot.now) + (heardOnce ? performance.now() - arrived : 0));
  const now = view(snapshot, shown);
  document.title = connection === "live" || connection === "connecting" ? now.title : `⚠ ${now.title}`;
  if (document.hidden) return;
  for (const name in now.lists) lists[name].update(now.lists[name], name === "actors" ? flash : undefined);
  for (const element of texts) {
    if (element.textContent !== now.texts[element.dataset.text]) element.textContent = now.texts[element.dataset.text];
  }
  document.body.dataset.inbox = snapshot.inbox ? "1" : "";
  const long = now.total > now.lists.engines.length || shown.all || shown.filter !== "";
  $("filter").hidden = !(long || now.total > 8);
  $("no-match").hidden = !(shown.filter && now.matching === 0);
  $("more").hidden = !(now.matching > now.lists.engines.length || (shown.all && now.matching > 12));
  $("more").textContent = shown.all ? t("engines.less") : t("engines.more", { n: now.matching });
};

// ---- Words for those who listen: few, and not the same twice

let saying = 0;
const queue = [];
const announce = (text) => {
  queue.push(text);
  clearTimeout(saying);
  saying = setTimeout(() => { $("announce").textContent = queue.splice(0).slice(0, 5).join(" "); }, 400);
};

const known = new Set((snapshot.alerts ?? []).map((alert) => alert.id));
const announceNew = () => {
  for (const alert of snapshot.alerts ?? []) {
    if (known.has(alert.id)) continue;
    known.add(alert.id);
    if (alert.level === "CRITICAL" && alert.state === "firing") announce(t("say.critical", { what: `${alert.name} ${alert.subject}` }));
  }
};

// ---- The connection

let connection = "connecting";
let updated = false;

const say = (state, tone, text, link) => {
  const before = connection;
  connection = state;
  root.dataset.conn = state;
  $("conn").dataset.tone = tone;
  $("conn").querySelector("use").setAttribute("href", `#i-${tone}`);
  const target = $("conn-text");
  if (target.textContent !== text) {
    const anchor = link ? Object.assign(document.createElement("a"), { href: "/", textContent: text }) : null;
    target.replaceChildren(anchor ?? text);
  }
  if (before === state) return;
  if (state === "live" && before !== "connecting") announce(t("say.live"));
  else if (state === "signedOut") announce(t("say.signedOut"));
  else if (before === "live") announce(t("say.lost"));
};

const judge = () => {
  const silent = performance.now() - arrived;
  const time = span(Math.max(silent, 1000));
  if (trouble === "signedOut") say("signedOut", "bad", t("conn.signedOut"), true);
  else if (trouble === "full") say("reconnecting", "warn", t("conn.full"));
  else if (trouble) say("reconnecting", "bad", t("conn.reconnecting", { time }));
  else if (silent > STALE_MS) say("stale", "warn", t("conn.stale", { time }));
  else if (!heardOnce) say("connecting", "wait", t("conn.connecting"));
  else if (updated) say("live", "warn", t("conn.updated"), true);
  else say("live", "good", t("conn.live"));
};

const onState = (news) => {
  snapshot = news;
  arrived = performance.now();
  heardOnce = true;
  trouble = null;
  updated = news.version !== pageVersion;
  judge();
  announceNew();
  draw();
};

const onTrouble = (kind) => {
  trouble = kind;
  judge();
};

setInterval(() => {
  judge();
  if (connection !== "live" && heardOnce) draw();
}, 500);
document.addEventListener("visibilitychange", draw);

// ---- Controls

$("filter").addEventListener("input", () => { shown.filter = $("filter").value.trim().toLowerCase(); draw(); });
$("more").addEventListener("click", () => {
  shown.all = !shown.all;
  $("more").setAttribute("aria-expanded", String(shown.all));
  draw();
});
$("how").textContent = $("how").textContent.replace("http://localhost:7070", location.origin);
acknowledge(lists.alerts, announce);
failures(lists.failures);

root.classList.add("live");
draw();
root.dataset.differences = String(differences.length);
if (differences.length) console.warn(`The first state differs from the live page: ${differences.join("; ")}`);
follow("/api/stream", onState, onTrouble);
