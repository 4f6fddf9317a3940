// The figures at the top and the state of the service.

import { byId, el, replace } from "./dom.js";
import { count, duration, percent } from "./words.js";

const TILES = [
  ["events_per_s", "Events per second", (s) => count(Math.round(s.events_per_s)), (s) => (s.lag_records ? `${count(s.lag_records)} waiting` : "all read")],
  ["events_learned", "Events learned", (s) => count(s.events_learned), (s) => `about ${count(s.n_items)} items`],
  ["users_with_snapshot", "Users with a list", (s) => count(s.users_with_snapshot), (s) => `${count(s.snapshots)} snapshots`],
  ["event_to_snapshot", "Event to list, p50", (s) => duration(s.event_to_snapshot_p50_s), (s) => `p99 ${duration(s.event_to_snapshot_p99_s)}`],
  ["dead_letters", "Dead letters", (s) => count(total(s.dead_letters)), (s) => mostly(s.dead_letters)],
  ["device", "Learning on", (s) => deviceName(s.device), (s) => (s.ready ? learning(s) : recovering(s))],
];

const total = (letters) => Object.values(letters).reduce((sum, n) => sum + n, 0);
const deviceName = (device) => (device.startsWith("cuda") ? device.replace("cuda", "GPU") : device.toUpperCase());
const recovering = (s) => (s.recovered === null || s.recovered === undefined ? "catching up" : `catching up, ${percent(s.recovered)}`);

const learning = (s) => (s.adapting ? `adapting: tastes changed (${(s.drifted || "lists").replaceAll("_", " ")})` : "publishing");

function mostly(letters) {
  const [first] = Object.entries(letters).sort((a, b) => b[1] - a[1]);
  return first && first[1] ? `mostly ${first[0].replaceAll("_", " ")}` : "every event was usable";
}

const nodes = new Map();

export function makeTiles() {
  replace(
    byId("tiles"),
    ...TILES.map(([name, title]) => {
      const value = el("dd", { class: "value", "data-testid": `tile-${name}` }, "–");
      const note = el("dd", { class: "note", "data-testid": `note-${name}` }, "\u00a0");
      nodes.set(name, [value, note]);
      return el("div", { class: "tile" }, el("dt", {}, title), value, note);
    }),
  );
}

export function showTiles(stats) {
  for (const [name, , valueOf, noteOf] of TILES) {
    const [value, note] = nodes.get(name);
    value.textContent = valueOf(stats);
    note.textContent = noteOf(stats);
  }
  showStatus(stats.ready ? "ready" : "recovering", stats.ready ? (stats.adapting ? "Live, adapting" : "Live") : recovering(stats));
}

export function showStatus(state, text, why = "") {
  const status = byId("status");
  if (status.dataset.state !== state || status.textContent !== text) {
    status.dataset.state = state;
    status.textContent = text;
  }
  status.title = why;
}
