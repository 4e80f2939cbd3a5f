"""The model card of an export."""

from __future__ import annotations

import json
from collections.abc import Sequence

from results.describe import describe, escaped, show
from results.front import half_width, interval
from results.provenance import facts_of_run
from search.config import RunConfig
from search.host import versions
from search.metrics import METRICS, Z95
from search.record import Record


def card(record: Record, run: RunConfig, name: str, notes: Sequence[str] = (), picked: Record | None = None) -> str:
    """README.md in Hugging Face's layout: accuracy, memory, energy *with the model behind it*, data, reproduction.

    ``picked`` is the trial that ``record`` is a retraining of.
    """
    assert record.candidate is not None
    lines = [*_front_matter(record, run), f"# {escaped(describe(record.candidate))}", ""]
    lines += [f"Configuration `{record.identity}` of run {escaped(run.name)}, trial {record.number}.", ""]
    if picked is not None:
        before = show("accuracy", picked.metrics["accuracy"], half_width(picked, "accuracy"))
        lines += [
            f"**Trained again** by recipe `{run.recipe}` for {run.epochs} epochs. The search had trained this "
            f"network as `{picked.identity}`, {len(picked.history)} epochs, to a validation accuracy of {before}; "
            "the numbers below are those of the weights in this folder.",
            "",
        ]
    lines += ["| metric | value | what it is |", "|---|---|---|", *_rows(record), ""]
    test = "the test set was read once, after selection" if record.test else "the test set was not read"
    lines += [
        f"Energy is an **estimate**: events counted on validation images, priced with profile `{run.profile}` under "
        f"convention `{run.convention}` (docs/counters.md says what each leaves out). It was measured on no chip.",
        f"{interval([record])}. This configuration was selected on validation data; {test}.",
        "",
        "## Use",
        "",
        "```python",
        "import lrf_models  # registers the architectures",
        "import timm",
        "",
        f'model = timm.create_model("local-dir:{escaped(name)}", pretrained=True).eval()',
        "```",
        "",
        f"Input: images `[B, {record.candidate.model.in_chans}, {record.candidate.model.img_size[0]}, "
        f"{record.candidate.model.img_size[1]}]`, normalised with `mean` and `std` of config.json; "
        f"T = {record.candidate.model.timesteps} time steps inside.",
        "",
    ]
    if notes:
        lines += ["## Further files", "", *[f"* {note}" for note in notes], ""]
    lines += ["## Made by", ""]
    lines += [f"* {key}: {escaped(text)}" for key, text in facts_of_run(run).items()]
    lines += [f"* versions of this export: {versions()}", "", "## Train it again", "", "```sh"]
    lines += [f"lrf-search train candidate.yaml --data {run.data}", "```", ""]
    return "\n".join(lines)


def _front_matter(record: Record, run: RunConfig) -> list[str]:
    """YAML that the Hub reads. JSON strings are YAML strings, whatever they hold."""
    value = (record.test or record.metrics).get("accuracy")
    lines = ["---", "library_name: timm", "tags:", "- image-classification", "- spiking-neural-network"]
    lines += ["datasets:", f"- {json.dumps(run.data)}"]
    if value is not None:
        split = "test" if record.test else "validation"
        lines += ["model-index:", f"- name: {json.dumps(record.identity)}", "  results:", "  - task:"]
        lines += ["      type: image-classification", "    dataset:", f"      name: {json.dumps(run.data)}"]
        lines += [f"      type: {json.dumps(run.data)}", f"      split: {split}", "    metrics:"]
        lines += ["    - type: accuracy", f"      value: {value:.6g}"]
    return [*lines, "---", ""]


def _rows(record: Record) -> list[str]:
    rows = []
    for name, value in record.metrics.items():
        text = METRICS[name].text if name in METRICS else ""
        rows.append(f"| {name} | {show(name, value, half_width(record, name))} | {text} |")
    for name, value in (record.test or {}).items():
        if name in METRICS:
            error = (record.test or {}).get(f"{name}_se")
            rows.append(f"| test {name} | {show(name, value, Z95 * error if error else None)} | on the test set |")
    return rows
