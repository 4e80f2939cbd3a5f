"""QKFormer against the official parameter counts, and its freedom of operators."""

from __future__ import annotations

import pytest
import torch

from lrf_models import build_model
from spaces import config, operators

# isort: split
import timm


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name).parameters())


@pytest.mark.parametrize(
    ("size", "official"),
    [("10_384", 16_473_688), ("10_512", 29_079_336), ("10_768", 64_962_760), ("4_384_cifar", 6_740_884)],
)
def test_parameters_equal_the_official_ones(size: str, official: int) -> None:
    assert parameters(f"ssa_qkformer_{size}") == official


@pytest.mark.parametrize("operator", ["lrf_ssa", "lrf_dyn"])
def test_the_paper_counts_29_18_million(operator: str) -> None:
    assert round(parameters(f"{operator}_qkformer_10_512") / 1e6, 2) == 29.18


@pytest.mark.parametrize("stem_stride", [1, 4])
@pytest.mark.parametrize(
    "operator", [operators.SSA(), operators.LRFDyn(dilations=(1,)), operators.TokenQK()], ids=str
)
def test_any_operator_in_any_stage(operator: operators.Attention, stem_stride: int) -> None:
    side = 8 * stem_stride
    settings = config.QKFormerConfig(
        dim=32,
        heads=2,
        img_size=(side, side),
        stem_stride=stem_stride,
        num_classes=3,
        timesteps=2,
        stage1=(operator,),
        stage2=(operator,),
        blocks=(operator,),
    )
    torch.manual_seed(0)
    model = build_model(settings).train()
    maps = list(model.levels(torch.randn(2, 3, side, side)))
    assert [tuple(m.shape[-3:]) for m in maps] == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]
    assert all(torch.equal(m, m.round()) and m.sum() > 0 for m in maps)  # sums of spikes


def test_images_do_not_see_each_other() -> None:
    """The official code feeds a folded T·B to its last neuron, so there one image charges the next."""
    torch.manual_seed(0)
    model = build_model(config.QKFormerConfig(dim=32, heads=2, img_size=(32, 32), blocks=(operators.SSA(),)))
    model.train()(torch.randn(4, 3, 32, 32))
    model.eval()
    x = torch.randn(3, 3, 32, 32)
    together = model.forward_features(x)
    assert torch.equal(together[:, 1:2], model.forward_features(x[1:2]))
