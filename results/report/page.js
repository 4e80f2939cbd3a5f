"use strict";
// Puts the page together and keeps it in step with the state.
const panels = PAIRS.map(([y, x]) => new Panel(y, x));
$("panels").append(...panels.map((panel) => panel.node));
const parallel = new Parallel($("parallel"));

function drawTiles() {
  const best = (j) => FRONT.reduce((a, t) => (worse(j, a, t.v[j]) ? t.v[j] : a), FRONT[0].v[j]);
  const last = DATA.progress[DATA.progress.length - 1];
  const tiles = [[`${FRONT.length}`, "on the front"], [(DATA.counts.complete || 0).toLocaleString("en"), `of ${TRIALS.length.toLocaleString("en")} trials trained in full`]];
  if (FRONT.length) OBJECTIVES.forEach((o, j) => tiles.push([withUnit(num(best(j)), o.unit), `${o.up ? "highest" : "lowest"} ${o.title}`]));
  if (last) tiles.push([last[3].toFixed(3), "hypervolume"], [duration(last[2]), `${last[1].toLocaleString("en")} epochs`]);
  $("tiles").replaceChildren(...tiles.map(([value, name]) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, name))));
}

const duration = (s) => (s < 90 ? `${num(s)} s` : s < 5400 ? `${num(s / 60)} min` : `${num(s / 3600)} h`);

function drawLegend() {
  const mark = (shape) => svg("svg", { width: 18, height: 14, "aria-hidden": "true" }, shape);
  const items = [
    [mark(svg("circle", { cx: 9, cy: 7, r: 5, fill: colour(0.4), class: "dot" })), "on the front; bars are 95 % intervals"],
    [mark(svg("path", { d: "M1 12V6H10V2H17", class: "step" })), "front of these two objectives alone"],
    [mark(svg("circle", { cx: 9, cy: 7, r: 3, style: "fill:var(--dot)" })), "dominated"],
  ];
  if (FRONT.some((t) => t.f === 2)) items.splice(1, 0, [mark(svg("circle", { cx: 9, cy: 7, r: 5, fill: colour(0.4), class: "tie" })), "tie: beaten by less than the noise"]);
  if (FINISHED.some((t) => t.b)) items.push([mark(svg("path", { d: "M5 3L13 11M5 11L13 3", style: "stroke:var(--cross)" })), "breaks a budget"]);
  if (STARTS.length) items.push([mark(svg("path", { d: "M9 1L15 7L9 13L3 7Z", class: "start" })), "starting point or baseline"]);
  const stopped = TRIALS.length - FINISHED.length;
  const out = panels.length ? FINISHED.filter((t) => panels.some((p) => !p.inside(t))).length : 0;
  const note = [stopped ? `${stopped.toLocaleString("en")} unfinished trials are not drawn` : "", out ? `${out.toLocaleString("en")} lie outside a panel` : ""].filter(Boolean).join("; ");
  $("legend").replaceChildren(...items.map(([icon, text]) => el("span", {}, icon, text)), el("span", {}, note));
}

function drawChips() {
  const chips = Object.entries(state.filters).map(([axis, f]) => {
    const text = f.values ? f.values.map((v) => (v === null ? "none" : plain(v))).join(", ") : `${num(f.low)} – ${num(f.high)}`;
    return el("button", { class: "chip", type: "button", onclick: () => setFilter(axis, null), "aria-label": `Remove the filter on ${AXES[axis].title}` }, `${AXES[axis].title}: ${text} ×`);
  });
  $("chips").replaceChildren(...chips);
  $("clear").hidden = !filtering();
}

function drawHead() {
  $("name").textContent = DATA.name;
  const goals = OBJECTIVES.map((o) => `${o.title} ${o.up ? "up" : "down"}`).join(", ");
  const live = (DATA.counts.running || 0) + (DATA.counts.waiting || 0);
  $("summary").textContent = `${DATA.provenance["data set"]} · ${goals}${live ? ` · still running: ${live} trials open` : ""}`;
  const rows = Object.entries(DATA.provenance).flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, key === "command" ? el("code", {}, value) : value)]);
  $("provenance").replaceChildren(...rows);
}

function press(attribute, value) {
  for (const button of document.querySelectorAll(`button[data-${attribute}]`)) button.setAttribute("aria-pressed", button.dataset[attribute] === String(value));
}

function drawAll() {
  press("zoom", state.zoom);
  press("rows", state.rows);
  press("axis", state.axis);
  drawChips();
  panels.forEach((panel) => panel.draw());
  drawLegend();
  drawTable();
  drawDetail();
  requestAnimationFrame(() => { parallel.draw(); drawProgress(); });
}

function setTheme(theme) {
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "☀ Light" : "☾ Dark";
}

onChange((what) => {
  if (what === "filter") { drawChips(); panels.forEach((p) => p.draw()); drawLegend(); drawTable(); requestAnimationFrame(() => parallel.draw()); }
  else if (what === "select") { panels.forEach((p) => p.draw()); drawTable(); drawDetail(); requestAnimationFrame(() => parallel.draw()); }
  else if (what === "sort") drawTable();
  else drawAll();
});

for (const name of ["zoom", "rows", "axis"]) {
  for (const button of document.querySelectorAll(`button[data-${name}]`)) {
    button.addEventListener("click", () => { state[name] = name === "axis" ? Number(button.dataset[name]) : button.dataset[name]; changed(name); });
  }
}
$("clear").addEventListener("click", () => { state.filters = {}; changed("filter"); });
$("theme").addEventListener("click", () => {
  state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setTheme(state.theme);
  changed("theme");
});
addEventListener("keydown", (e) => e.key === "Escape" && (state.filters = {}, changed("filter")));

// The width of the page is not that of the window: a scroll bar or an emulated screen changes one without the other.
let [resizing, width] = [0, $("panels").clientWidth];
new ResizeObserver(([entry]) => {
  if (Math.abs(entry.contentRect.width - width) < 1) return;
  width = entry.contentRect.width;
  clearTimeout(resizing);
  resizing = setTimeout(drawAll, 60);
}).observe($("panels"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { setTheme(state.theme); drawAll(); });
if (DATA.refresh) setTimeout(() => location.reload(), DATA.refresh * 1000);

setTheme(state.theme);
state.zoom ??= firstZoom();
if (!selected()) state.selected = (FRONT.find((t) => (t.p || []).includes("knee")) || FRONT[0] || FINISHED[0]).n;
for (const axis of Object.keys(state.filters)) if (!AXES[axis]) delete state.filters[axis]; // a longer run may have other axes
drawHead();
drawTiles();
drawCommons();
drawImportance();
drawEndings();
drawAll();
