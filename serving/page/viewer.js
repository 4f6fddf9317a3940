// One user: recent events beside the list, and what a like does to it.

import * as api from "./api.js";
import { byId, el, replace } from "./dom.js";
import { factsOf, hue, learn, lookUp, titleOf } from "./facts.js";
import { clearList, markLiked, repaint, showList } from "./list.js";
import { ago, clock, icons, verbs } from "./words.js";

const EVENTS_SHOWN = 20;
const STREAM_TIME_MS = 3_600_000;

let user = null;
let stream = null;
let current = null; // the list on the page, as served
let shownAt = 0;
let likes = new Map(); // event id -> { itemId, clickedAt, place }
let streamOffsetMs = 0;
let timeKnown = false;
let timeAsked = false;
let eventsAsked = 0;

export const currentUser = () => user;

export function chooseUser(id) {
  if (!id || id === user) return;
  user = id;
  stream?.close();
  current = null;
  likes = new Map();
  byId("user").value = id;
  byId("latency").hidden = true;
  say("Choose an item to like it and watch the list follow");
  replace(byId("receipt"));
  clearList("Looking for the list…");
  replace(byId("events"));
  history.replaceState(null, "", `#user=${encodeURIComponent(id)}`);
  api.recommendations(id).then(
    (list) => user === id && !current && accept(list),
    (error) => user === id && !current && clearList(`No list: ${error.message}`),
  );
  stream = api.followUser(id, { snapshot: (list) => user === id && accept(list) });
  refreshEvents();
}

function isOlder(list) {
  return current?.knows && list.knows && list.knows.partition === current.knows.partition && list.knows.offset < current.knows.offset;
}

function accept(list) {
  if (isOlder(list) || (current?.snapshot_id && current.snapshot_id === list.snapshot_id)) return;
  const fresh = current === null;
  const cold = current !== null && !current.knows;
  current = list;
  shownAt = performance.now() - (list.age_ms ?? 0);
  observeTime(list);
  const change = showList(list.items, like, { fresh });
  showReceipt();
  if (cold) say("This is the viewer's first list of their own");
  else if (!fresh) sayChange(change);
  settleLikes();
  byId("list").dataset.snapshotId = list.snapshot_id ?? "";
  refreshEvents();
  lookUp(named(list)).then((learned) => learned && current === list && repaint(list.items));
}

const named = (list) => [...new Set(list.items.flatMap((item) => [item.item_id, ...item.reasons.map((each) => each.item_id).filter(Boolean)]))];

// A replayed log has its own present. An event stamped with today would push the watermark of its
// user's partition past everything still to be replayed there; the other partitions go on.
function observeTime({ knows, generated_at_ms: wallMs }) {
  if (!knows) return;
  const offset = knows.ts_ms - wallMs;
  streamOffsetMs = Math.abs(offset) < STREAM_TIME_MS ? 0 : offset;
  timeKnown = true;
}

// A viewer without a list says nothing about the log's present; somebody active does.
export function learnTime(activeUser) {
  if (timeKnown || timeAsked) return;
  timeAsked = true;
  api.recommendations(activeUser).then(
    (list) => timeKnown || observeTime(list),
    () => {},
  ).finally(() => (timeAsked = false));
}

function like(itemId) {
  const event = {
    schema_version: 1,
    event_id: api.newId(),
    user_id: user,
    item_id: itemId,
    type: "like",
    ts_ms: Math.max(0, Math.round(Date.now() + streamOffsetMs)),
    ...(current?.snapshot_id && {
      snapshot_id: current.snapshot_id,
      position: current.items.findIndex((item) => item.item_id === itemId),
    }),
  };
  const sent = { itemId, clickedAt: performance.now(), place: null, forUser: user };
  likes.set(event.event_id, sent);
  markLiked(itemId, "sent");
  byId("latency").hidden = true;
  api.postEvent(event).then(
    ({ results: [stored] }) => {
      sent.place = stored;
      settleLikes();
    },
    (error) => {
      likes.delete(event.event_id);
      if (sent.forUser !== user) return;
      markLiked(itemId, "failed");
      say(`The like was not stored: ${error.message}`);
    },
  );
}

function settleLikes() {
  const knows = current?.knows;
  if (!knows) return;
  for (const [eventId, sent] of likes) {
    const { place } = sent;
    const known = knows.event_id === eventId || (place && place.partition === knows.partition && knows.offset >= place.offset);
    if (!known) continue;
    likes.delete(eventId);
    markLiked(sent.itemId, "known");
    const ms = Math.round(performance.now() - sent.clickedAt);
    const latency = byId("latency");
    latency.hidden = false;
    latency.dataset.ms = ms;
    latency.dataset.eventId = eventId;
    replace(latency, el("strong", {}, `${ms} ms`), el("span", {}, " from click to a list that knows your like"));
  }
}

function showReceipt() {
  const { knows, fallback, freshness, snapshot_id: snapshotId } = current;
  const badge = (text, kind) => el("span", { class: `badge ${kind}`, "data-testid": "badge" }, text);
  if (!knows) {
    replace(byId("receipt"), badge("No list of their own yet", "cold"), " popular with everyone now");
    return;
  }
  const badges = [];
  if (freshness === "stale") badges.push(badge("stale", "stale"));
  if (fallback !== "none") badges.push(badge(fallback === "cold_user" ? "new viewer" : "earlier model", "cold"));
  replace(
    byId("receipt"),
    ...badges,
    "knows event ",
    el("code", { "data-testid": "last-event-id", title: `${snapshotId}: partition ${knows.partition}, offset ${knows.offset}` }, knows.event_id),
    ", ",
    el("span", { id: "age", "data-testid": "age" }, ago(performance.now() - shownAt)),
  );
}

export function tickAge() {
  const age = byId("age");
  if (age && current) age.textContent = ago(performance.now() - shownAt);
}

function say(text) {
  byId("change").textContent = text;
}

function sayChange({ moved, arrived, gone }) {
  if (!moved.length && !arrived.length && !gone.length) {
    say("Refreshed, same order");
    return;
  }
  const out = gone.length ? ` · gone: ${gone.slice(0, 3).map(titleOf).join(", ")}${gone.length > 3 ? ` and ${gone.length - 3} more` : ""}` : "";
  say(`${arrived.length} new · ${moved.length} moved · ${gone.length} gone${out}`);
}

async function refreshEvents() {
  const id = user;
  const asked = ++eventsAsked;
  try {
    const { recent } = await api.userEvents(id);
    if (id === user && asked === eventsAsked) showEvents(recent);
  } catch (error) {
    if (id === user && asked === eventsAsked) {
      const text = error.status === 404 ? "No events of this viewer yet." : `Not known now: ${error.message}`;
      replace(byId("events"), el("li", { class: "empty" }, text));
    }
  }
}

function showEvents(recent) {
  for (const event of recent) learn(event.item_id, event.title, event.tags);
  replace(
    byId("events"),
    ...recent.slice(0, EVENTS_SHOWN).map((event) => {
      const cover = el("span", { class: "cover small", "aria-hidden": true }, icons[event.type] ?? "•");
      cover.style.setProperty("--hue", hue(event.item_id));
      return el(
        "li",
        { class: "event", "data-type": event.type, "data-item-id": event.item_id },
        cover,
        el(
          "span",
          { class: "about" },
          el("span", { class: "title" }, el("span", { class: "verb" }, `${verbs[event.type] ?? event.type} `), titleOf(event.item_id)),
          el("span", { class: "tags" }, ...factsOf(event.item_id).tags.slice(0, 3).map((tag) => el("span", { class: "tag" }, tag))),
        ),
        el("time", { datetime: new Date(event.ts_ms).toISOString() }, clock(event.ts_ms)),
      );
    }),
  );
}
