// Numbers, ages and reasons in words.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n) => (n < 100_000 ? whole.format(n) : compact.format(n));

export const percent = (ratio) => (ratio === null || ratio === undefined ? "–" : `${(100 * ratio).toFixed(1)} %`);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}

export function ago(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 10) return `${s.toFixed(1)} s ago`;
  if (s < 120) return `${Math.round(s)} s ago`;
  if (s < 7200) return `${Math.round(s / 60)} min ago`;
  if (s < 172_800) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86_400)} days ago`;
}

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

export function clock(ms) {
  const at = new Date(ms);
  return at.toDateString() === new Date().toDateString() ? time.format(at) : `${day.format(at)}, ${time.format(at)}`;
}

export function reason(found, titleOf) {
  const item = found.item_id ? titleOf(found.item_id) : "something like it";
  const viewers = found.viewers ? ` (${count(found.viewers)} viewers went on to this)` : "";
  const words = {
    because_you_watched: `because you watched ${item}`,
    similar_to: `similar to ${item}`,
    popular: "popular now",
    matches_your_taste: "matches your taste",
    new: "new in the catalogue",
    explore: "something different",
  };
  return (words[found.kind] ?? found.kind.replaceAll("_", " ")) + viewers;
}

export const sources = {
  transitions: "Next watched",
  embedding: "Taste",
  popularity: "Popular",
  content: "Content",
  exploration: "Explore",
};

export const verbs = {
  impression: "saw",
  watch: "watched",
  like: "liked",
  dislike: "disliked",
  skip: "skipped",
  comment: "commented on",
  share: "shared",
  favourite: "saved",
  follow: "followed from",
  gift: "sent a gift in",
  join: "joined",
  leave: "left",
};

export const icons = {
  impression: "◌",
  watch: "▶",
  like: "♥",
  dislike: "✕",
  skip: "»",
  comment: "✎",
  share: "↗",
  favourite: "★",
  follow: "+",
  gift: "✦",
  join: "→",
  leave: "←",
};
