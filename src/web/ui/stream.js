// The live stream, read with fetch rather than EventSource: that one hides the status of an answer, and a page that may not
// look any more must say so instead of trying for ever in silence.

const RETRY_MS = [300, 700, 1500, 3000, 5000];
const SIGNED_OUT_RETRY_MS = 10000;
// A connection that is open and says nothing for so long is given up: the other end may be gone without a word.
const SILENCE_MS = 8000;

const wait = (ms) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  // The visitor comes back, or the network does: that is worth a try at once.
  const hurry = () => { clearTimeout(timer); resolve(); };
  addEventListener("online", hurry, { once: true });
  document.addEventListener("visibilitychange", hurry, { once: true });
});

// Reads events for ever. `onState(snapshot)` for each event "state"; `onTrouble(kind)` when a connection fails or ends:
// "reconnecting", "full" or "signedOut". Nothing is reported twice in a row.
export const follow = async (url, onState, onTrouble) => {
  let failures = 0;
  for (;;) {
    let trouble = "reconnecting";
    const abort = new AbortController();
    let heard = performance.now();
    const watch = setInterval(() => { if (performance.now() - heard > SILENCE_MS) abort.abort(); }, 1000);
    try {
      const answer = await fetch(url, { headers: { Accept: "text/event-stream" }, credentials: "same-origin", cache: "no-store", signal: abort.signal });
      if (answer.status === 401 || answer.status === 403) trouble = "signedOut";
      else if (answer.status === 503 && (await answer.json()).error?.code === "too_many_streams") trouble = "full";
      else if (answer.ok) {
        await read(answer.body, () => { heard = performance.now(); }, (snapshot) => { failures = 0; onState(snapshot); });
      }
    } catch {
      // The connection broke or was given up: said by onTrouble.
    }
    clearInterval(watch);
    abort.abort();
    onTrouble(trouble);
    await wait(trouble === "signedOut" ? SIGNED_OUT_RETRY_MS : RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)] * (0.8 + 0.4 * Math.random()));
  }
};

// Parses the event stream format (WHATWG HTML, 9.2), as far as belayd speaks it: event and data fields, comments.
const read = async (body, onBytes, onState) => {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  let event = "";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    onBytes();
    pending += value;
    const lines = pending.split("\n");
    pending = lines.pop();
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (event === "state" && data.length) onState(JSON.parse(data.join("\n")));
        event = "";
        data = [];
      } else if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    }
  }
};
