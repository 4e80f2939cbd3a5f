"use strict";
// The front in two dimensions at a time. Thousands of grey points are one canvas; the front is SVG, so that it can be
// focused, clicked and printed.
const PAIRS = [];
for (let a = 0; a < M; a++) for (let b = a + 1; b < M; b++) PAIRS.push([a, b]);
const LOG = OBJECTIVES.map((o, j) => isLog(FINISHED.map((t) => t.v[j]), o.up));
const FAR = 9; // pixels: how near to a point counts as on it

const worse = (j, a, b) => (OBJECTIVES[j].up ? a < b : a > b);

function domain(j, zoom) {
  const some = zoom === "front" ? FRONT.concat(STARTS) : FINISHED;
  let [low, high] = extent((some.length ? some : FINISHED).flatMap((t) => (zoom === "front" && !LOG[j] ? [t.v[j] - t.h[j], t.v[j] + t.h[j]] : [t.v[j]])));
  if (zoom === "front") { // room for what the front is compared with, on the worse side
    const room = LOG[j] ? Math.pow(high / low, 0.35) : (high - low) * 0.35;
    if (OBJECTIVES[j].up) low = LOG[j] ? low / room : low - room;
    else high = LOG[j] ? high * room : high + room;
  }
  const pad = LOG[j] ? Math.pow(high / low, 0.06) : (high - low) * 0.06;
  [low, high] = LOG[j] ? [low / pad, high * pad] : [low - pad, high + pad];
  if (!LOG[j] && low < 0 && extent(FINISHED.map((t) => t.v[j]))[0] >= 0) low = 0;
  if (OBJECTIVES[j].name === "accuracy") high = Math.min(high, 100.6);
  return [low, high];
}

/** Where the front takes less than a third of an axis, the panels start around it. */
function firstZoom() {
  return OBJECTIVES.some((_, j) => {
    const position = LOG[j] ? Math.log : (v) => v;
    const [a, b] = extent(FRONT.map((t) => position(t.v[j])));
    const [c, d] = extent(FINISHED.map((t) => position(t.v[j])));
    return FRONT.length > 1 && b - a < (d - c) / 3;
  }) ? "front" : "all";
}

/** The members that no other member beats in these two objectives, from left to right. */
function stairs(x, y) {
  const beaten = (t) => FRONT.some((u) => u !== t && !worse(x, u.v[x], t.v[x]) && !worse(y, u.v[y], t.v[y]) && (u.v[x] !== t.v[x] || u.v[y] !== t.v[y]));
  return FRONT.filter((t) => !beaten(t)).sort((s, t) => s.v[x] - t.v[x]);
}

class Panel {
  constructor(y, x) {
    [this.x, this.y] = [x, y];
    this.third = OBJECTIVES.findIndex((_, j) => j !== x && j !== y);
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.svg = svg("svg", { role: "group", "aria-label": `${OBJECTIVES[y].title} against ${OBJECTIVES[x].title}` });
    this.plot = el("div", { class: "plot" }, this.canvas, this.svg);
    const better = `better: ${OBJECTIVES[y].up ? "up" : "down"} and ${OBJECTIVES[x].up ? "right" : "left"}`;
    this.scale = el("div", { class: "scale" });
    this.node = el("div", { class: "card panel" }, el("h3", {}, `${OBJECTIVES[y].title} × ${OBJECTIVES[x].title}`, el("small", {}, better)), this.plot, this.scale);
    this.plot.addEventListener("pointerdown", (e) => this.begin(e));
    this.plot.addEventListener("pointermove", (e) => this.move(e));
    this.plot.addEventListener("pointerup", (e) => this.end(e));
    this.plot.addEventListener("pointercancel", () => { this.from = null; this.draw(); });
    this.plot.addEventListener("pointerleave", () => tip(null));
  }

  size() {
    const width = Math.max(240, this.node.clientWidth - 26);
    const height = Math.round(Math.min(width * 0.82, 360));
    const [low, high] = [domain(this.x, state.zoom), domain(this.y, state.zoom)];
    [this.width, this.height] = [width, height];
    this.sx = scale(low[0], low[1], 50, width - 10, LOG[this.x]);
    this.sy = scale(high[0], high[1], height - 40, 8, LOG[this.y]);
    this.plot.style.height = `${height}px`;
    const ratio = devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = [width * ratio, height * ratio];
    this.canvas.style.cssText = `width:${width}px;height:${height}px`;
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", height);
    this.tints = this.third < 0 ? null : extent(FRONT.map((t) => t.v[this.third]));
  }

  px(t) { return this.sx(t.v[this.x]); }
  py(t) { return this.sy(t.v[this.y]); }
  inside(t) { return this.px(t) >= 49 && this.px(t) <= this.width - 9 && this.py(t) >= 7 && this.py(t) <= this.height - 39; }

  tint(t) {
    if (!this.tints) return css("--accent");
    const f = LOG[this.third] ? Math.log : (v) => v;
    const [a, b] = this.tints.map(f);
    return colour(b > a ? (f(t.v[this.third]) - a) / (b - a) : 0.5);
  }

  draw() {
    this.size();
    this.background();
    const parts = [this.axes()];
    const steps = stairs(this.x, this.y);
    if (steps.length) {
      const path = steps.map((t, i) => {
        const [x, y] = [this.px(t), this.py(t)];
        if (!i) return `M${x} ${y}`;
        return OBJECTIVES[this.x].up ? `V${y}H${x}` : `H${x}V${y}`;
      }).join("");
      parts.push(svg("path", { d: path, class: "step" }));
    }
    const clip = svg("g", {});
    for (const t of FRONT) clip.append(...this.errors(t));
    parts.push(clip);
    for (const t of FRONT) parts.push(this.dot(t));
    const taken = STARTS.filter((t) => this.inside(t)).map((t) => [this.px(t) - 9, this.px(t) + 9, this.py(t) - 9, this.py(t) + 9]);
    for (const t of STARTS) if (this.inside(t)) parts.push(this.diamond(t, taken));
    const on = selected();
    if (on && this.inside(on)) parts.push(svg("circle", { cx: this.px(on), cy: this.py(on), r: 10, class: "ring" }));
    this.svg.replaceChildren(...parts);
    this.bar();
  }

  background() {
    const context = this.canvas.getContext("2d");
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const radius = FINISHED.length > 1500 ? 2 : 3;
    for (const pass of [false, true]) { // what is filtered out lies below
      context.globalAlpha = pass ? (FINISHED.length > 1500 ? 0.55 : 0.8) : 0.1;
      context.fillStyle = css("--dot");
      context.strokeStyle = css("--cross");
      for (const t of FINISHED) {
        if (t.f || passes(t) !== pass || !this.inside(t)) continue;
        const [x, y] = [this.px(t), this.py(t)];
        context.beginPath();
        if (t.b) {
          context.moveTo(x - 3, y - 3); context.lineTo(x + 3, y + 3); context.moveTo(x - 3, y + 3); context.lineTo(x + 3, y - 3);
          context.stroke();
        } else {
          context.arc(x, y, radius, 0, 7);
          context.fill();
        }
      }
    }
  }

  axes() {
    const group = svg("g", { "aria-hidden": "true" });
    const [ox, oy] = [OBJECTIVES[this.x], OBJECTIVES[this.y]];
    const bottom = this.height - 40;
    for (const v of this.sx.ticks(this.width / 80)) {
      group.append(svg("line", { x1: this.sx(v), x2: this.sx(v), y1: 8, y2: bottom, class: "grid" }), svg("text", { x: this.sx(v), y: bottom + 16, "text-anchor": "middle" }, num(v)));
    }
    for (const v of this.sy.ticks(5)) {
      group.append(svg("line", { x1: 50, x2: this.width - 10, y1: this.sy(v), y2: this.sy(v), class: "grid" }), svg("text", { x: 44, y: this.sy(v) + 4, "text-anchor": "end" }, num(v).replace(",", "")));
    }
    for (const bound of [ox.min, ox.max]) if (bound !== null && bound > this.sx.low && bound < this.sx.high) group.append(svg("line", { x1: this.sx(bound), x2: this.sx(bound), y1: 8, y2: bottom, class: "budget" }));
    for (const bound of [oy.min, oy.max]) if (bound !== null && bound > this.sy.low && bound < this.sy.high) group.append(svg("line", { x1: 50, x2: this.width - 10, y1: this.sy(bound), y2: this.sy(bound), class: "budget" }));
    const label = (o, j) => `${o.title}${o.unit ? ` [${o.unit}]` : ""}${LOG[j] ? ", log" : ""}`;
    group.append(svg("line", { x1: 50, x2: this.width - 10, y1: bottom, y2: bottom, class: "axis" }), svg("line", { x1: 50, x2: 50, y1: 8, y2: bottom, class: "axis" }));
    group.append(svg("text", { x: (this.width + 40) / 2, y: this.height - 6, "text-anchor": "middle", class: "title" }, label(ox, this.x)));
    group.append(svg("text", { transform: `translate(11 ${bottom / 2}) rotate(-90)`, "text-anchor": "middle", class: "title" }, label(oy, this.y)));
    return group;
  }

  errors(t) {
    const lines = [];
    const dim = passes(t) ? "error" : "error dim";
    const cut = (s, v) => s(Math.min(Math.max(v, s.low), s.high));
    const [x, y] = [this.px(t), this.py(t)];
    if (t.h[this.x]) lines.push(svg("line", { x1: cut(this.sx, t.v[this.x] - t.h[this.x]), x2: cut(this.sx, t.v[this.x] + t.h[this.x]), y1: y, y2: y, class: dim }));
    if (t.h[this.y]) lines.push(svg("line", { x1: x, x2: x, y1: cut(this.sy, t.v[this.y] - t.h[this.y]), y2: cut(this.sy, t.v[this.y] + t.h[this.y]), class: dim }));
    return lines;
  }

  dot(t) {
    const label = `trial ${t.n}, ${OBJECTIVES.map((o, j) => `${o.title} ${withUnit(num(t.v[j]), o.unit)}`).join(", ")}`;
    const node = svg("circle", { cx: this.px(t), cy: this.py(t), r: 6, fill: this.tint(t), class: `dot${t.f === 2 ? " tie" : ""}${passes(t) ? "" : " dim"}`, tabindex: 0, role: "button", "aria-label": label, "data-trial": t.n });
    node.addEventListener("keydown", (e) => (e.key === "Enter" || e.key === " ") && (e.preventDefault(), select(t)));
    return node;
  }

  diamond(t, taken) { // its name goes where it covers neither another name nor a mark, if there is such a place
    const [x, y] = [this.px(t), this.py(t)];
    const mark = svg("path", { d: `M${x} ${y - 9}L${x + 9} ${y}L${x} ${y + 9}L${x - 9} ${y}Z`, class: `start${passes(t) ? "" : " dim"}` });
    const wide = 6.6 * operators(t).length;
    const places = [4, -9, 17, -22, 30].flatMap((dy) => [-1, 1].map((side) => ({ side, at: y + dy, from: side > 0 ? x + 13 : x - 13 - wide })));
    const free = ({ from, at }) => from > 50 && from + wide < this.width && !taken.some(([l, r, top, low]) => l < from + wide && from < r && top < at + 3 && at - 9 < low);
    const { side, at, from } = places.find(free) ?? places[0];
    taken.push([from, from + wide, at - 9, at + 3]);
    const name = svg("text", { x: x + 13 * side, y: at, "text-anchor": side > 0 ? "start" : "end", class: "halo" }, operators(t));
    return svg("g", { "data-trial": t.n }, mark, name);
  }

  bar() {
    if (!this.tints || !FRONT.length) return;
    const o = OBJECTIVES[this.third];
    const stops = Array.from({ length: 9 }, (_, i) => colour(i / 8)).join(",");
    this.scale.replaceChildren(`${o.title}  ${num(this.tints[0])}`, el("i", { style: `background:linear-gradient(90deg,${stops})` }), withUnit(num(this.tints[1]), o.unit));
  }

  // --- pointer: a short press selects, a drag filters ---

  at(e) {
    const box = this.plot.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  }

  nearest(x, y) {
    let [best, distance] = [null, FAR * FAR];
    for (const t of FINISHED) {
      if (!passes(t) || !this.inside(t)) continue;
      const d = (this.px(t) - x) ** 2 + (this.py(t) - y) ** 2 - (t.f ? 25 : 0); // the front is in front
      if (d < distance) [best, distance] = [t, d];
    }
    return best;
  }

  begin(e) {
    if (e.button) return;
    this.from = this.at(e);
    this.plot.setPointerCapture(e.pointerId);
  }

  move(e) {
    const [x, y] = this.at(e);
    if (!this.from) {
      const t = e.pointerType === "mouse" ? this.nearest(x, y) : null;
      this.plot.style.cursor = t ? "pointer" : "crosshair";
      return tip(t && summary(t), e.clientX, e.clientY);
    }
    tip(null);
    if (Math.hypot(x - this.from[0], y - this.from[1]) < 5) return;
    this.rubber ??= svg("rect", { class: "brush" });
    const r = this.box(x, y);
    for (const key of ["x", "y", "width", "height"]) this.rubber.setAttribute(key, r[key]);
    if (!this.rubber.parentNode) this.svg.append(this.rubber);
  }

  box(x, y) {
    const [a, b] = [Math.min(Math.max(x, 50), this.width - 10), Math.min(Math.max(y, 8), this.height - 40)];
    return { x: Math.min(a, this.from[0]), y: Math.min(b, this.from[1]), width: Math.abs(a - this.from[0]), height: Math.abs(b - this.from[1]) };
  }

  end(e) {
    if (!this.from) return;
    const [x, y] = this.at(e);
    const r = this.box(x, y);
    const moved = Math.hypot(x - this.from[0], y - this.from[1]) >= 5;
    this.from = null;
    this.rubber = null;
    if (!moved) {
      const t = this.nearest(x, y);
      if (t) select(t);
      return;
    }
    const ends = (s, a, b) => [s.invert(a), s.invert(b)].sort((p, q) => p - q);
    const [xl, xh] = ends(this.sx, r.x, r.x + r.width);
    state.filters[this.x] = { low: xl, high: xh };
    if (r.height >= 12) { // a flat drag filters one axis only
      const [yl, yh] = ends(this.sy, r.y, r.y + r.height);
      state.filters[this.y] = { low: yl, high: yh };
    }
    changed("filter");
  }
}
