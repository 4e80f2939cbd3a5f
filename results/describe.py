"""A configuration and its numbers in words: what tables, reports and model cards print."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from search.metrics import METRICS
from spaces.config import Candidate
from spaces.operators import LRFDyn

Feature = str | int | float | bool

BACKBONES = {"spikformer": "Spikformer", "qkformer": "QKFormer", "sdt_v3": "SDT-V3"}
OPERATORS = {
    "ssa": "SSA",
    "lrf_ssa": "LRF-SSA",
    "causal_ssa": "causal SSA",
    "lrf_causal_ssa": "causal LRF-SSA",
    "token_qk": "token-QK",
    "lrf_dyn": "LRF-Dyn",
}


@dataclass(frozen=True)
class Unit:
    """How a metric is printed: ``value · scale``, then ``label``. One unit serves a whole table."""

    scale: float
    label: str

    def number(self, value: float) -> str:
        """Three significant digits, with thousands separated and no exponent in the usual range."""
        scaled = value * self.scale
        if not math.isfinite(scaled):
            return "-"
        if scaled == 0:
            return "0"
        digits = 2 - math.floor(math.log10(abs(scaled)))
        if not -9 <= -digits <= 5:
            return f"{scaled:.2e}"
        return f"{round(scaled, digits):,.{max(digits, 0)}f}"

    def interval(self, value: float, half: float | None) -> str:
        """``value ± half`` with the decimals of ``value``; without a width, the value alone."""
        middle = self.number(value)
        if not half or "e" in middle or middle == "-":
            return middle
        decimals = len(middle.partition(".")[2])
        return f"{middle} ± {half * self.scale:,.{decimals}f}"

    def show(self, value: float, half: float | None = None) -> str:
        return f"{self.interval(value, half)} {self.label}".rstrip()


# By dimension: the sizes of the units in the metric's own one, smallest first.
_LADDERS: dict[str, tuple[tuple[float, str], ...]] = {
    "mJ": ((1e-9, "pJ"), (1e-6, "nJ"), (1e-3, "µJ"), (1.0, "mJ"), (1e3, "J")),
    "KiB": ((1 / 1024, "B"), (1.0, "KiB"), (1024.0, "MiB"), (1024.0**2, "GiB")),
    "": ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")),
}


def unit(metric: str, values: Iterable[float]) -> Unit:
    """The unit in which the median of ``values`` reads best; accuracy is in per cent."""
    if metric == "accuracy":
        return Unit(100.0, "%")
    known = METRICS.get(metric)
    ladder = _LADDERS.get(known.unit if known else "", _LADDERS[""])
    sizes = sorted(abs(v) for v in values if math.isfinite(v) and v != 0)
    middle = sizes[len(sizes) // 2] if sizes else 1.0
    size, label = next((step for step in reversed(ladder) if middle >= step[0]), ladder[0])
    return Unit(1 / size, label)


def show(metric: str, value: float, half: float | None = None) -> str:
    """One value in the unit that suits it, with half the width of its confidence interval where one is known."""
    return unit(metric, [value]).show(value, half)


def block(operator: Any) -> str:
    """One attention block in a few words, for example ``LRF-Dyn k4 r3``."""
    words = [OPERATORS.get(operator.kind, operator.kind)]
    if isinstance(operator, LRFDyn):
        if operator.token != "v":
            words.append(operator.token)
        words.append(f"k{operator.dendrites}")
    if operator.radius:
        words.append(f"r{operator.radius}")
    return " ".join(words)


def describe(candidate: Candidate) -> str:
    """A candidate on one line: family, depth-width, time steps, blocks (``k`` dendrites, ``r`` radius in tokens).

    A neuron is named where it is not the family's own.
    """
    model = candidate.model
    width = model.dims[-1] if model.backbone == "sdt_v3" else model.dim
    blocks = []
    for text, same in groupby(block(operator) for operator in model.attention_blocks):
        count = len(list(same))
        blocks.append(f"{count}× {text}" if count > 1 else text)
    depth = len(model.attention_blocks)
    usual = type(model).model_fields["neuron"].default.kind
    neuron = "" if model.neuron.kind == usual else f" {model.neuron.kind.upper().replace('_', '-')}"
    return f"{BACKBONES[model.backbone]} {depth}-{width} T{model.timesteps}{neuron}: {', '.join(blocks)}"


def features(candidate: Candidate) -> dict[str, Feature]:
    """What a person would compare two candidates by, whatever space they come from.

    Blocks are summed up (the share of each operator, the largest radius, the mean of dendrites and decay
    constants), so that block 2 of a deep network and block 2 of a shallow one are not taken for the same
    parameter. A feature that a candidate does not have is absent.
    """
    model, training = candidate.model, candidate.training
    blocks = model.attention_blocks
    kinds = {_kind(operator) for operator in blocks}
    found: dict[str, Feature] = {
        "backbone": BACKBONES[model.backbone],
        "operators": " + ".join(sorted(OPERATORS.get(kind, kind) for kind in kinds)),
        "depth": len(blocks),
        "width": model.dims[-1] if model.backbone == "sdt_v3" else model.dim,
        "heads": model.heads,
        "MLP ratio": model.mlp_ratio,
        "T": model.timesteps,
        "neuron": model.neuron.kind,
        "radius": max((operator.radius for operator in blocks), default=0),
        "learning rate": training.lr,
        "weight decay": training.weight_decay,
    }
    for name, value in model.neuron.model_dump(exclude={"kind", "surrogate"}).items():
        found[f"neuron {name}"] = value
    found |= {f"share of {text}": _share(blocks, kind) for kind, text in OPERATORS.items()}
    found |= _dynamics([operator for operator in blocks if isinstance(operator, LRFDyn)])
    return found


def _kind(operator: Any) -> str:
    return str(operator.kind)


def _share(blocks: Iterable[Any], kind: str) -> float:
    kinds = [_kind(operator) for operator in blocks]
    return kinds.count(kind) / len(kinds)


def _dynamics(blocks: list[LRFDyn]) -> dict[str, Feature]:
    if not blocks:
        return {}
    found: dict[str, Feature] = {
        "dendrites": sum(b.dendrites for b in blocks) / len(blocks),
        "τ_min": sum(b.tau_min for b in blocks) / len(blocks),
        "learnable τ": sum(b.learnable for b in blocks) / len(blocks),
        "coupled": sum(b.coupling != "none" for b in blocks) / len(blocks),
        "gated by Q and K": sum(b.token == "qkv" for b in blocks) / len(blocks),
    }
    longest = [b.tau_max for b in blocks if b.tau_max is not None]
    if longest:
        found["τ_max"] = sum(longest) / len(longest)
    return found


def escaped(text: str) -> str:
    """Text that is neither markup nor the end of a table cell."""
    for character in "\\`*[]|":
        text = text.replace(character, "\\" + character)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
