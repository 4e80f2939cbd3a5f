"""What every model registered with timm must do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lrf_models import SpikingBackbone
from lrf_models.layers import BatchNorm2d
from spaces import operators

# isort: split
import timm  # after lrf_models, which makes torchvision importable

FAMILIES = ("spikformer", "qkformer", "sdt_v3")
NAMED = [name for family in FAMILIES for name in timm.list_models(f"*{family}*") if name not in FAMILIES]
SMALL: dict[str, dict[str, Any]] = {
    "spikformer": {"dim": 32, "heads": 4, "img_size": 32, "pools": 2, "num_classes": 5, "blocks": [{"kind": "ssa"}]},
    "qkformer": {"dim": 32, "heads": 2, "img_size": 32, "num_classes": 5, "blocks": [{"kind": "ssa"}]},
    "sdt_v3": {
        "dims": (8, 16, 16, 24),
        "img_size": 32,
        "num_classes": 5,
        "split": 1,
        "blocks": [{"kind": "ssa"}, {"kind": "lrf_ssa", "dilations": [1]}],
    },
}


def small(family: str, **fields: Any) -> SpikingBackbone:
    torch.manual_seed(0)
    model: SpikingBackbone = timm.create_model(family, **{**SMALL[family], **fields})
    return model


def calibrated(model: SpikingBackbone) -> SpikingBackbone:
    """In evaluation mode, with the BN statistics of a few images: a fresh network would not fire."""
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.momentum = None
    model.train()(images(model, seed=9, batch=4))
    return model.eval()


def images(model: nn.Module, seed: int = 1, batch: int = 2) -> Tensor:
    settings = model.settings
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, settings.in_chans, *settings.img_size, generator=generator)


def before_a_norm(model: nn.Module) -> list[str]:
    """Biases of convolutions before a BN: the batch's mean cancels them, so only evaluation knows them."""
    return [n for n, _ in model.named_parameters() if n.endswith("conv.bias")]


def gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    y = model(x)
    weights = torch.randn(y.shape[1], generator=torch.Generator().manual_seed(2))
    (y * weights).sum().backward()
    return y.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NAMED)
def test_every_named_model(name: str) -> None:
    """Shape, no NaN, a gradient for every parameter, no state between batches, exact checkpointing.

    On a map of a few tokens attention neurons would rarely fire at the start, and where nothing fires the weights
    behind have no gradient: thresholds are low here, products large.
    """
    torch.manual_seed(0)
    fields: dict[str, Any] = {"img_size": 64, "heads": 1}
    if "sdt_v3" not in name:
        lif = {"kind": "lif", "threshold": 0.3}
        size = 8 if "cifar" in name else 32  # a 2×2 token map
        fields = {"img_size": size, "timesteps": 2, "neuron": lif, "attention_threshold": 0.05, "scale": 1.0}
    if "lrf" in name:
        fields["dilations"] = (1,)
    model = timm.create_model(name, **fields).train()
    x = images(model)
    y, grads = gradients(model, x)
    assert y.shape == (2, model.num_classes)
    assert torch.isfinite(y).all()
    cancelled = before_a_norm(model)
    for parameter in set(dict(model.named_parameters())).difference(cancelled):
        assert grads[parameter].abs().sum() > 0, parameter
    statistics = {n: b.clone() for n, b in model.named_buffers() if n.endswith("num_batches_tracked")}

    model.set_grad_checkpointing()
    y_again, grads_again = gradients(model, x)
    model.set_grad_checkpointing(False)
    assert torch.equal(y, y_again)
    assert all(torch.equal(grad, grads_again[parameter]) for parameter, grad in grads.items())
    buffers = dict(model.named_buffers())
    assert all(buffers[n] == batches + 1 for n, batches in statistics.items())  # recomputing is no batch

    model.eval()
    with torch.set_grad_enabled(bool(cancelled)):
        alone, evaluated = gradients(model, x[:1]) if cancelled else (model(x[:1]), {})
    for parameter in cancelled:
        assert evaluated[parameter].abs().sum() > 0, parameter
    with torch.no_grad():
        model(images(model, seed=2))
        torch.testing.assert_close(model(x)[:1], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_timm_interface(family: str) -> None:
    model = small(family, in_chans=2).eval()
    x = images(model)
    with torch.no_grad():
        features = model.forward_features(x)
        assert torch.equal(model.forward_head(features), model(x))
        assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
        assert model.get_classifier() is model.head
        model.reset_classifier(3)
        assert model(x).shape == (2, model.num_classes) == (2, 3)
        model.reset_classifier(0)
        assert model(x).shape == (2, model.num_features)
    assert model.in_chans == 2
    assert model.default_cfg["architecture"] == model.pretrained_cfg["architecture"] == family
    assert model.get_submodule(model.default_cfg["first_conv"]).in_channels == 2
    assert model.get_submodule(model.default_cfg["classifier"]) is model.head


@pytest.mark.parametrize("neuron", ["if", "lif", "plif", "alif", "dh_lif", "sfa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_neuron_in_any_family(family: str, neuron: str) -> None:
    """Attention with one head too, so that no neuron is tied to the number of heads."""
    blocks = [{"kind": "lrf_dyn", "dilations": [1]}, {"kind": "ssa"}]
    narrow = {"dims": (8, 16, 16, 24)} if family == "sdt_v3" else {"dim": 32}
    stages = {"stage1": blocks[:1], "stage2": blocks[:1]} if family == "qkformer" else {}
    model = small(family, neuron={"kind": neuron}, heads=1, blocks=blocks, timesteps=2, **narrow, **stages).train()
    model(images(model)).sum().backward()
    finite = [torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None]
    assert len(finite) > 10
    assert all(finite)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_only(family: str) -> None:
    """Maps of the announced channels and reductions, equal to the model's own intermediates."""
    model = calibrated(small(family))
    pyramid = small(family, features_only=True, out_indices=(0, 2)).eval()
    assert not any("head" in name for name, _ in pyramid.named_parameters())
    pyramid.model.load_state_dict(model.state_dict(), strict=False)
    x = images(model)
    with torch.no_grad():
        maps = pyramid(x)
        last, expected = model.forward_intermediates(x, indices=[0, 2])
        assert torch.equal(last, model.forward_features(x))
        assert len(small(family, features_only=True)(x)) == len(model.feature_info)
    sides = [32 // reduction for reduction in pyramid.feature_info.reduction()]
    shapes = [(2, c, s, s) for c, s in zip(pyramid.feature_info.channels(), sides, strict=True)]
    assert [tuple(m.shape) for m in maps] == shapes
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_loads_bit_equal(family: str, tmp_path: Path) -> None:
    """The folder that an export writes: generic entry point, fields as model_args, weights."""
    model = calibrated(small(family, in_chans=1))
    described = {
        "architecture": family,
        "num_classes": 5,
        "model_args": model.settings.model_dump(mode="json"),
        "pretrained_cfg": {"input_size": [1, 32, 32], "num_classes": 5, "classifier": "head"},
    }
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(7)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert loaded.settings == model.settings
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    x = images(model)
    with torch.no_grad():
        assert torch.equal(model(x), loaded(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_and_images(family: str) -> None:
    """T equal frames are the image that they repeat; different frames are not."""
    model = calibrated(small(family, timesteps=3, input="events"))
    x = images(model)
    with torch.no_grad():
        frames = x.expand(3, *x.shape).clone()
        torch.testing.assert_close(model(frames), model(x), atol=1e-6, rtol=0)
        frames[1] = 3 * images(model, seed=5)
        assert not torch.equal(model.forward_features(frames), model.forward_features(x))


def test_the_lighter_token_is_an_argument() -> None:
    with torch.device("meta"):
        full = timm.create_model("lrf_dyn_spikformer_8_512")
        light = timm.create_model("lrf_dyn_spikformer_8_512", token="v", dendrites=4, img_size=(192, 224))
    assert light.settings.blocks[0] == operators.LRFDyn(token="v", dendrites=4, sharing="layer")
    assert light.settings.img_size == (192, 224)
    saved = sum(p.numel() for p in full.parameters()) - sum(p.numel() for p in light.parameters())
    assert saved == 8 * (2 * (512 * 512 + 2 * 512) + 4 * 3 + 2 * 4)  # q, k, and four dendrites less


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, r"heads must divide the width, but got \(width=32, heads=3\)"),
        ({"timesteps": 0}, r"timesteps: .* greater than or equal to 1, but got 0"),
        ({"blocks": [{"kind": "lrf_ssa", "dilations": [9]}]}, r"dilation < side .* \(dilation=9, map=8×8\)"),
        ({"blocks": [{"kind": "lrf_dyn", "dendrites": 0}]}, r"dendrites: .* but got 0"),
        ({"blocks": [{"kind": "softmax"}]}, r"blocks\.0: .*softmax"),
        ({"neuron": {"kind": "dh_lif", "branches": 5}}, r"branches <= width .* \(branches=5, narrowest layer=4\)"),
        ({"drop_path_rate": 0.1}, r"drop_path_rate: there is no such key"),
    ],
)
def test_a_bad_configuration_names_the_law_and_the_value(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small("spikformer", **fields)


def test_bad_input_is_reported() -> None:
    model = small("spikformer")
    x = images(model)
    with pytest.raises(ValueError, match="T=4 time steps, but got T=3"):
        model(x.expand(3, *x.shape))
    with pytest.raises(ValueError, match=r"input must be \[B, 3, 32, 32\]"):
        model(x[..., :16])
    x[0, 0, 3, 4] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        model(x)
    with pytest.raises(ValueError, match="global_pool"):
        model.reset_classifier(3, global_pool="max")
