// Numbers, times and words as the page writes them; format.rs does the same for the first state: change both or neither.

const texts = JSON.parse(document.getElementById("texts").textContent);

// The moment that ages are counted to. It follows the clock of the server, so that a wrong clock here does not show.
let now = 0;
export const setNow = (ms) => { now = ms; };

export const t = (key, slots) => {
  let text = texts[key] ?? key;
  for (const slot in slots) text = text.replaceAll(`{${slot}}`, slots[slot]);
  return text;
};
export const word = (prefix, name) => texts[`${prefix}.${name}`] ?? name ?? "";
export const instant = (iso) => (iso ? Date.parse(iso) : NaN);

export const number = (value, digits) => {
  if (typeof value !== "number" || !Number.isFinite(value)) return t("unknown");
  const [whole, decimals] = value.toFixed(digits).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return decimals ? `${grouped}.${decimals}` : grouped;
};
export const count = (value) => number(value, 0);

export const bytes = (value) => {
  if (typeof value !== "number") return t("unknown");
  let unit = "B";
  for (const larger of ["kB", "MB", "GB", "TB"]) {
    if (value < 1000) break;
    value /= 1000;
    unit = larger;
  }
  return `${number(value, unit !== "B" && value < 100 ? 1 : 0)} ${unit}`;
};

export const span = (ms) => {
  ms = Math.max(ms, 0);
  const [unit, n] = ms < 1e3 ? ["ms", ms]
    : ms < 6e4 ? ["s", ms / 1e3]
    : ms < 36e5 ? ["min", ms / 6e4]
    : ms < 1728e5 ? ["h", ms / 36e5]
    : ["d", ms / 864e5];
  return t(`unit.${unit}`, { n: count(Math.floor(n)) });
};

export const since = (iso) => {
  const then = instant(iso);
  return Number.isNaN(then) ? t("unknown") : span(Math.max(now - then, 1000));
};
export const ago = (iso) => {
  const then = instant(iso);
  if (Number.isNaN(then)) return t("unknown");
  return now - then < 2000 ? t("now") : t("ago", { time: since(iso) });
};
export const isOld = (iso) => !(now - instant(iso) < 30000);

// The server writes UTC and says so; here it is the visitor's own time.
const pad = (n) => String(n).padStart(2, "0");
export const clock = (iso) => {
  const then = instant(iso);
  if (Number.isNaN(then)) return t("unknown");
  const at = new Date(then);
  const minutes = `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  return Math.abs(now - then) < 864e5
    ? `${minutes}:${pad(at.getSeconds())}`
    : `${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${minutes}`;
};
