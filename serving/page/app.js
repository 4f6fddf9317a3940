// The page: statistics once a second, one viewer at a time.

import * as api from "./api.js";
import { makeChart, showChart } from "./chart.js";
import { byId, el, replace } from "./dom.js";
import { makeTiles, showStatus, showTiles } from "./tiles.js";
import { chooseUser, currentUser, learnTime, tickAge } from "./viewer.js";

const CHIPS = 8;
const CHIPS_EVERY_MS = 5000;
let chipsAt = -Infinity;

function showUsers(active) {
  if (active.length) {
    learnTime(active[0]);
    if (!currentUser()) chooseUser(active[0]);
  }
  // Names that jump about every second cannot be clicked.
  if (performance.now() - chipsAt < CHIPS_EVERY_MS) return;
  chipsAt = performance.now();
  replace(byId("users"), ...active.map((id) => el("option", { value: id })));
  replace(
    byId("chips"),
    ...active.slice(0, CHIPS).map((id) => el("li", {}, el("button", { type: "button", "data-testid": "active-user", "data-user": id, onclick: () => chooseUser(id) }, id))),
  );
}

function markChosen() {
  for (const chip of byId("chips").querySelectorAll("button")) {
    chip.setAttribute("aria-pressed", String(chip.dataset.user === currentUser()));
  }
}

function fromAddress() {
  const id = new URLSearchParams(location.hash.slice(1)).get("user");
  if (id) chooseUser(id);
}

makeTiles();
makeChart();
byId("picker").addEventListener("submit", (event) => {
  event.preventDefault();
  chooseUser(byId("user").value.trim());
});
addEventListener("hashchange", fromAddress);
fromAddress();
api.followStats({
  stats: (stats) => {
    showTiles(stats);
    showChart(stats);
    showUsers(stats.active_users);
  },
  unavailable: ({ error }) => showStatus("away", "Worker away", error),
  lost: () => showStatus("away", "Gateway away"),
});
setInterval(() => {
  tickAge();
  markChosen();
}, 100);
api.version().then(({ name, version }) => replace(byId("version"), `${name} ${version}`), () => {});
