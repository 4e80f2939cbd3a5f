"use strict";
// How the search went: hypervolume, endings, what the front shares, what matters.
const COLOURS = { complete: "--accent", stopped: "--dot", rejected: "--warn", infeasible: "--cross", failed: "--ink", duplicate: "--good", running: "--faint", waiting: "--line" };
const SPENT = ["trials", "training epochs", "wall time [s]"];

function drawProgress() {
  const host = $("progress");
  const steps = DATA.progress;
  if (steps.length < 2) return host.replaceChildren(el("p", { class: "note" }, "One feasible trial so far: nothing to draw yet."));
  const [width, height] = [Math.max(260, host.clientWidth), 230];
  const k = state.axis;
  const sx = scale(0, steps[steps.length - 1][k] || 1, 46, width - 12, false);
  const sy = scale(0, Math.max(...steps.map((s) => s[3])) * 1.06 || 1, height - 36, 8, false);
  const root = svg("svg", { width, height, role: "img", "aria-label": `Hypervolume over ${SPENT[k]}` });
  for (const v of sx.ticks(width / 90)) root.append(svg("text", { x: sx(v), y: height - 20, "text-anchor": "middle" }, num(v)));
  for (const v of sy.ticks(4)) root.append(svg("line", { x1: 46, x2: width - 12, y1: sy(v), y2: sy(v), class: "grid" }), svg("text", { x: 40, y: sy(v) + 4, "text-anchor": "end" }, num(v)));
  const path = `M${sx(0)} ${sy(0)}` + steps.map((s) => `H${sx(s[k])}V${sy(s[3])}`).join("");
  root.append(svg("path", { d: `${path}V${sy(0)}Z`, class: "area" }), svg("path", { d: path, class: "curve" }), svg("text", { x: (width + 34) / 2, y: height - 3, "text-anchor": "middle", class: "title" }, SPENT[k]));
  const note = "Share of the box between the worst and the best value of each objective among feasible trials (10 % beyond the worst) that the front dominates.";
  host.replaceChildren(root, el("p", { class: "note" }, note));
}

function drawEndings() {
  const total = TRIALS.length;
  const counts = Object.entries(DATA.counts);
  const stack = el("div", { class: "stack", "aria-hidden": "true" }, ...counts.map(([s, n]) => el("i", { style: `flex:${n};background:var(${COLOURS[s]})`, title: `${n} ${s}` })));
  const keys = el("div", { class: "keys" }, ...counts.map(([s, n]) => el("span", {}, el("i", { style: `background:var(${COLOURS[s]})` }), `${n.toLocaleString("en")} ${s}`)));
  const reasons = DATA.endings.map((e) => el("li", { title: `trials ${e.trials.join(", ")}${e.count > e.trials.length ? ", …" : ""}` }, el("b", {}, e.count.toLocaleString("en")), el("strong", {}, e.status), el("span", {}, e.example)));
  const shown = reasons.slice(0, 8);
  const rest = reasons.slice(8);
  $("endings").replaceChildren(stack, keys, el("ul", { class: "reasons" }, ...shown),
    ...(rest.length ? [el("details", {}, el("summary", { class: "note" }, `${rest.length} more reasons`), el("ul", { class: "reasons" }, ...rest))] : []),
    el("p", { class: "note" }, `${total.toLocaleString("en")} trials. Reasons that differ in their numbers only are one line, with an example.`));
}

function drawCommons() {
  const rows = DATA.commons.map((c) => el("div", { class: "common" },
    el("p", {}, el("b", {}, c.text), el("span", {}, `${c.front} of ${c.front_of}, against ${num((100 * c.rest) / c.rest_of)} % of the rest`)),
    el("div", { class: "track" }, el("i", { style: `width:${(100 * c.front) / c.front_of}%` })),
    el("div", { class: "track" }, el("i", { class: "rest", style: `width:${(100 * c.rest) / c.rest_of}%` }))));
  const note = rows.length ? `Blue: the front; grey: the other finished trials.${FRONT.length < 10 ? " With so few members this is a hint, not a finding." : ""}` : "Nothing that at least half of the front chose is much rarer elsewhere.";
  $("commons").replaceChildren(...rows, el("p", { class: "note" }, note));
}

function drawImportance() {
  if (!DATA.importance.length) return $("importance").replaceChildren(el("p", { class: "note" }, "Too few finished trials to say (20 are needed)."));
  const parts = DATA.importance.flatMap((i) => {
    const objective = OBJECTIVES.find((o) => o.name === i.objective);
    const sum = i.shares.reduce((s, [, share]) => s + Math.max(share, 0), 0) || 1;
    const explained = `the model explains ${Math.round(Math.max(i.explained, 0) * 100)} % of held-out trials' variance`;
    const bars = i.shares.slice(0, 5).filter(([, share]) => share > 0.01).map(([name, share]) => bar(name, share / sum, `${Math.round((share / sum) * 100)} %`));
    return [el("h4", {}, `${objective.title} `, el("span", {}, explained)), ...(i.explained > 0.05 ? bars : [el("p", { class: "note" }, "Too little to rank choices by.")])];
  });
  $("importance").replaceChildren(el("div", { class: "importances" }, ...parts), el("p", { class: "note" }, "Permutation importance by a random forest. What a sampler stopped exploring counts little here."));
}
