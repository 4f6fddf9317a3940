// The recommendation list: rows keyed by item, so that what moved can be seen moving.

import { byId, el, replace } from "./dom.js";
import { factsOf, hue, titleOf } from "./facts.js";
import { reason, sources } from "./words.js";

const rows = new Map(); // item id -> row
let order = [];
const still = matchMedia("(prefers-reduced-motion: reduce)");

function makeRow(id, onLike) {
  const row = {
    id,
    rank: el("span", { class: "rank" }),
    delta: el("span", { class: "delta" }),
    cover: el("span", { class: "cover", "aria-hidden": true }),
    title: el("span", { class: "title" }),
    tags: el("span", { class: "tags" }),
    why: el("span", { class: "why", "data-testid": "reason" }),
    source: el("span", { class: "source", "data-testid": "source" }),
    bar: el("span", { class: "bar-fill" }),
    score: el("span", { class: "score" }),
    heart: el("span", { class: "heart", "aria-hidden": true }, "♥"),
  };
  row.cover.style.setProperty("--hue", hue(id));
  row.button = el(
    "button",
    { type: "button", class: "row", "data-testid": "item", "data-item-id": id, onclick: () => onLike(id) },
    el("span", { class: "place" }, row.rank, row.delta),
    row.cover,
    el("span", { class: "about" }, row.title, row.tags, row.why),
    el("span", { class: "measure" }, row.source, el("span", { class: "bar" }, row.bar), row.score),
    row.heart,
  );
  row.node = el("li", {}, row.button);
  return row;
}

function paint(row, item, rank) {
  const { tags } = factsOf(item.item_id);
  row.rank.textContent = rank;
  row.title.textContent = titleOf(item.item_id);
  row.title.title = item.item_id;
  replace(row.tags, ...tags.slice(0, 3).map((tag) => el("span", { class: "tag" }, tag)));
  row.why.textContent = item.reasons.map((each) => reason(each, titleOf)).join(", ");
  row.source.textContent = sources[item.source] ?? item.source;
  row.source.dataset.source = item.source;
  row.bar.style.width = `${(100 * Math.max(0, Math.min(1, item.score))).toFixed(1)}%`;
  row.score.textContent = item.score.toFixed(item.score < 0.1 ? 3 : 2);
  row.button.setAttribute("aria-label", `Like ${titleOf(item.item_id)}, number ${rank}, ${row.why.textContent}`);
}

// Puts `items` on the page; returns what changed against the list before.
export function showList(items, onLike, { fresh = false } = {}) {
  const holder = byId("list");
  const before = new Map(order.map((id, i) => [id, i]));
  const places = new Map(order.map((id) => [id, rows.get(id).node.getBoundingClientRect().top]));
  const now = items.map((item) => item.item_id);
  const wanted = new Set(now);
  const change = { moved: [], arrived: [], gone: order.filter((id) => !wanted.has(id)) };

  for (const id of change.gone) rows.delete(id);
  items.forEach((item, i) => {
    const id = item.item_id;
    if (!rows.has(id)) rows.set(id, makeRow(id, onLike));
    const row = rows.get(id);
    paint(row, item, i + 1);
    const was = before.get(id);
    row.node.className = "";
    row.delta.textContent = "";
    if (fresh) return;
    if (was === undefined) {
      change.arrived.push(id);
      row.node.className = "arrived";
      row.delta.textContent = "new";
    } else if (was !== i) {
      change.moved.push(id);
      row.node.className = was > i ? "up" : "down";
      row.delta.textContent = was > i ? `▲${was - i}` : `▼${i - was}`;
    }
  });
  order = now;
  // Rows that stay keep their element and the focus; only what is out of place is moved.
  [...holder.children].forEach((child) => wanted.has(child.firstChild?.dataset?.itemId) || child.remove());
  now.forEach((id, i) => {
    const { node } = rows.get(id);
    if (holder.children[i] !== node) holder.insertBefore(node, holder.children[i] ?? null);
  });
  if (!fresh && !still.matches) slide(places);
  if (!now.length) replace(holder, el("li", { class: "empty" }, "Nothing to recommend yet."));
  return change;
}

function slide(places) {
  for (const [id, top] of places) {
    const node = rows.get(id)?.node;
    const distance = node ? top - node.getBoundingClientRect().top : 0;
    if (distance) node.animate([{ transform: `translateY(${distance}px)` }, { transform: "none" }], { duration: 280, easing: "ease-out" });
  }
}

export function markLiked(id, state) {
  const row = rows.get(id);
  if (row) row.button.dataset.liked = state;
}

export function repaint(items) {
  items.forEach((item, i) => rows.has(item.item_id) && paint(rows.get(item.item_id), item, i + 1));
}

export function clearList(text) {
  rows.clear();
  order = [];
  replace(byId("list"), el("li", { class: "empty" }, text));
}
