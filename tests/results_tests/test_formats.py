"""Every further format gives the network's outputs back, or says which block it cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import network

from lrf_models.dynamics import Dendrites
from results.export import Parcel, write
from results.formats import fixed
from results.quantise import dequantised, quantised, read_int8
from search.config import RunConfig
from search.data import load
from search.record import Record
from spaces.config import Candidate, SDTV3Config, SpikformerConfig
from spaces.operators import IF, LIF, LRFSSA, PLIF, SSA, LRFDyn


def parcel(*blocks: Any, **model: Any) -> Parcel:
    data = load("digits")
    fields = {"dim": 16, "heads": 2, "pools": 1, "timesteps": 2, "mlp_ratio": 2.0, "blocks": blocks, **model}
    candidate = Candidate(model=SpikformerConfig.model_validate(data.model_fields() | fields))
    record = Record(number=0, status="complete", identity=candidate.identity, candidate=candidate)
    return Parcel(record, RunConfig(name="formats"), network(candidate), data)


MIXED = (LRFDyn(dendrites=3, dilations=(1,), token="qkv"), LRFSSA(dilations=(1,)))
DYNAMIC = (
    LRFDyn(dendrites=4, dilations=(1, 3)),
    LRFDyn(dendrites=1, dilations=(), sharing="layer", scan="column"),
    LRFDyn(dendrites=2, dilations=(1,), sharing="channel", scan="bidirectional", field="token", taps="past"),
    LRFDyn(dendrites=2, dilations=(1,), token="x", coupling="none"),
)


def logits(made: Parcel, images: int = 50) -> torch.Tensor:
    with torch.no_grad():
        return made.model(made.sample(images))


@pytest.mark.slow
def test_pt2_gives_equal_logits_for_any_batch(tmp_path: Path) -> None:
    made = parcel(*MIXED)
    out = write(made, tmp_path / "out", ["pt2"])
    program = torch.export.load(out / "model.pt2").module()
    assert torch.equal(program(made.sample(50)), logits(made))
    assert torch.allclose(program(made.sample(1)), logits(made, 1), atol=1e-5)
    assert "T = 2 and 1×8×8 pixels are baked in" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [MIXED, DYNAMIC[1:3]], ids=["mixed", "dynamics"])
def test_the_streaming_form_gives_the_same_logits(tmp_path: Path, blocks: Any) -> None:
    made = parcel(*blocks)
    out = write(made, tmp_path / "out", ["streaming"])
    program = torch.export.load(out / "model.streaming.pt2").module()
    x = made.sample(12)
    assert torch.allclose(torch.cat([program(one) for one in x.split(1)]), logits(made, 12), atol=1e-4)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "T = 2 and 1×8×8 pixels are baked in, and a batch of 1" in card


def test_what_cannot_stream_is_refused(tmp_path: Path) -> None:
    data = load("digits")
    small = {"dims": (8, 8, 16, 16), "split": 1, "blocks": (SSA(), SSA()), "heads": 1}
    candidate = Candidate(model=SDTV3Config.model_validate(data.model_fields() | small))
    record = Record(number=0, status="complete", identity=candidate.identity, candidate=candidate)
    made = Parcel(record, RunConfig(name="formats"), network(candidate), data)
    with pytest.raises(ValueError, match=r"^streaming knows Spikformer and QKFormer, but got SDTV3$"):
        write(made, tmp_path / "out", ["streaming"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_onnx_runs_in_onnxruntime(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = parcel(LRFDyn(dendrites=2, dilations=(1,), scan="bidirectional", taps="past"), SSA(form="qk"))
    out = write(made, tmp_path / "out", ["onnx"])
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"images": made.sample(50).numpy()})[0]
    np.testing.assert_allclose(found, logits(made).numpy(), atol=1e-4)


def test_a_network_with_constant_dynamics_is_the_same_network() -> None:
    made = parcel(*DYNAMIC, LRFDyn(padding="circular", dilations=(1,)))
    constant = fixed(made.model)
    assert not any(isinstance(module, Dendrites) for module in constant.modules())
    assert any(isinstance(module, Dendrites) for module in made.model.modules())  # the original is left alone
    with torch.no_grad():
        assert torch.equal(constant(made.sample(20)), logits(made, 20))


@pytest.mark.parametrize("neuron", [LIF(tau=1.5, threshold=0.75), IF(), PLIF(tau=3.0)], ids=["lif", "if", "plif"])
def test_nir_read_back_computes_the_same(tmp_path: Path, neuron: Any) -> None:
    nir = pytest.importorskip("nir")
    from results.nir_run import run

    made = parcel(*DYNAMIC, neuron=neuron, timesteps=3)
    out = write(made, tmp_path / "out", ["nir"])
    graph = nir.read(out / "model.nir", type_check=False)
    assert torch.allclose(run(graph, made.sample(50)), logits(made), atol=1e-4)
    assert type(graph.nodes["blocks.0.dendrites"]).__name__ == "NIRGraph"
    graph.nodes["blocks.0.dendrites"].nodes["dendrites"].tau *= 1.5  # the reader reads the graph, not the network
    assert not torch.allclose(run(graph, made.sample(50)), logits(made), atol=1e-4)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ((DYNAMIC[0], SSA()), "no product of activations: block 2 is SSA"),
        ((LRFSSA(dilations=(1,)),), "block 1 is LRF-SSA"),
        ((LRFDyn(token="qkv", dilations=(1,)),), r"block 1 is LRF-Dyn gated by Q and K \(qkv\)"),
        ((LRFDyn(padding="circular", dilations=(1,)),), "no circular convolution: block 1"),
    ],
)
def test_nir_names_the_block_that_it_cannot_express(tmp_path: Path, blocks: Any, message: str) -> None:
    pytest.importorskip("nir")
    with pytest.raises(ValueError, match=message):
        write(parcel(*blocks), tmp_path / "out", ["nir"])
    assert list(tmp_path.iterdir()) == []


def test_int8_holds_the_weights_in_a_quarter_of_the_bytes(tmp_path: Path) -> None:
    made = parcel(*MIXED[:2], dim=48)
    out = write(made, tmp_path / "out", ["int8"])
    state = read_int8(out / "model.int8.safetensors")
    original = made.model.state_dict()
    assert state.keys() == original.keys()
    weight = "blocks.0.mlp.expand.conv.conv.weight"
    step = original[weight].abs().flatten(1).amax(1).view(-1, 1, 1, 1) / 127
    assert ((state[weight] - original[weight]).abs() <= step * 0.501).all()
    small, large = ((out / name).stat().st_size for name in ("model.int8.safetensors", "model.safetensors"))
    assert small < 0.5 * large
    assert "validation accuracy" in (out / "README.md").read_text(encoding="utf-8")


def test_quantisation_is_exact_on_its_own_grid() -> None:
    integers = torch.randint(-127, 128, (4, 3, 3, 3), dtype=torch.int8)
    integers[:, 0, 0, 0] = 127
    scale = torch.tensor([1.0, 0.5, 2.0, 0.25])
    again, found = quantised(dequantised(integers, scale))
    assert torch.equal(again, integers)
    assert torch.allclose(found, scale)
    assert torch.equal(quantised(torch.zeros(2, 3))[0], torch.zeros(2, 3, dtype=torch.int8))
