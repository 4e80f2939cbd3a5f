"use strict";
// The table of the front, or of all finished trials.
const LIMIT = 200; // rows at a time: more is not read, and slow

const COLUMNS = [
  ...OBJECTIVES.map((o, j) => ({ title: withUnit(o.title, o.unit && `[${o.unit}]`), num: true, key: (t) => t.v[j], show: (t) => withInterval(t, j), up: o.up })),
  ...(TRIALS.some((t) => t.t !== undefined) ? [{ title: "test [%]", num: true, key: (t) => t.t ?? -1, show: (t) => (t.t === undefined ? "–" : fixed(t.t)), up: true }] : []),
  { title: "network", key: (t) => t.d, show: (t) => t.d, wide: true },
  { title: "id", key: (t) => t.i, show: (t) => el("code", {}, t.i) },
];

function sorted(rows) {
  const [index, direction] = state.sort;
  const column = COLUMNS[index] || COLUMNS[0];
  const sign = direction ?? (column.up ? -1 : 1);
  return [...rows].sort((a, b) => (column.key(a) < column.key(b) ? -sign : column.key(a) > column.key(b) ? sign : a.n - b.n));
}

function drawTable() {
  const rows = sorted((state.rows === "front" ? FRONT : FINISHED).filter(passes));
  const head = COLUMNS.map((column, i) => {
    const on = state.sort[0] === i;
    const sign = on ? state.sort[1] ?? (column.up ? -1 : 1) : 0;
    return el("th", { class: column.num ? "num" : "", tabindex: 0, "aria-sort": on ? (sign > 0 ? "ascending" : "descending") : null, onclick: () => sortBy(i), onkeydown: (e) => e.key === "Enter" && sortBy(i) }, column.title);
  });
  const table = $("table");
  table.tHead.replaceChildren(el("tr", {}, ...head));
  table.tBodies[0].replaceChildren(...rows.slice(0, LIMIT).map(row));
  $("list-title").textContent = state.rows === "front" ? `${rows.length} on the front` : `${rows.length.toLocaleString("en")} finished`;
  const ties = rows.filter((t) => t.f === 2).length;
  $("more").textContent = [
    rows.length > LIMIT ? `The first ${LIMIT} of ${rows.length}; filter or sort to see others.` : "",
    ties && state.rows === "front" ? `${ties} are here because they tie with a better one.` : "",
    OBJECTIVES.some((_, j) => FRONT.some((t) => t.h[j])) ? `${DATA.interval}.` : "",
  ].filter(Boolean).join(" ");
}

function sortBy(i) {
  const column = COLUMNS[i];
  const first = column.up ? -1 : 1;
  state.sort = state.sort[0] === i ? [i, -(state.sort[1] ?? first)] : [i, first];
  changed("sort");
}

function row(t) {
  const cells = COLUMNS.map((column) => {
    const cell = el("td", { class: column.num ? "num" : column.wide ? "wide" : "", "data-title": column.title }, column.show(t));
    if (column.wide) {
      const tags = (t.p || []).map((p) => el("span", { class: "tag" }, p));
      if (t.f === 2) tags.push(el("span", { class: "tag plain" }, "tie"));
      if (t.o === "start") tags.push(el("span", { class: "tag plain" }, "start"));
      if (t.b) tags.push(el("span", { class: "tag plain" }, "over a budget"));
      if (tags.length) cell.append(el("div", {}, ...tags));
    }
    return cell;
  });
  return el("tr", { class: t.n === state.selected ? "on" : "", tabindex: 0, "data-trial": t.n, onclick: () => select(t), onkeydown: (e) => e.key === "Enter" && select(t) }, ...cells);
}
