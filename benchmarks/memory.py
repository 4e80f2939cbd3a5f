"""Memory of inference: usual pass against streaming, for the table of docs/memory.md.

    python -m benchmarks.memory

Live bytes are traced over shapes, which gives the same numbers as a real pass on a CPU (docs/counters.md); no
seed and no repetition enters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lrf_models import SpikingBackbone
from lrf_models.counters.memory import peak_bytes
from lrf_models.streaming import Streaming

# isort: split
import timm

SIZES: dict[int, dict[str, Any]] = {
    32: {"variant": "4_384_cifar", "form": "kv"},
    224: {"variant": "8_512", "form": "kv"},
    384: {"variant": "8_512", "form": "kv"},
}
OPERATORS = {"SSA": "ssa", "LRF-SSA": "lrf_ssa", "LRF-Dyn": "lrf_dyn"}


class Part(nn.Module):
    """A method of a model as a model."""

    def __init__(self, owner: nn.Module, call: Any) -> None:
        super().__init__()
        self.owner = owner
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def network(operator: str, side: int) -> SpikingBackbone:
    fields: dict[str, Any] = {"img_size": side}
    fields |= {"token": "v", "sharing": "head"} if operator == "lrf_dyn" else {"form": SIZES[side]["form"]}
    with torch.device("meta"):
        return timm.create_model(f"{operator}_spikformer_{SIZES[side]['variant']}", **fields).eval()


def row(operator: str, side: int) -> list[int]:
    """Bytes: whole model and attention block, usual and streaming; state of one block and one time step."""
    model = network(operator, side)
    s = model.settings
    streamed = Streaming(model, recurrent=operator == "lrf_dyn")
    image = torch.empty(1, s.in_chans, side, side, device="meta")
    tokens = torch.empty(s.timesteps, 1, s.dim, *s.grid, device="meta")
    attention = model.blocks[0].attention
    inner = streamed.model.blocks[0].attention
    head = s.dim // s.heads
    state = 8 * s.dim if operator == "lrf_dyn" else s.dim * head
    return [
        peak_bytes(model, image),
        peak_bytes(streamed, image),
        peak_bytes(attention, tokens),
        peak_bytes(Part(streamed, lambda x: streamed._attention(inner, x)).eval(), tokens.to(torch.uint8)),
        4 * state,
    ]


def main() -> None:
    print("| image | operator | whole: usual | streaming | attention: usual | streaming | state |")
    print("|---|---|---|---|---|---|---|")
    for side in SIZES:
        reference: list[int] | None = None
        for label, operator in OPERATORS.items():
            values = row(operator, side)
            reference = reference or values
            whole, attention, state = reference[0], reference[2], reference[4]
            shares = [
                value / base for value, base in zip(values, (whole, whole, attention, attention, state), strict=True)
            ]
            cells = [f"{v / 1e6:.3f} MB ({100 * share:.1f} %)" for v, share in zip(values, shares, strict=True)]
            print(f"| {side}² | {label} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
