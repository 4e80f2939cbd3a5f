"""Weights as 8-bit integers, with the accuracy that is left."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from results.describe import show
from results.export import Parcel
from search.evaluate import evaluate

FILE = "model.int8.safetensors"


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric, one scale per output channel: ``weight ≈ integers · scale``; integers in −127..127."""
    scale = weight.abs().flatten(1).amax(1).clamp(min=1e-12) / 127
    shape = (-1, *[1] * (weight.ndim - 1))
    return torch.round(weight / scale.view(shape)).to(torch.int8), scale


def dequantised(integers: Tensor, scale: Tensor) -> Tensor:
    """Weights from ``integers`` [c, …] and one ``scale`` per output channel [c], in the shape of the integers."""
    return integers.float() * scale.view(-1, *[1] * (integers.ndim - 1))


def weight_names(model: nn.Module) -> list[str]:
    """State-dict names of what is quantised: weights of convolutions and linear maps; the rest is small."""
    kinds = (nn.Conv2d, nn.Linear)
    return [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, kinds)]


def write_int8(parcel: Parcel, folder: Path) -> None:
    """``model.int8.safetensors``: ``NAME`` as int8 with ``NAME.scale``; everything else as it is.

    Accuracy is measured on the validation part with the weights read back from the file.
    """
    state = parcel.model.state_dict()
    names = [name for name in weight_names(parcel.model) if name in state]
    tensors = {name: value.detach().contiguous() for name, value in state.items() if name not in names}
    for name in names:
        tensors[name], tensors[f"{name}.scale"] = quantised(state[name].detach())
    (folder / FILE).write_bytes(save(tensors, metadata={"format": "pt", "identity": parcel.record.identity}))

    model = copy.deepcopy(parcel.model)
    model.load_state_dict(read_int8(folder / FILE))
    before = evaluate(parcel.model, parcel.data.validation).metrics["accuracy"]
    after = evaluate(model, parcel.data.validation).metrics["accuracy"]
    ratio = (folder / FILE).stat().st_size / (folder / "model.safetensors").stat().st_size
    parcel.notes.append(
        f"`{FILE}`: weights of convolutions and linear maps as int8, one scale per output channel; {ratio:.0%} of "
        f"the bytes; validation accuracy {show('accuracy', after)} against {show('accuracy', before)} in float32"
    )


def read_int8(path: Path) -> dict[str, Tensor]:
    """The state dict of a quantised export, in float32."""
    tensors = load_file(path)
    scales = {name.removesuffix(".scale"): value for name, value in tensors.items() if name.endswith(".scale")}
    plain = {name: value for name, value in tensors.items() if not name.endswith(".scale")}
    return {name: dequantised(v, scales[name]) if name in scales else v for name, v in plain.items()}
