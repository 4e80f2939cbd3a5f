"""Events against SpikingJelly and NeuroBench, where they are installed (docs/counters.md says how)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrf_models.counters import counting
from lrf_models.counters.audit import neurobench_events, spikingjelly_events
from lrf_models.layers import Conv2d, Linear, MatMul

LAYERS: dict[str, Any] = {
    "3×3": lambda: Conv2d(4, 6, 3, edge="binary"),
    "stride 2": lambda: Conv2d(4, 6, 3, edge="binary", stride=2),
    "dilation 2": lambda: Conv2d(4, 6, 3, edge="binary", dilation=2),
    "1×1": lambda: Conv2d(4, 6, 1, edge="binary"),
    "depthwise": lambda: Conv2d(4, 4, 3, edge="binary", groups=4),
    "linear": lambda: Linear(6, 5, edge="binary", bias=False),
}


class _Root(nn.Module):
    def __init__(self, inner: nn.Module, *more: Tensor) -> None:
        super().__init__()
        self.inner, self.more = inner, more

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x, *self.more)
        return y


def ours(module: nn.Module, x: Tensor, *more: Tensor) -> float:
    root = _Root(module, *more).eval()
    with torch.no_grad(), counting(root) as counter:
        root(x)
    return counter.events()["inner"].events.sum().item()


def spikes(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_spikingjelly_agrees_on_layers(layer: str) -> None:
    pytest.importorskip("spikingjelly")
    module, x = LAYERS[layer](), spikes(3, 6) if layer == "linear" else spikes(3, 4, 6, 7)
    assert ours(module, x) == spikingjelly_events(module, x) > 0


@pytest.mark.parametrize("edges", [("binary", "binary"), ("binary", "real")])
def test_spikingjelly_agrees_on_products(edges: Any) -> None:
    pytest.importorskip("spikingjelly")
    module, a = MatMul(edges), spikes(3, 2, 4, 5)
    b = spikes(3, 2, 5, 7, seed=1) if edges[1] == "binary" else torch.randn(3, 2, 5, 7)
    assert ours(module, a, b) == spikingjelly_events(module, a, b) > 0


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_neurobench_agrees_on_layers(layer: str) -> None:
    pytest.importorskip("neurobench")
    module, x = LAYERS[layer](), spikes(3, 6) if layer == "linear" else spikes(3, 4, 6, 7)
    assert ours(module, x) == neurobench_events(module, x) > 0
