"""Live bytes of a forward pass, to the byte of what torch allocates, and the analytic meanings of memory.

The four meanings (docs/counters.md): weights; state that survives a token or a time step; the working set of an
attention block; the peak of live bytes. The first three follow from `operations.Facts` and the weights, the last
from running a pass, or from a pass over shapes (lrf_models/counters/trace.py), which gives the same number.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lrf_models.counters.operations import Facts


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage from its first appearance as a result until it is freed.

    Weights are no results, so they do not count; nor does scratch memory inside a kernel. Use it under ``no_grad``.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled under this mode; torch's guard would cost a fifth of the time of an operator."""
        return False

    def watch(self, tensor: Tensor) -> None:
        """Count a tensor's storage from now on."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive[key] = weakref.ref(storage, lambda _: self._free(key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _free(self, key: int, size: int) -> None:
        del self._alive[key]
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if is_fresh(func):
            self.watch_results(result)
        return result

    def watch_results(self, result: Any) -> None:
        """Watch the tensors that an operator returns."""
        for value in result if isinstance(result, list | tuple) else (result,):
            if isinstance(value, Tensor):
                self.watch(value)


@cache
def is_fresh(func: Any) -> bool:
    """Whether an operator's results are neither views of its arguments nor the arguments themselves."""
    return all(value.alias_info is None for value in func._schema.returns)


def peak_bytes(model: nn.Module, x: Tensor) -> int:
    """Peak of the live bytes beyond the weights in a forward pass that really runs, the input included.

    On CUDA these are the bytes requested from the allocator after a warm-up; elsewhere `LiveBytes`.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            if x.device.type == "cuda":
                return _peak_of_allocator(model, x)
            with LiveBytes() as tracker:
                tracker.watch(x)
                model(x)
        return tracker.peak
    finally:
        for module, flag in training.items():
            module.training = flag


def _peak_of_allocator(model: nn.Module, x: Tensor) -> int:
    model(x)
    torch.cuda.synchronize(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    before = torch.cuda.memory_stats(x.device)["requested_bytes.all.current"]
    model(x)
    torch.cuda.synchronize(x.device)
    peak: int = torch.cuda.memory_stats(x.device)["requested_bytes.all.peak"]
    return peak - before + x.untyped_storage().nbytes()


def weight_values(model: nn.Module) -> int:
    """Parameters and floating-point buffers of the state dictionary, each once."""
    tensors = {id(value): value for value in model.state_dict(keep_vars=True).values()}
    return sum(value.numel() for value in tensors.values() if value.is_floating_point())


def state_values(rows: Iterable[Facts]) -> int:
    """Membranes, KV states, dendrites and window buffers of the whole network."""
    return sum(facts.state for facts in rows)


def attention_values(rows: Iterable[Facts]) -> int:
    """Spike maps and scores of the most expensive attention block; its state is counted as state."""
    return max((facts.maps + facts.scores for facts in rows), default=0)


def attention_blocks(rows: Mapping[str, Facts]) -> dict[str, dict[str, int]]:
    """Per attention block and time step: maps, scores, recurrent state and window, in values."""
    blocks: dict[str, dict[str, int]] = {}
    for name, facts in sorted(rows.items()):  # a block before its parts
        if not (facts.maps or facts.scores or facts.recurrent or facts.window):
            continue
        parts = {"maps": facts.maps, "scores": facts.scores, "recurrent": facts.recurrent, "window": facts.window}
        outer = next((block for block in blocks if name.startswith(f"{block}.")), name)
        block = blocks.setdefault(outer, dict.fromkeys(parts, 0))
        for part, values in parts.items():
            block[part] = max(block[part], values) if part == "maps" else block[part] + values
    return blocks
