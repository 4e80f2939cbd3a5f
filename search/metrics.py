"""The numbers that a run can optimise, bound and report: one table with name, direction and unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spaces.cost import Cost

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Metric:
    """One measurable number of a candidate.

    Attributes:
        direction: Which way is better.
        unit: As printed; empty for pure numbers.
        priced: Exact before training, by `lrf_models.counters.price`; the rest is measured after it.
        text: One sentence for reports.
    """

    direction: Literal["maximize", "minimize"]
    unit: str
    priced: bool
    text: str


METRICS: dict[str, Metric] = {
    "accuracy": Metric("maximize", "", False, "share of validation images classified correctly"),
    "energy_mj": Metric("minimize", "mJ", False, "estimated energy per image from measured spike events"),
    "sops": Metric("minimize", "", False, "synaptic operations per image, measured"),
    "memory_kib": Metric("minimize", "KiB", True, "attention working set + state per image"),
    "state_kib": Metric("minimize", "KiB", True, "what survives between tokens or time steps, per image"),
    "attention_kib": Metric("minimize", "KiB", True, "extra bytes of the largest attention block while it runs"),
    "peak_kib": Metric("minimize", "KiB", True, "peak of the live bytes beyond the weights, one image"),
    "weights_kib": Metric("minimize", "KiB", True, "parameters and inference buffers"),
    "parameters": Metric("minimize", "", True, "learned values"),
    "dense_macs": Metric("minimize", "", True, "multiply-accumulates per image if every input were non-zero"),
}


def priced_metrics(cost: Cost) -> dict[str, float]:
    """The metrics that are exact before training."""
    return {
        "memory_kib": cost.memory_bytes / 1024,
        "state_kib": cost.state_bytes / 1024,
        "attention_kib": cost.attention_bytes / 1024,
        "peak_kib": cost.peak_bytes / 1024,
        "weights_kib": cost.weights_bytes / 1024,
        "parameters": float(cost.parameters),
        "dense_macs": float(cost.dense_macs),
    }
