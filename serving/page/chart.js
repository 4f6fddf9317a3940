// How well each contender ranks what comes next, over time, as lines drawn by hand.

import { byId, el, replace, svg } from "./dom.js";
import { count, percent } from "./words.js";

const SERIES = [
  ["reelflow", "reelflow"],
  ["markov", "First-order Markov"],
  ["popularity", "Popularity"],
];
const COLUMN = { reelflow: 1, popularity: 2, markov: 3 };
const METRICS = {
  recall_20: ["Recall@20", "How often the next item watched was among the first twenty"],
  hit_rate_10: ["Hit rate@10", "How often the next item watched was among the first ten"],
  ndcg_10: ["nDCG@10", "How far up in the first ten the next item watched was, 1 / log2(place + 1)"],
  mrr_20: ["MRR@20", "How far up in the first twenty the next item watched was, 1 / place"],
};
const HEIGHT = 260;
const MARGIN = { top: 14, right: 64, bottom: 42, left: 62 };

let rows = [];
let latest = {};
let hovered = null;
let metric = "recall_20";
let shown = null;

export function makeChart() {
  const holder = byId("chart");
  const choice = byId("metric");
  replace(choice, ...Object.entries(METRICS).map(([name, [title]]) => el("option", { value: name }, title)));
  choice.value = metric;
  choice.addEventListener("change", () => {
    metric = choice.value;
    if (shown) showChart(shown);
  });
  new ResizeObserver(draw).observe(holder);
  holder.addEventListener("pointermove", (event) => {
    hovered = event.clientX - holder.getBoundingClientRect().left;
    draw();
  });
  holder.addEventListener("pointerleave", () => {
    hovered = null;
    draw();
  });
}

export function showChart(stats) {
  shown = stats;
  rows = (stats.quality_series[metric] ?? []).filter((row) => row.length >= 4 && row[0] !== null);
  latest = Object.fromEntries(SERIES.map(([name]) => [name, stats.quality[name]?.[metric]]));
  byId("chart-hint").textContent = `${METRICS[metric][1]}, of all items, measured before learning from it. Lines: the newest events; figures: all of them.`;
  byId("chart-note").textContent = describeScoring(stats);
  replace(
    byId("legend"),
    ...SERIES.map(([name, title]) =>
      el(
        "li",
        { class: name },
        svg("svg", { width: 26, height: 8, "aria-hidden": true }, svg("line", { class: `line ${name}`, x1: 1, y1: 4, x2: 25, y2: 4 })),
        el("span", {}, title),
        el("strong", { "data-testid": `quality-${name}`, "data-metric": metric }, percent(latest[name])),
      ),
    ),
  );
  draw();
}

function niceStep(span, n) {
  const rough = span / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((step) => step >= rough);
}

function ticks(low, high, n) {
  const step = niceStep(high - low || 1, n);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(at);
  return found;
}

// Labels at the lines' ends, pushed apart where the lines meet.
function spread(labels, gap) {
  labels.sort((a, b) => a.y - b.y);
  for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + gap);
  return labels;
}

function draw() {
  const holder = byId("chart");
  const width = Math.max(280, holder.clientWidth);
  if (rows.length < 2) {
    replace(holder, el("p", { class: "empty" }, "The lines start once enough events have been scored."));
    return;
  }
  const right = width - MARGIN.right;
  const bottom = HEIGHT - MARGIN.bottom;
  const first = rows[0][0];
  const last = rows[rows.length - 1][0];
  const top = Math.max(0.01, ...rows.flatMap((row) => row.slice(1, 4).filter((v) => v !== null))) * 1.08;
  const x = (n) => MARGIN.left + ((n - first) / (last - first || 1)) * (right - MARGIN.left);
  const y = (rate) => bottom - (rate / top) * (bottom - MARGIN.top);

  const parts = [svg("title", {}, describe())];
  for (const rate of ticks(0, top, 4)) {
    parts.push(
      svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(rate), y2: y(rate) }),
      svg("text", { class: "tick", x: MARGIN.left - 8, y: y(rate) + 4, "text-anchor": "end" }, `${+(100 * rate).toFixed(2)} %`),
    );
  }
  for (const n of ticks(first, last, width < 520 ? 4 : 6)) {
    parts.push(svg("text", { class: "tick", x: x(n), y: bottom + 18, "text-anchor": "middle" }, count(n)));
  }
  parts.push(
    svg("text", { class: "axis", x: (MARGIN.left + right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "events scored"),
    svg("text", { class: "axis", transform: `translate(12 ${(MARGIN.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, METRICS[metric][0]),
  );
  const ends = [];
  for (const [name] of [...SERIES].reverse()) {
    const points = rows.filter((row) => row[COLUMN[name]] !== null).map((row) => [x(row[0]), y(row[COLUMN[name]])]);
    if (!points.length) continue;
    const d = points.map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
    const [endX, endY] = points[points.length - 1];
    if (name === "reelflow") {
      parts.push(svg("path", { class: "area", d: `${d}L${endX.toFixed(1)} ${bottom}L${points[0][0].toFixed(1)} ${bottom}Z` }));
    }
    parts.push(svg("path", { class: `line ${name}`, d }), svg("circle", { class: `dot ${name}`, cx: endX, cy: endY, r: 3.5 }));
    ends.push({ name, x: endX, y: endY, rate: rows[rows.length - 1][COLUMN[name]] });
  }
  for (const end of spread(ends, 14)) {
    parts.push(svg("text", { class: `end ${end.name}`, x: end.x + 9, y: end.y + 4 }, percent(end.rate)));
  }
  if (hovered !== null) parts.push(...pointer(x, y, right, bottom));
  const image = svg("svg", { role: "img", "aria-label": describe(), viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT }, ...parts);
  replace(holder, image);
}

function pointer(x, y, right, bottom) {
  const row = rows.reduce((best, each) => (Math.abs(x(each[0]) - hovered) < Math.abs(x(best[0]) - hovered) ? each : best));
  const at = x(row[0]);
  const flip = at > right - 190;
  const left = flip ? at - 186 : at + 10;
  const lines = SERIES.map(([name, title], i) => svg("text", { class: `tip-text ${name}`, x: left + 10, y: MARGIN.top + 42 + 17 * i }, `${title}  ${percent(row[COLUMN[name]])}`));
  return [
    svg("line", { class: "pointer", x1: at, x2: at, y1: MARGIN.top, y2: bottom }),
    ...SERIES.filter(([name]) => row[COLUMN[name]] !== null).map(([name]) => svg("circle", { class: `dot ${name}`, cx: at, cy: y(row[COLUMN[name]]), r: 4 })),
    svg("rect", { class: "tip", x: left, y: MARGIN.top + 4, width: 176, height: 82, rx: 8 }),
    svg("text", { class: "tip-text", x: left + 10, y: MARGIN.top + 23 }, `after ${count(row[0])} events`),
    ...lines,
  ];
}

function describe() {
  const parts = SERIES.map(([name, title]) => `${title} ${percent(latest[name])}`);
  return `${METRICS[metric][0]} over events scored. Now: ${parts.join(", ")}.`;
}

function describeScoring(stats) {
  const parts = [];
  if (stats.n_scored) parts.push(`${count(stats.n_scored)} events scored, ${percent(stats.scored_share)} of what comes in`);
  if (stats.catalogue_coverage !== null && stats.catalogue_coverage !== undefined) parts.push(`${percent(stats.catalogue_coverage)} of the catalogue is in somebody's list`);
  return parts.join("; ");
}
