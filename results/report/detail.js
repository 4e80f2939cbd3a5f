"use strict";
// One configuration: what it is, block by block, what it costs, and the command that exports it.
const STAGES = { stage1: "Stage 1", stage2: "Stage 2", blocks: "Block" };

function drawDetail() {
  const t = selected();
  const host = $("detail");
  if (!t) return host.replaceChildren(el("p", { class: "note" }, "Click a point or a row to see a configuration."));
  const { model, lists, training } = configuration(t);
  const tags = [...(t.p || []), ...(t.o === "start" ? ["start"] : []), ...(t.f ? [] : [t.b ? "over a budget" : "dominated"])];
  host.replaceChildren(
    el("h3", {}, t.d),
    el("p", { class: "note" }, `trial ${t.n} · `, el("code", {}, t.i), ` · ${t.e} epochs in ${num(t.w)} s`),
    el("div", {}, ...tags.map((tag) => el("span", { class: "tag" }, tag))),
    el("div", { class: "facts" }, ...facts(t)),
    el("h4", {}, "Export it"), command(`lrf-search export ${DATA.folder} --pick ${t.i}`),
    el("h4", {}, "Architecture"), architecture(model, lists),
    ...costs(t),
    folded("Network", model), folded("Training", training),
  );
}

function folded(title, values) {
  const entries = Object.entries(values).filter(([k]) => k !== "backbone").map(([k, v]) => [k, plain(v)]);
  return el("details", {}, el("summary", {}, `${title}: all ${entries.length} fields`), pairs(entries));
}

function facts(t) {
  const found = OBJECTIVES.map((o, j) => [withUnit(fixed(t.v[j]), o.unit), t.h[j] ? `${o.title} ± ${fixed(t.h[j], decimals(t.v[j]))}` : o.title]);
  if (t.t !== undefined) found.push([`${fixed(t.t)} %`, "test accuracy"]);
  return found.map(([value, name]) => el("div", {}, el("b", {}, value), el("span", {}, name)));
}

function command(text) {
  const button = el("button", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // no clipboard for local files in some browsers
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  } }, "Copy");
  const code = el("code", {}, text);
  return el("div", { class: "command" }, code, button);
}

function architecture(model, lists) {
  const family = DATA.backbones[model.backbone] || model.backbone;
  const rows = [part("Input", `${plain(model.img_size)}, ${model.in_chans} channel${model.in_chans > 1 ? "s" : ""}, ${model.timesteps} time step${model.timesteps > 1 ? "s" : ""}`), part("Stem", `${family}, ${plain(model.neuron)}`)];
  for (const [name, blocks] of Object.entries(lists)) {
    blocks.forEach((block, i) => rows.push(part(`${STAGES[name] || name} ${i + 1}`, operator(block), block.kind, DATA.operators[block.kind])));
  }
  rows.push(part("Head", `mean over tokens, linear, ${model.num_classes} classes`));
  return el("div", { class: "blocks" }, ...rows);
}

function part(name, text, kind, title) {
  return el("div", { class: `block ${kind || ""}` }, el("b", {}, name), el("div", {}, title ? el("b", {}, `${title} `) : null, el("span", {}, text)));
}

function operator(block) {
  const words = [];
  if (block.kind === "lrf_dyn") {
    words.push(`${block.dendrites} dendrite${block.dendrites > 1 ? "s" : ""} per ${block.sharing}`);
    words.push(`τ ${plain(block.tau_min)}–${block.tau_max === null ? "tokens" : plain(block.tau_max)}${block.learnable ? ", learned" : ", fixed"}`);
    if (block.dendrites > 1) words.push(block.coupling === "none" ? "uncoupled" : `${block.coupling} coupling`);
    words.push({ v: "on V, without Q and K", qkv: "gated by Q and K", x: "on the block input" }[block.token]);
    words.push(`${block.scan} scan`);
  }
  if (block.form) words.push({ kv: "KᵀV first", qk: "QKᵀ first" }[block.form]);
  if (block.dilations) words.push(block.dilations.length ? `radius ${Math.max(...block.dilations)} (dilations ${block.dilations.join(", ")})` : "no local field");
  return words.join(" · ") || "as published";
}

function costs(t) {
  if (!t.k) return [];
  const bytes = (b) => (b < 1024 ? `${b} B` : b < 1024 ** 2 ? `${num(b / 1024)} KiB` : `${num(b / 1024 ** 2)} MiB`);
  const [parameters, macs, weights, kept, attention, peak] = t.k;
  const memory = [["weights", weights], ["state", kept], ["attention", attention], ["peak", peak]];
  const most = Math.max(...memory.map((m) => m[1]));
  const parts = [el("h4", {}, "Where its memory goes"), ...memory.map(([name, b]) => bar(name, b / most, bytes(b)))];
  const found = DATA.details[t.i];
  if (found) {
    const most = (j) => Math.max(...found.parts.map((part) => part[j])) || 1;
    const shown = (j, text) => found.parts.filter((p) => p[j]).map((p) => bar(p[0], p[j] / most(j), text(p[j])));
    parts.push(el("h4", {}, "State and attention, by part"), ...shown(2, bytes));
    const all = found.parts.reduce((sum, part) => sum + part[1], 0);
    const energy = (nj) => `${num(nj)} nJ · ${Math.round((nj / all) * 100)} %`;
    parts.push(el("h4", {}, "Where its energy goes"), ...shown(1, energy), el("p", { class: "note" }, `Energy ${found.source}.`));
  }
  parts.push(el("p", { class: "note" }, `${num(parameters)} parameters, ${num(macs)} dense MACs per image.`));
  return parts;
}
