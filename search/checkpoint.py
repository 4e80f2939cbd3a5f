"""Weights, and the state of an unfinished training: files that are there whole or not at all."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

import fsspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

MODEL = "model.safetensors"
STATE = "checkpoint.pt"


def write(folder: str, name: str, content: bytes) -> None:
    """Put ``content`` into a file in one step: a reader, or a kill, sees the old file or the new one."""
    system, path = fsspec.core.url_to_fs(folder)
    system.makedirs(path, exist_ok=True)
    with system.open(f"{path}/.{name}.part", "wb") as file:
        file.write(content)
    system.mv(f"{path}/.{name}.part", f"{path}/{name}")


def read(folder: str, name: str) -> bytes | None:
    """The content of a file, or None if there is none."""
    system, path = fsspec.core.url_to_fs(folder)
    try:
        content: bytes = system.cat_file(f"{path}/{name}")
    except FileNotFoundError:
        return None
    return content


def remove(folder: str, name: str) -> None:
    """Remove a file of a trial's folder, a path or an fsspec address, if it is there."""
    system, path = fsspec.core.url_to_fs(folder)
    if system.exists(f"{path}/{name}"):
        system.rm_file(f"{path}/{name}")


def save_weights(folder: str, model: nn.Module, about: Mapping[str, str]) -> None:
    """Write ``model.safetensors`` with ``about`` in its header."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write(folder, MODEL, save_safetensors(tensors, dict(about)))


def load_weights(folder: str, model: nn.Module) -> None:
    """Fill ``model`` from ``model.safetensors``.

    Raises:
        ValueError: There is none, it is cut short, or it belongs to another architecture.
    """
    content = read(folder, MODEL)
    if content is None:
        raise ValueError(f"{folder}/{MODEL} does not exist")
    try:
        tensors = load_safetensors(content)
    except SafetensorError as error:
        raise ValueError(f"{folder}/{MODEL} is damaged or cut short: {error}") from None
    fill(model, tensors, f"{folder}/{MODEL}")


def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict; a ValueError names the first difference to the architecture."""
    own = model.state_dict()
    for name in own.keys() | tensors.keys():
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            here, there = (tuple(d[name].shape) if name in d else "nothing" for d in (own, tensors))
            raise ValueError(f"{source} is of another architecture: {name!r} is {here} here and {there} there")
    model.load_state_dict(tensors)


class Checkpointer:
    """Saves the state of a training now and then.

    Args:
        folder: Where ``checkpoint.pt`` goes.
        every: Seconds between two saves, more where a save takes longer than a fiftieth of them; 0 saves always.
    """

    def __init__(self, folder: str, every: float) -> None:
        self.folder, self.every = folder, every
        self._due = time.monotonic() + every

    def offer(self, state: dict[str, Any]) -> None:
        """Save if it is time to. Only tensors and plain values: it is read back with ``weights_only=True``."""
        started = time.monotonic()
        if started < self._due:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write(self.folder, STATE, buffer.getvalue())
        now = time.monotonic()
        self._due = now + (max(self.every, 50 * (now - started)) if self.every else 0.0)

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None.

        Raises:
            ValueError: The file is damaged; it names the file.
        """
        content = read(self.folder, STATE)
        if content is None:
            return None
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{self.folder}/{STATE} is damaged or cut short: {reason}") from None
        return state
