"use strict";
// Data, state and small helpers. Text reaches the page through textContent only, so no name can become markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const OBJECTIVES = DATA.objectives;
const M = OBJECTIVES.length;
const TRIALS = DATA.trials;
const FINISHED = TRIALS.filter((t) => t.v && t.v.every((v) => v !== null));
const FRONT = FINISHED.filter((t) => t.f);
const STARTS = FINISHED.filter((t) => t.o === "start");
const KEY = "lrf-report:" + DATA.folder;

// Axes that can be filtered: objectives first, then the features in which the trials differ.
const AXES = OBJECTIVES.map((o, j) => ({ title: o.title + (o.unit ? ` [${o.unit}]` : ""), objective: j, get: (t) => t.v[j] }))
  .concat(DATA.features.map((title, j) => ({ title, get: (t) => t.x[j] })));

const state = Object.assign({ selected: null, zoom: null, rows: "front", axis: 0, theme: null, sort: [0, null], filters: {} }, restored());

function restored() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) || {};
  } catch {
    return {}; // storage is off: the page works, it only forgets
  }
}

function remember() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    /* as above */
  }
}

const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") node.style.cssText = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

function svg(tag, props, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(props || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Three significant digits, thousands separated. */
function num(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size > 6 || size < -4) return value.toExponential(1).replace("e+", "e");
  return value.toLocaleString("en", { maximumFractionDigits: Math.max(0, 2 - size), minimumFractionDigits: 0 });
}

/** The decimals of three significant digits, zeros included, so that columns align. */
const decimals = (value) => Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value) || 1)));
const fixed = (value, digits = decimals(value)) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const withInterval = (t, j) => (t.h[j] ? `${fixed(t.v[j])} ± ${fixed(t.h[j], decimals(t.v[j]))}` : fixed(t.v[j]));

const withUnit = (text, unit) => (unit ? `${text} ${unit}` : text);

/** Colour at 0..1, dark for small; viridis without its palest end, so that it reads on white and on black. */
function colour(x) {
  const stops = [[68, 30, 110], [59, 82, 160], [38, 130, 142], [60, 175, 110], [170, 200, 40], [235, 190, 30]];
  const at = Math.min(Math.max(x, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const lift = document.documentElement.dataset.theme === "dark" ? 40 : 0;
  const mix = stops[i].map((c, k) => Math.min(255, Math.round(c + (stops[i + 1][k] - c) * (at - i) + lift)));
  return `rgb(${mix.join(" ")})`;
}

const extent = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);

/** A scale from values to pixels with its ticks. */
function scale(low, high, from, to, log) {
  if (low === high) [low, high] = log ? [low / 1.2, high * 1.2] : [low - (Math.abs(low) * 0.05 || 1), high + (Math.abs(high) * 0.05 || 1)];
  const f = log ? Math.log : (x) => x;
  const g = log ? Math.exp : (x) => x;
  const a = f(low);
  const b = f(high);
  const map = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  map.invert = (p) => g(a + ((p - from) / (to - from)) * (b - a));
  map.ticks = (count) => (log ? logTicks(low, high, count) : linearTicks(low, high, count));
  map.low = low;
  map.high = high;
  return map;
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= rough);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) ticks.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return ticks;
}

function logTicks(low, high, count) {
  for (const steps of [[1, 2, 3, 5], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) {
      for (const s of steps) if (s * 10 ** p >= low * 0.999 && s * 10 ** p <= high * 1.001) ticks.push(s * 10 ** p);
    }
    if (ticks.length <= count + 1) return ticks.length > 1 ? ticks : linearTicks(low, high, count);
  }
  return linearTicks(low, high, count);
}

/** A cost that spans more than a factor of five is drawn on a logarithmic axis. */
const isLog = (values, up) => !up && values.length > 1 && extent(values)[0] > 0 && extent(values)[1] > 5 * extent(values)[0];

// --- filters and selection: every view listens to both ---

const listeners = [];
const onChange = (listener) => listeners.push(listener);
const changed = (what) => {
  remember();
  for (const listener of listeners) listener(what);
};

function passes(t) {
  for (const [name, filter] of Object.entries(state.filters)) {
    const value = AXES[name].get(t);
    if (filter.values ? !filter.values.includes(value ?? null) : value === null || value < filter.low || value > filter.high) return false;
  }
  return true;
}

const filtering = () => Object.keys(state.filters).length > 0;

function setFilter(axis, filter) {
  if (filter) state.filters[axis] = filter;
  else delete state.filters[axis];
  changed("filter");
}

function select(t) {
  state.selected = t ? t.n : null;
  changed("select");
}

const selected = () => FINISHED.find((t) => t.n === state.selected);

/** The whole configuration of a trial, put together from what is shared and what is its own. */
function configuration(t) {
  const model = { ...DATA.shared.model, ...t.c.model };
  const lists = {};
  for (const [key, value] of Object.entries(model)) {
    if (value && value.blocks) {
      lists[key] = value.blocks.map((i) => DATA.shared.blocks[i]);
      delete model[key];
    }
  }
  return { model, lists, training: { ...DATA.shared.training, ...t.c.training } };
}

const plain = (value) => (value === null ? "none" : Array.isArray(value) ? value.join("×") || "none" : typeof value === "object"
  ? Object.entries(value).map(([k, v]) => (k === "kind" ? plain(v) : `${k} ${plain(v)}`)).join(", ")
  : typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value));

function pairs(entries) {
  return el("div", { class: "pairs" }, ...entries.flatMap(([key, value]) => [el("span", {}, key.replaceAll("_", " ")), el("span", {}, value)]));
}

function bar(label, share, text, rest) {
  return el("div", { class: "hbar" }, el("span", {}, label), el("span", { class: "track" }, el("i", { class: rest ? "rest" : "", style: `width:${Math.min(Math.max(share, 0), 1) * 100}%` })), el("span", {}, text));
}

function tip(node, x, y) {
  const box = $("tip");
  box.replaceChildren(...(node ? [node] : []));
  box.hidden = !node;
  if (!node) return;
  const width = box.offsetWidth;
  const height = box.offsetHeight;
  box.style.left = `${Math.max(8, x + 16 + width > innerWidth ? x - width - 16 : x + 16)}px`;
  box.style.top = `${Math.min(Math.max(8, y - height / 2), Math.max(8, innerHeight - height - 8))}px`;
}

/** The operators of a trial, as a baseline is called. */
function operators(t) {
  const kinds = new Set(Object.values(configuration(t).lists).flat().map((block) => DATA.operators[block.kind] || block.kind));
  return [...kinds].join(" + ");
}

/** What hovering shows: the values, then everything in which this trial differs from the others. */
function summary(t) {
  const own = [];
  t.x.forEach((value, j) => value !== null && value !== 0 && own.push([DATA.features[j], plain(value)]));
  return el("div", {}, el("b", {}, t.d), el("div", { class: "note" }, `trial ${t.n} · ${t.i}${t.o === "start" ? " · starting point" : ""}${t.b ? " · breaks a budget" : ""}`),
    pairs(OBJECTIVES.map((o, j) => [o.title, withUnit(withInterval(t, j), o.unit)])), el("hr", { style: "border:0;border-top:1px solid var(--line);margin:6px 0" }), pairs(own));
}
