// Requests to belayd, and what it says when it refuses: a sentence for a person, what to do, and the fields concerned.

import { t } from "./format.js";

// `message` is all of it in one sentence; `said` and `hint` are its two halves.
export class Refused extends Error {
  constructor(said, { status = 0, hint = "", details = [] } = {}) {
    super([said, hint].filter(Boolean).join(" "));
    Object.assign(this, { said, hint, details, status });
  }
}

// The clock of the server, as the last answer told it, and when that was.
export const served = { atMs: Date.now(), heardAt: performance.now() };

// Sends a request and returns the answer's JSON; throws a Refused.
export const call = async (method, path, body) => {
  let answer;
  try {
    answer = await fetch(path, {
      method, credentials: "same-origin", cache: "no-store",
      headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body),
    });
  } catch {
    throw new Refused(t("problem.network"));
  }
  const date = Date.parse(answer.headers.get("Date"));
  if (!Number.isNaN(date)) Object.assign(served, { atMs: date, heardAt: performance.now() });
  const json = await answer.json().catch(() => null);
  if (answer.ok) return json;
  if (answer.status === 401) throw new Refused(t("say.signedOut"), { status: 401 });
  const { message = "", hint = "", details = [] } = json?.error ?? {};
  throw new Refused(t("problem.status", { status: answer.status, message }), { status: answer.status, hint, details });
};

// Asks for something; parameters that are empty are left out.
export const get = (path, parameters = {}) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  return call("GET", given.length ? `${path}?${new URLSearchParams(given)}` : path);
};
