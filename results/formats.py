"""Further formats of an export, each written and then checked against the network it came from.

``pt2`` is a `torch.export` program, ``onnx`` runs in onnxruntime, ``nir`` is the Neuromorphic Intermediate
Representation (results/nir_graph.py), ``int8`` holds the weights in a quarter of the bytes.
"""

from __future__ import annotations

import copy
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrf_models import SpikingBackbone
from lrf_models.dynamics import Dendrites, causal_convolution, circular_convolution
from lrf_models.neurons import LIF
from lrf_models.streaming import Streaming
from results.export import Parcel, Writer
from results.nir_graph import write_nir
from results.quantise import write_int8

CHECKED = 64  # validation images on which a format is compared with the network
TOLERANCE = 1e-4  # of a logit; other kernels round differently


def write_pt2(parcel: Parcel, folder: Path) -> None:
    """``model.pt2``: the usual form, all tokens at once, for any batch size."""
    path = folder / "model.pt2"
    x = parcel.sample(CHECKED)
    with torch.no_grad():
        program = torch.export.export(
            parcel.model,
            (x,),
            dynamic_shapes=(_any_batch(),),
            prefer_deferred_runtime_asserts_over_guards=True,  # guards on the layout hold for every batch, unproven
        )
    _save(program, path)
    again = torch.export.load(path).module()
    error = _compare(parcel.model, lambda images: again(images), x, "model.pt2")
    parcel.notes.append(f"`model.pt2`: torch.export program; {_baked(parcel)}; largest difference {error:.1e}")


def write_streaming(parcel: Parcel, folder: Path) -> None:
    """``model.streaming.pt2``: the low-memory schedule of lrf_models/streaming.py, for one image at a time."""
    path = folder / "model.streaming.pt2"
    x = parcel.sample(8)
    with torch.no_grad():
        program = torch.export.export(Streaming(parcel.model), (x[:1],))
    _save(program, path)
    again = torch.export.load(path).module()
    error = _compare(parcel.model, lambda images: torch.cat([again(one) for one in images.split(1)]), x, path.name)
    baked = _baked(parcel).replace("the batch is free", "and a batch of 1")
    parcel.notes.append(f"`{path.name}`: the streaming form; {baked}; largest difference {error:.1e}")


def write_onnx(parcel: Parcel, folder: Path) -> None:
    """``model.onnx``, checked in onnxruntime."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it and fails late without)
    except ImportError:
        raise ValueError("ONNX needs more packages: pip install 'lrf-search[onnx]'") from None
    path = folder / "model.onnx"
    x = parcel.sample(CHECKED)
    with torch.no_grad(), redirect_stdout(io.StringIO()):  # the exporter reports its progress there
        names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
        shapes = (_any_batch(),)
        program = torch.onnx.export(fixed(parcel.model), (x,), dynamo=True, dynamic_shapes=shapes, **names)
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    error = _compare(parcel.model, run, x, "model.onnx")
    parcel.notes.append(f"`model.onnx`: for onnxruntime; {_baked(parcel)}; largest difference {error:.1e}")


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    """By way of memory, so that a full disk is an OSError; torch's own writer raises what it likes."""
    content = io.BytesIO()
    torch.export.save(program, content)
    path.write_bytes(content.getvalue())


def _any_batch() -> dict[int, Any]:
    return {0: torch.export.Dim("batch", min=1, max=65536)}


def _baked(parcel: Parcel) -> str:
    settings = parcel.candidate.model
    height, width = settings.img_size
    return f"T = {settings.timesteps} and {settings.in_chans}×{height}×{width} pixels are baked in, the batch is free"


def _compare(model: SpikingBackbone, other: Any, x: Tensor, name: str) -> float:
    """Largest difference of a logit, on a full batch and on a smaller one.

    Raises:
        ValueError: It is beyond rounding, or a prediction changed.
    """
    with torch.no_grad():
        expected = model(x)
        found = torch.cat([other(x), other(x[:3])])
    error = float((found - torch.cat([expected, expected[:3]])).abs().max())
    if error > TOLERANCE or not torch.equal(found[: len(x)].argmax(1), expected.argmax(1)):
        raise ValueError(
            f"{name} differs from the network by {error:.2g} (at most {TOLERANCE:g}), so it is not written"
        )
    return error


# --- a network that exporters take in ------------------------------------------------------------------------


class _Kernel(nn.Module):
    """`Dendrites` with its kernel computed: exporters know no matrix exponential."""

    kernel: Tensor

    def __init__(self, dendrites: Dendrites) -> None:
        super().__init__()
        self.groups = dendrites.groups
        self.circular = dendrites.settings.padding == "circular"
        self.register_buffer("kernel", dendrites.kernel(dendrites.tokens).detach())

    def forward(self, u: Tensor) -> Tensor:
        convolve = circular_convolution if self.circular else causal_convolution
        y: Tensor = convolve(self.kernel, u.reshape(-1, *u.shape[-3:])).unflatten(0, u.shape[:-3])
        return y


class _Pure(nn.Module):
    """`LIF` without writes into tensors, each of which costs an exporter several nodes; the same arithmetic."""

    def __init__(self, neuron: LIF) -> None:
        super().__init__()
        self.decay, self.threshold = 1 / neuron.settings.tau, neuron.settings.threshold

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = x[0] * self.decay, []
        for t, x_t in enumerate(x.unbind()):
            v = torch.lerp(v, x_t, self.decay) if t > 0 else v
            spikes.append((v >= self.threshold).to(x.dtype))
            v = v - v * spikes[-1]
        return torch.stack(spikes)


def fixed(model: SpikingBackbone) -> SpikingBackbone:
    """A copy whose dendrites are constant kernels and whose neurons write into no tensor."""
    model = copy.deepcopy(model).eval()
    simpler: dict[type[nn.Module], Any] = {Dendrites: _Kernel, LIF: _Pure}
    for name, module in list(model.named_modules()):
        if type(module) in simpler:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, simpler[type(module)](module))
    return model


FORMATS: dict[str, Writer] = {
    "pt2": write_pt2,
    "streaming": write_streaming,
    "onnx": write_onnx,
    "nir": write_nir,
    "int8": write_int8,
}
