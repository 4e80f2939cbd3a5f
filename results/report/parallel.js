"use strict";
// Parallel coordinates: lines on a canvas, axes and brushes in SVG.
class Parallel {
  constructor(host) {
    this.host = host;
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.svg = svg("svg", { role: "group", "aria-label": "Parallel coordinates" });
    this.plot = el("div", { class: "plot" }, this.canvas, this.svg);
    host.replaceChildren(this.plot);
    this.axes = this.chosen().map((axis) => this.prepared(axis));
  }

  /** All objectives, and as many of the features as matter most, in their own order. */
  chosen() {
    const weight = {};
    for (const i of DATA.importance) for (const [name, share] of i.shares) weight[name] = Math.max(weight[name] || 0, share);
    const ranked = AXES.map((a, i) => i).filter((i) => AXES[i].objective === undefined)
      .sort((a, b) => (weight[AXES[b].title] || 0) - (weight[AXES[a].title] || 0)).slice(0, 10).sort((a, b) => a - b);
    return OBJECTIVES.map((_, j) => j).concat(ranked);
  }

  prepared(index) {
    const values = FINISHED.map((t) => AXES[index].get(t));
    const words = values.some((v) => typeof v === "string" || v === null || typeof v === "boolean");
    const distinct = [...new Set(values)];
    const sorted = distinct.filter((v) => v !== null).sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));
    if (distinct.includes(null)) sorted.unshift(null);
    const few = words && sorted.length <= 14;
    const objective = AXES[index].objective;
    const numbers = values.filter((v) => typeof v === "number");
    const log = objective !== undefined ? LOG[objective] : numbers.length > 8 && extent(numbers)[0] > 0 && extent(numbers)[1] > 8 * extent(numbers)[0];
    const steps = objective === undefined && sorted.length <= 7 && !words ? sorted : null;
    return { index, title: AXES[index].title, few, sorted, steps, log, range: extent(numbers) };
  }

  place(axis, value) {
    if (axis.few) return axis.at(axis.sorted.indexOf(value));
    return value === null || typeof value !== "number" ? this.height - 18 : axis.at(value);
  }

  draw() {
    const room = this.axes.map((axis) => (axis.few && axis.sorted.some((v) => String(v).length > 9) ? 1.7 : 1)); // words need more
    const before = room.map((_, i) => room.slice(0, i).reduce((a, b) => a + b, 0));
    this.width = Math.max(this.host.clientWidth - 2, this.axes.length * 84 + 60);
    this.height = 330;
    const ratio = devicePixelRatio || 1;
    this.plot.style.cssText = `width:${this.width}px;height:${this.height}px`;
    [this.canvas.width, this.canvas.height] = [this.width * ratio, this.height * ratio];
    this.canvas.style.cssText = `width:${this.width}px;height:${this.height}px`;
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("height", this.height);
    this.axes.forEach((axis, i) => {
      axis.x = 46 + (before[i] * (this.width - 120)) / Math.max(1, before[before.length - 1]);
      const [low, high] = axis.few ? [0, Math.max(1, axis.sorted.length - 1)] : axis.range;
      axis.at = scale(low, high, this.height - 34, 44, axis.log && !axis.few);
    });
    this.lines();
    this.svg.replaceChildren(...this.axes.map((axis, i) => this.axis(axis, i)));
  }

  lines() {
    const context = this.canvas.getContext("2d");
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const first = OBJECTIVES.length > 1 ? 1 : 0;
    const [low, high] = extent(FRONT.map((t) => t.v[first]));
    const f = LOG[first] ? Math.log : (v) => v;
    const faint = Math.max(0.05, Math.min(0.5, 40 / FINISHED.length));
    const on = selected();
    const stroke = (t, style, alpha, width) => {
      context.globalAlpha = alpha;
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      this.axes.forEach((axis, i) => {
        const [x, y] = [axis.x, this.place(axis, AXES[axis.index].get(t))];
        if (!i) return context.moveTo(x, y);
        const before = this.axes[i - 1];
        const middle = (before.x + x) / 2;
        context.bezierCurveTo(middle, this.place(before, AXES[before.index].get(t)), middle, y, x, y);
      });
      context.stroke();
    };
    const grey = css("--dot");
    for (const t of FINISHED) if (!t.f && passes(t)) stroke(t, grey, filtering() ? Math.min(0.6, faint * 4) : faint, 1);
    for (const t of FRONT) stroke(t, colour(high > low ? (f(t.v[first]) - f(low)) / (f(high) - f(low)) : 0.5), passes(t) ? 0.9 : 0.06, 2);
    if (on) stroke(on, css("--ring"), 1, 2.6);
  }

  axis(axis, i) {
    const [top, bottom] = [44, this.height - 34];
    const group = svg("g", {});
    group.append(svg("line", { x1: axis.x, x2: axis.x, y1: top, y2: bottom, class: "axis", style: "stroke:var(--faint)" }));
    const anchor = i === 0 ? "start" : i === this.axes.length - 1 ? "end" : "middle";
    const words = this.wrapped(axis.title);
    words.forEach((word, k) => group.append(svg("text", { x: axis.x + (i === 0 ? -40 : 0), y: 14 + 13 * k + (words.length === 1 ? 12 : 0), "text-anchor": anchor === "end" ? "middle" : anchor, class: "title" }, word)));
    const ticks = axis.few ? axis.sorted.map((v, k) => [k, v === null ? "none" : plain(v)]) : (axis.steps || axis.at.ticks(4)).map((v) => [v, num(v)]);
    for (const [v, text] of ticks) {
      const short = text.length > 22 ? `${text.slice(0, 21)}…` : text;
      const label = svg("text", { x: axis.x + 6, y: axis.at(v) + 4, class: "halo" }, short);
      if (short !== text) label.append(svg("title", {}, text));
      group.append(label);
    }
    const filter = state.filters[axis.index];
    if (filter && !filter.values) {
      const ys = [filter.low, filter.high].map((v) => Math.min(Math.max(axis.at(v), top), bottom)).sort((a, b) => a - b);
      group.append(svg("rect", { x: axis.x - 8, width: 16, y: ys[0], height: Math.max(3, ys[1] - ys[0]), class: "brush" }));
    } else if (filter) {
      for (const v of filter.values) group.append(svg("rect", { x: axis.x - 8, width: 16, y: this.place(axis, v) - 8, height: 16, class: "brush" }));
    }
    const handle = svg("rect", { x: axis.x - 18, y: top - 6, width: 36, height: bottom - top + 12, fill: "transparent", style: "cursor:ns-resize", "data-axis": axis.title });
    handle.addEventListener("pointerdown", (e) => this.begin(e, axis, handle));
    group.append(handle);
    return group;
  }

  wrapped(title) {
    if (title.length <= 11) return [title];
    const words = title.split(" ");
    const half = Math.ceil(words.length / 2);
    return [words.slice(0, half).join(" "), words.slice(half).join(" ")].filter(Boolean);
  }

  begin(e, axis, handle) {
    const y = (event) => event.clientY - this.plot.getBoundingClientRect().top;
    const start = y(e);
    const rubber = svg("rect", { class: "brush", x: axis.x - 8, width: 16 });
    handle.setPointerCapture(e.pointerId);
    handle.onpointermove = (event) => {
      rubber.setAttribute("y", Math.min(start, y(event)));
      rubber.setAttribute("height", Math.abs(y(event) - start));
      handle.before(rubber);
    };
    handle.onpointerup = (event) => {
      handle.onpointermove = handle.onpointerup = null;
      const [top, bottom] = [Math.min(start, y(event)), Math.max(start, y(event))];
      if (bottom - top < 4) return setFilter(axis.index, null); // a click on an axis frees it
      if (axis.few) {
        const values = axis.sorted.filter((v) => this.place(axis, v) >= top && this.place(axis, v) <= bottom);
        return setFilter(axis.index, values.length ? { values } : null);
      }
      setFilter(axis.index, { low: axis.at.invert(bottom), high: axis.at.invert(top) });
    };
  }
}
