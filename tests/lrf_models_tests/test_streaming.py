"""Streaming inference equals the usual forward pass, in a fraction of its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrf_models import SpikingBackbone, build_model, streaming
from lrf_models.counters.memory import peak_bytes
from lrf_models.layers import BatchNorm2d
from lrf_models.streaming import Streaming
from spaces import config, operators

# isort: split
import timm

OPERATORS: list[Any] = [
    operators.SSA(),
    operators.LRFSSA(dilations=(1,), form="qk"),
    operators.CausalSSA(),
    operators.TokenQK(),
    operators.LRFDyn(dilations=(1,)),
    operators.LRFDyn(token="qkv", scan="bidirectional", dilations=()),
    operators.LRFDyn(token="x", scan="column", sharing="channel", dilations=(1,), taps="past"),
]


def network(settings: config.Model, dtype: torch.dtype = torch.float64) -> tuple[SpikingBackbone, Tensor]:
    """A network whose BN knows its data, so that it fires, and an input."""
    torch.manual_seed(0)
    model = build_model(settings).to(dtype)
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.momentum = None
    x = torch.randn(3, settings.in_chans, *settings.img_size, dtype=dtype)
    model.train()(x)
    return model.eval(), x[:2]


def check(model: SpikingBackbone, x: Tensor, tolerance: float, **options: Any) -> None:
    with torch.no_grad():
        expected = model(x)
        assert model.forward_features(x).sum() > 0
    streamed = Streaming(model, **options)(x)
    torch.testing.assert_close(streamed, expected, atol=tolerance, rtol=0)
    assert torch.equal(streamed.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
@pytest.mark.parametrize("recurrent", [False, True])
def test_equal_to_the_usual_pass(operator: Any, recurrent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where rounding flips no spike, so that strips may be as small as two rows; an odd-sized map."""
    monkeypatch.setattr(streaming, "SMALLEST_PIECE", 1)
    settings = config.SpikformerConfig(
        dim=16, heads=2, img_size=(36, 52), pools=3, num_classes=7, timesteps=3, blocks=(operator, operator)
    )
    model, x = network(settings)
    check(model, x, 1e-10, recurrent=recurrent, strip_bytes=1)


@pytest.mark.parametrize("stem_stride", [1, 4])
@pytest.mark.parametrize("strip_bytes", [1, 2**20])
def test_qkformer(stem_stride: int, strip_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SMALLEST_PIECE", 1)
    settings = config.QKFormerConfig(
        dim=32, heads=2, img_size=(40, 24), num_classes=7, stem_stride=stem_stride, blocks=(operators.SSA(),)
    )
    model, x = network(settings)
    check(model, x, 1e-10, strip_bytes=strip_bytes)


def test_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SMALLEST_PIECE", 1)
    settings = config.SpikformerConfig(
        dim=16,
        heads=2,
        img_size=(32, 32),
        pools=3,
        num_classes=7,
        input="events",
        blocks=(operators.LRFDyn(dilations=(1,)),),
    )
    model, x = network(settings)
    check(model, torch.stack([x, -x, 2 * x, x.flip(-1)]), 1e-10, strip_bytes=1)


def test_equal_bit_for_bit_in_single_precision() -> None:
    """With strips no smaller than the default allows, torch's convolutions round as for the whole map."""
    settings = config.SpikformerConfig(
        dim=64, heads=4, img_size=(96, 96), num_classes=7, blocks=(operators.SSA(), operators.LRFDyn())
    )
    model, x = network(settings, torch.float32)
    check(model, x, 0.0, strip_bytes=2**18)


@pytest.mark.parametrize("name", ["ssa_spikformer_8_512", "lrf_ssa_spikformer_8_512", "lrf_dyn_spikformer_8_512"])
def test_a_quarter_of_the_usual_memory(name: str) -> None:
    """Whole Spikformer-8-512 at 224², T=4, B=1: live bytes beyond the weights, traced over shapes.

    The bound of 25 % is of standard SSA's usual pass of this code, which convolves an image once already.
    """
    x = torch.empty(1, 3, 224, 224, device="meta")
    with torch.device("meta"):
        usual = timm.create_model("ssa_spikformer_8_512").eval()
        model = timm.create_model(name).eval()
    assert peak_bytes(Streaming(model), x) <= 0.25 * peak_bytes(usual, x)


def test_weights_are_shared() -> None:
    settings = config.SpikformerConfig(
        dim=16, heads=2, img_size=(32, 32), num_classes=7, blocks=(operators.LRFDyn(dilations=()),)
    )
    model, x = network(settings)
    streamed = Streaming(model, recurrent=True)
    with torch.no_grad():
        model.head.weight.zero_()  # type: ignore[union-attr,operator]
    assert torch.equal(streamed(x), model(x))
    pointers = {p.data_ptr() for p in streamed.parameters()}
    assert pointers == {p.data_ptr() for p in model.parameters()}


def test_refusals() -> None:
    settings = config.SpikformerConfig(
        dim=16, heads=2, img_size=(32, 32), blocks=(operators.LRFDyn(dilations=(), padding="circular"),)
    )
    model, _ = network(settings)
    with pytest.raises(ValueError, match="padding='circular'"):
        Streaming(model, recurrent=True)
    with pytest.raises(ValueError, match="evaluation mode"):
        Streaming(model.train())
    with pytest.raises(ValueError, match="SDTV3"):
        Streaming(timm.create_model("sdt_v3", dims=(8, 8, 8, 8), img_size=96).eval())


def test_export() -> None:
    """Plain tensors: torch.export traces the streaming pass."""
    settings = config.SpikformerConfig(dim=16, heads=2, img_size=(32, 32), num_classes=7, blocks=(operators.SSA(),))
    model, x = network(settings)
    streamed: nn.Module = Streaming(model)
    program = torch.export.export(streamed, (x,))
    torch.testing.assert_close(program.module()(x), model(x).detach(), atol=1e-10, rtol=0)
