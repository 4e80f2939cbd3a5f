"""What the modules of a network do for one image, from shapes alone: no data, no weights, no arithmetic.

One rule per kind of module turns the shapes of a call into `Facts`. Spikes are gates: an operation on spikes happens
once per event, so its facts say how many there are if every input fires, and lrf_models/counters/events.py counts
the rest. Conventions are those of docs/counters.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrf_models.attention import SSA, CausalSSA, LRFDyn, Mixer, TokenQK, WithLocalField
from lrf_models.dynamics import Dendrites
from lrf_models.layers import BatchNorm2d, Conv2d, Edge, Gate, Linear, MatMul
from lrf_models.neurons import Neuron

SPIKES: tuple[Edge, ...] = ("binary", "integer")
Shape = Sequence[int]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What one module does in one inference of one image, all its calls and time steps together.

    Attributes:
        kind: conv, linear, matmul, gate, scan, sum, neuron, norm, pool, residual or attention.
        edges: Declared kinds of the operands.
        dense: Multiply-accumulates as if every input were non-zero, padding included, in the inference form.
        real: Those on real or analog operands, inside the map: they always happen.
        decay: Multiplications of a token scan by its constants: they always happen.
        gated: Those that only a spike triggers, inside the map.
        steps: Time steps of the operand; 1 for an image that is not repeated.
        inputs: Values of the (first) operand, one step. ``held``: weights or values that it meets.
        outputs: Values put out, all steps.
        adds: Additions and comparisons of biases, residual sums and pools.
        updates: Neuron updates. ``leaks`` are their multiplications.
        membranes: Neuron state that survives a time step, in values.
        recurrent: State of a token scan or KV form, in values. ``window``: rows that a local field waits for.
        maps: Spike maps that attention holds while it runs, in values. ``scores``: its N×N map.
        training: Multiply-accumulates of the parallel form of a scan.
    """

    kind: str
    edges: tuple[Edge, ...] = ()
    calls: int = 1
    dense: int = 0
    real: int = 0
    decay: int = 0
    gated: int = 0
    steps: int = 1
    inputs: int = 0
    held: int = 0
    outputs: int = 0
    adds: int = 0
    updates: int = 0
    leaks: int = 0
    membranes: int = 0
    recurrent: int = 0
    window: int = 0
    maps: int = 0
    scores: int = 0
    training: int = 0

    @property
    def dense_gated(self) -> int:
        """The dense operations that spikes gate, padding included."""
        return self.dense - self.decay - self.real if self.gated else 0

    @property
    def state(self) -> int:
        """Everything that survives a token or a time step, in values."""
        return self.membranes + self.recurrent + self.window

    def merge(self, other: Facts) -> Facts:
        """This module's next call, added."""
        once = {"kind", "edges", "steps", "inputs", "held", "membranes", "recurrent", "window", "maps", "scores"}
        fields = (field.name for field in dataclasses.fields(self) if field.name not in once)
        return dataclasses.replace(self, **{name: getattr(self, name) + getattr(other, name) for name in fields})


def _taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> list[np.ndarray]:
    """For each kernel position, the inputs of one dimension that it reads inside the map, one per output."""
    reads = ([o * stride - padding + j * dilation for o in range(out)] for j in range(kernel))
    return [np.array([i for i in places if 0 <= i < size], dtype=np.int64) for places in reads]


@lru_cache(maxsize=1024)
def _fan_out(shape: tuple[int, int], out: tuple[int, int], geometry: tuple[Any, ...], mask: Any) -> np.ndarray:
    kernel, stride, padding, dilation = geometry
    rows, columns = (
        [
            np.bincount(reads, minlength=shape[i])
            for reads in _taps(shape[i], out[i], kernel[i], stride[i], padding[i], dilation[i])
        ]
        for i in range(2)
    )
    total = np.zeros(shape, dtype=np.int64)
    for a, row in enumerate(rows):
        for b, column in enumerate(columns):
            if mask is None or mask[a][b]:
                total += np.outer(row, column)
    return total


def fan_out(conv: Conv2d, shape: tuple[int, int], out: tuple[int, int]) -> np.ndarray:
    """How many (output, tap) pairs of one input and one output channel read each place of a map [H, W].

    Taps outside the map and taps that a mask fixes at zero do not count.
    """
    assert not isinstance(conv.padding, str)
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    return _fan_out(shape, out, geometry, _mask(conv))


def _mask(conv: Conv2d) -> tuple[tuple[bool, ...], ...] | None:
    chain = getattr(conv, "parametrizations", None)
    masks = [] if chain is None else [part.mask for part in chain["weight"] if hasattr(part, "mask")]
    if not masks:
        return None
    return tuple(tuple(bool(tap) for tap in row) for row in masks[0].tolist())


def _split(edges: tuple[Edge, ...], amount: int) -> dict[str, int]:
    """An amount of operations as gated by spikes, or as real."""
    return {"gated": amount} if any(edge in SPIKES for edge in edges) else {"real": amount}


def _conv(conv: Conv2d, inputs: tuple[Tensor, ...], y: Tensor) -> Facts:
    shape, out = inputs[0].shape, y.shape
    per_group = conv.in_channels // conv.groups
    places = int(fan_out(conv, (shape[-2], shape[-1]), (out[-2], out[-1])).sum())
    steps = shape[:-3].numel()
    return Facts(
        "conv",
        (conv.edge,),
        dense=y.numel() * per_group * conv.kernel_size[0] * conv.kernel_size[1],
        steps=steps,
        inputs=shape[-3:].numel(),
        held=conv.out_channels * per_group * conv.kernel_size[0] * conv.kernel_size[1],
        outputs=y.numel(),
        **_split((conv.edge,), steps * places * conv.out_channels * per_group),
    )


def _linear(linear: Linear, inputs: tuple[Tensor, ...], y: Tensor) -> Facts:
    dense = y.numel() * linear.in_features
    return Facts(
        "linear",
        (linear.edge,),
        dense=dense,
        inputs=linear.in_features,
        held=linear.in_features * linear.out_features,
        outputs=y.numel(),
        adds=y.numel() if linear.bias is not None else 0,
        **_split((linear.edge,), dense),
    )


def _matmul(product: MatMul, inputs: tuple[Tensor, ...], y: Tensor) -> Facts:
    dense = y.numel() * inputs[0].shape[-1]
    steps = y.shape[0] if y.ndim > 2 else 1
    a, b = (x.numel() // steps for x in inputs)
    split = _split(product.edges, dense)
    return Facts("matmul", product.edges, dense=dense, steps=steps, inputs=a, held=b, outputs=y.numel(), **split)


def _gate(gate: Gate, inputs: tuple[Tensor, ...], y: Tensor) -> Facts:
    """A binary gate selects and is free; an integer one passes its operand once per spike."""
    if gate.edges[0] == "binary":
        return Facts("gate", gate.edges, outputs=y.numel())
    return Facts("gate", gate.edges, dense=y.numel(), outputs=y.numel(), **_split(gate.edges, y.numel()))


def decay_multiplications(dendrites: Dendrites) -> int:
    """Multiplications by decay constants and couplings, per channel and token: k, or 3k − 2 if tridiagonal.

    The circular operator runs over the tokens twice and carries the state at their end around:
    H_n = C(X_n + A^{n+1} X_{N−1} − A^N X_n), four products with A instead of one.
    """
    settings = dendrites.settings
    k = settings.dendrites
    products = 4 if settings.padding == "circular" else 1
    return products * (k if settings.coupling == "none" else 3 * k - 2)


def injections(dendrites: Dendrites) -> int:
    """Accumulations that one token spike causes in one channel: one per dendrite and pass."""
    return dendrites.settings.dendrites * (2 if dendrites.settings.padding == "circular" else 1)


def _scan(dendrites: Dendrites, inputs: tuple[Tensor, ...], y: Tensor) -> Facts:
    """The recurrent form; the parallel one is the cost of training."""
    k, (groups, width, tokens) = dendrites.settings.dendrites, y.shape[-3:]
    decay, inject = decay_multiplications(dendrites) * y.numel(), injections(dendrites) * y.numel()
    readout = k * y.numel()
    split = _split((dendrites.edge,), inject)
    return Facts(
        "scan",
        (dendrites.edge,),
        dense=decay + inject + readout,
        real=readout + split.get("real", 0),
        decay=decay,
        gated=split.get("gated", 0),
        steps=y.shape[0],
        inputs=y.numel() // y.shape[0],
        held=groups * (decay_multiplications(dendrites) + 2 * k),
        outputs=y.numel(),
        recurrent=groups * width * k,
        training=y.numel() * tokens,
    )


def _causal(mixer: CausalSSA, inputs: tuple[Tensor | None, ...], y: Tensor) -> Facts:
    """S_n = S_{n−1} + k_nᵀ v_n, Y_n = q_n S_n; the masked N×N map is the cost of training."""
    q, _, v = inputs
    assert q is not None
    assert v is not None
    tokens = v.shape[-2] * v.shape[-1]
    state = q.shape[-3] * v.shape[-3] // mixer.heads
    steps = v.shape[:-3].numel()
    return Facts(
        "scan",
        mixer.inner.edges,
        dense=2 * steps * tokens * state,
        gated=2 * steps * tokens * state,
        steps=steps,
        inputs=q.shape[-3:].numel(),
        held=state,
        outputs=y.numel(),
        recurrent=state,
        maps=_maps(mixer, inputs),
        training=steps * tokens * tokens * (q.shape[-3] + v.shape[-3]),
    )


def _maps(mixer: Mixer, inputs: tuple[Tensor | None, ...]) -> int:
    """Values of the spike maps that exist for this operator only, one time step."""
    held = (x for name, x in zip("qkv", inputs, strict=True) if name in mixer.needs and x is not None)
    return sum(x.shape[-3:].numel() for x in held)


def _ssa(mixer: SSA, inputs: tuple[Tensor | None, ...], y: Tensor) -> Facts:
    q, _, v = inputs
    assert q is not None
    assert v is not None
    tokens = v.shape[-2] * v.shape[-1]
    scores = mixer.heads * tokens * tokens if mixer.form == "qk" else 0
    recurrent = q.shape[-3] * v.shape[-3] // mixer.heads if mixer.form == "kv" else 0
    return Facts("attention", scores=scores, recurrent=recurrent, maps=_maps(mixer, inputs))


def _lrf_dyn(mixer: LRFDyn, inputs: tuple[Tensor | None, ...], y: Tensor) -> Facts:
    """A field on the membrane waits for the rows below it; one on the tokens reads maps that are held anyway."""
    s = mixer.settings
    height, width = y.shape[-2:]
    radius = s.radius if s.field == "membrane" else 0
    raster = height if s.scan == "column" else width
    span = radius * (raster + 1) * (1 if s.taps == "past" else 2) + 1 if radius else 0
    if s.scan == "bidirectional" or s.padding == "circular":
        span = height * width
    elif s.scan == "column" and s.taps == "past":
        span = radius * (raster + 1) * 2 + 1 if radius else 0  # its taps are past in raster order only
    return Facts("attention", window=min(span, height * width) * y.shape[-3], maps=_maps(mixer, inputs))


def _with_field(mixer: WithLocalField, inputs: tuple[Tensor | None, ...], y: Tensor) -> Facts:
    return Facts("attention", maps=_maps(mixer, inputs))


def _token_qk(mixer: TokenQK, inputs: tuple[Tensor | None, ...], y: Tensor) -> Facts:
    """The sum of q over a head's channels; the mask itself is free."""
    q = inputs[0]
    assert q is not None
    return Facts("sum", (mixer.edge,), dense=q.numel(), gated=q.numel(), maps=_maps(mixer, inputs))


def _neuron(neuron: Neuron, inputs: tuple[Tensor, ...], y: Tensor) -> Facts:
    steps = y.shape[0]
    state = neuron.states * y.numel()
    return Facts(
        "neuron",
        outputs=y.numel(),
        steps=steps,
        updates=y.numel(),
        leaks=neuron.multiplications * y.numel(),
        membranes=state // steps if steps > 1 else 0,
    )


def _norm(norm: BatchNorm2d, inputs: tuple[Tensor, ...], y: Tensor) -> Facts:
    """Folded into the operation before it; a bias stays."""
    return Facts("norm", outputs=y.numel(), adds=y.numel())


def _pool(pool: Any, inputs: tuple[Tensor, ...], y: Tensor) -> Facts:
    kernel = pool.kernel_size
    window = kernel**2 if isinstance(kernel, int) else torch.Size(kernel).numel()
    return Facts("pool", outputs=y.numel(), adds=y.numel() * (window - 1))


Rule = Callable[[Any, tuple[Any, ...], Tensor], Facts]

RULES: dict[type[nn.Module], Rule] = {
    Conv2d: _conv,
    Linear: _linear,
    MatMul: _matmul,
    Gate: _gate,
    Dendrites: _scan,
    CausalSSA: _causal,
    SSA: _ssa,
    LRFDyn: _lrf_dyn,
    WithLocalField: _with_field,
    TokenQK: _token_qk,
    Neuron: _neuron,
    BatchNorm2d: _norm,
    nn.MaxPool2d: _pool,
    nn.MaxPool3d: _pool,
    nn.AvgPool2d: _pool,
}

WHOLE = (CausalSSA, Dendrites)
"""Scans: priced as one operation in their recurrent form, whatever runs inside them."""

FREE = (nn.Identity, nn.Dropout, nn.Flatten)
"""Modules that do nothing at inference."""


def rule_of(module: nn.Module) -> Rule | None:
    """The rule of a module's class or of the nearest class that it derives from."""
    return next((RULES[base] for base in type(module).__mro__ if base in RULES), None)


def counted_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that have a rule, by name, each once; without those inside a scan."""
    found: dict[str, nn.Module] = {}
    whole: list[str] = []
    for name, module in model.named_modules():
        if rule_of(module) is None or any(name.startswith(scan) for scan in whole):
            continue
        found[name] = module
        if isinstance(module, WHOLE):
            whole.append(f"{name}." if name else "")
    return found


def foreign_modules(model: nn.Module) -> list[str]:
    """``name: class`` of the modules that may cost something that no rule knows."""
    known = counted_modules(model)
    inside = tuple(f"{name}." for name, module in known.items() if isinstance(module, WHOLE))
    foreign = []
    for name, module in model.named_modules():
        if name in known or name.startswith(inside) or ".parametrizations" in f".{name}" or isinstance(module, FREE):
            continue
        if rule_of(module) is None and (_is_leaf(module) or next(module.parameters(recurse=False), None) is not None):
            foreign.append(f"{name or 'model'}: {type(module).__name__}")
    return foreign


def _is_leaf(module: nn.Module) -> bool:
    containers = nn.ModuleList | nn.ModuleDict | nn.Sequential
    return next(module.children(), None) is None and not isinstance(module, containers)
