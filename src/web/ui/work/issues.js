// Issues: the list, one with what happened to it, comments and moves, and a new one.

import { get } from "./api.js";
import { REASON, ask } from "./ask.js";
import { entry, filters, heading, list, post } from "./desk.js";
import { $, button, facts, h, icon, may, pill, section, tell, timeline, when } from "./dom.js";
import { count, t, word } from "./format.js";

const TONES = { OPEN: "bad", IN_PROGRESS: "warn", RESOLVED: "good", CLOSED: "none" };
// Which moves an issue that stands so has: domain/issue.rs says the same, and refuses any other.
const MOVES = { OPEN: ["start", "resolve", "close"], IN_PROGRESS: ["resolve", "close", "reopen"], RESOLVED: ["close", "reopen"],
  CLOSED: ["reopen"] };

const standing = (state) => pill(TONES[state] ?? "wait", word("issue", state));
const path = (id, more = "") => `/api/issues/${encodeURIComponent(id)}${more}`;

const chosen = filters($("filters"), () => issues.from());
const issues = list({
  load: (cursor, limit) => get("/api/issues", { ...chosen(), limit, cursor }),
  empty: () => t(chosen().state ? "none.filtered" : "issues.empty"),
  row: (issue) => [
    h("span", { class: "sign", "data-level": issue.level }, icon(issue.level ?? "wait")),
    h("span", { class: "what" },
      h("span", { class: "title" }, h("b", null, issue.title), " ", standing(issue.state)),
      h("span", { class: "meta" }, [issue.subject, issue.openedBy].filter(Boolean).join(" · "), " · ", when(issue.openedAt), " · ",
        t("issues.counts", { comments: count(issue.commentCount), views: count(issue.views) }))),
  ],
});

const move = (issue, verb) => ask({
  title: t(`issues.ask.${verb}`), text: issue.title, fields: [REASON], ok: `issues.${verb}`,
  work: async ({ reason }) => {
    await post(path(issue.id, `/${verb}`), { reason });
    issues.reload();
    one.reload();
    return t("issues.moved", { what: word("issues.event", verb) });
  },
});

const EVENT_TONES = { alert: "bad", alert_resolved: "good", resolve: "good", start: "warn", reopen: "bad" };
const events = (issue) => timeline((issue.events ?? []).map((event) => ({
  at: event.at, tone: EVENT_TONES[event.event] ?? "wait", title: t("by", { what: word("issues.event", event.event), who: event.actor }),
  text: event.alertId
    ? [event.text ?? "", " ", h("a", { href: `/alerts#${encodeURIComponent(event.alertId)}` }, t("failures.toAlert"))] : event.text,
})));

// What is being typed stays while the issue is drawn anew, and while another one is looked at.
const drafts = new Map();

const commentForm = (issue) => {
  const text = h("textarea", { name: "text", rows: 3, maxlength: 10000, required: true, id: "comment",
    input: () => drafts.set(issue.id, text.value) });
  text.value = drafts.get(issue.id) ?? "";
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  return h("form", {
    class: "comment",
    submit: async (event) => {
      event.preventDefault();
      const send = event.target.querySelector("button");
      if (send.getAttribute("aria-disabled") === "true") return;
      send.setAttribute("aria-disabled", "true");
      try {
        await post(path(issue.id, "/comments"), { text: text.value.trim() });
        text.value = "";
        drafts.delete(issue.id);
        tell(problem, null);
        issues.reload();
        one.reload();
      } catch (error) {
        tell(problem, error);
      }
      send.removeAttribute("aria-disabled");
    },
  }, h("label", { for: "comment" }, t("issues.comment")), text, problem,
    h("p", { class: "buttons" }, h("button", { type: "submit" }, t("issues.say"))));
};

// One that was reopened was resolved once: its history says when.
const isOver = (issue) => ["RESOLVED", "CLOSED"].includes(issue.state);

// A look is counted: it is not repeated by itself.
const one = entry({
  again: false,
  fetch: (key, again) => get(path(key), again ? { counted: "false" } : {}),
  draw: (issue) => [
    heading(issue.title, " ", standing(issue.state)),
    may("operate") ? h("p", { class: "buttons" }, MOVES[issue.state]?.map((verb, i) => button(`issues.${verb}`, () => move(issue, verb),
      { class: i ? null : "main" }))) : null,
    issue.body ? h("p", { class: "letter" }, issue.body) : null,
    facts([
      ["level", issue.level ? word("level", issue.level) : null], ["issues.subject", issue.subject], ["issues.openedBy", issue.openedBy],
      ["issues.opened", when(issue.openedAt)], ["issues.resolvedAt", isOver(issue) && issue.resolvedAt ? when(issue.resolvedAt) : null],
      ["issues.closedAt", isOver(issue) && issue.closedAt ? when(issue.closedAt) : null], ["issues.views", count(issue.views)],
    ]),
    section("history", events(issue)),
    may("operate") ? commentForm(issue) : null,
  ].filter(Boolean),
});

$("new").addEventListener("click", () => ask({
  title: t("issues.new"), ok: "issues.open",
  fields: [
    { name: "title", label: "issues.title", max: 200, required: true }, { name: "body", label: "body", lines: 6, max: 10000 },
    { name: "level", label: "level", options: ["", "CRITICAL", "WARNING",
      "INFO"].map((level) => [level, level ? word("level", level) : t("unknown")]), value: "" },
    { name: "subject", label: "issues.subject", max: 200 },
  ],
  work: async (given) => {
    const made = await post("/api/issues", Object.fromEntries(Object.entries(given).filter(([, value]) => value)));
    await issues.from();
    location.hash = made.id;
    return t("issues.made");
  },
}));
issues.reload();
