"""How often spikes really trigger an operation: exact events of every image of a data set.

Hooks look at the operands of the counted modules and leave everything else alone. Sums are exact; every number is per
image, so its standard error is one over images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lrf_models.attention import CausalSSA, TokenQK
from lrf_models.counters.operations import SPIKES, counted_modules, fan_out, injections
from lrf_models.dynamics import Dendrites
from lrf_models.layers import Conv2d, Edge, Gate, Linear, MatMul
from lrf_models.neurons import Neuron


class Events(NamedTuple):
    """What spikes triggered in one module, for every image: float64 ``[n]``.

    Attributes:
        events: Operations that a non-zero input triggers. ``values``: the same with a value v as v spikes.
        rate: Mean value of the gating operand, the lower one of two: what `paper` multiplies dense operations by.
    """

    events: Tensor
    values: Tensor
    rate: Tensor


class Spikes:
    """A spike operand ``[T, B, ...]`` of a module, its kind asserted.

    Raises:
        ValueError: A value is not of the declared kind.
    """

    def __init__(self, x: Tensor, edge: Edge, features: int, batch: int, name: str) -> None:
        self.x = _by_step(x.detach(), features, batch, name)
        # Both are zero for good values only, whatever the rounding; to compare with a copy takes four times as long.
        off = torch.addcmul(self.x, self.x, self.x, value=-1) if edge == "binary" else self.x.frac()
        if off.count_nonzero():
            law = "0 and 1" if edge == "binary" else "whole numbers"
            wrong = self.x[off != 0]
            raise ValueError(
                f"{name} declares a {edge} input, which holds {law} only, but got {wrong.flatten()[0].item():g}"
            )
        # Counts stay floats: to sum up booleans, torch makes a copy of them in int64.
        self.values = self.x if edge == "binary" else self.x.abs().double()
        self.fired = self.x if edge == "binary" else (self.x != 0).float()

    @cached_property
    def totals(self) -> tuple[Tensor, Tensor]:
        """Number of spikes, and the sum of their values, of every image."""
        values = _total(self.values)
        return (values if self.fired is self.values else _total(self.fired)), values

    def rate(self) -> Tensor:
        """Mean value per image."""
        return self.totals[1] / (self.x.numel() / self.x.shape[1])

    def each(self, operations: int) -> Events:
        """Events where every spike triggers so many operations."""
        fired, values = self.totals
        return Events(fired * operations, values * operations, self.rate())


def _by_step(x: Tensor, features: int, batch: int, name: str) -> Tensor:
    """``[T, B, features...]`` from that, from ``[B, features...]``, or from ``[T·B, features...]``, steps first."""
    lead = x.ndim - features
    if lead >= 2 and x.shape[1] == batch:
        return x
    if lead == 1 and x.shape[0] % batch == 0:
        return x.unflatten(0, (-1, batch))
    raise ValueError(
        f"{name} got an input {list(x.shape)}, in which the {batch} images of the batch are not to be seen"
    )


def _sum(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """A sum in float64, taken in float32 where that is exact: up to 2²⁴ zeros and ones."""
    ones = math.prod(values.shape[dim] for dim in dims)
    exact = torch.float32 if values.dtype != torch.float64 and ones <= 2**24 else torch.float64
    return values.sum(dims, dtype=exact).double() if dims else values.double()


def _total(values: Tensor) -> Tensor:
    """The sum over all but the images: ``[T, B, ...] → [B]``, float64."""
    return _sum(values, tuple(range(2, values.ndim))).sum(0)


# --- one rule per kind of module: (module, inputs, output, batch, name) → Events ---------------------------------


def _conv(conv: Conv2d, inputs: tuple[Tensor, ...], y: Tensor, batch: int, name: str) -> Events:
    s = Spikes(inputs[0], conv.edge, 3, batch, name)
    shape, out = s.x.shape[-2:], y.shape[-2:]
    taps = torch.from_numpy(fan_out(conv, (shape[0], shape[1]), (out[0], out[1]))).to(s.x.device)
    per_input = conv.out_channels // conv.groups

    def weighted(values: Tensor) -> Tensor:
        return (_sum(values, (2,)).sum(0) * taps).flatten(1).sum(1) * per_input

    return Events(weighted(s.fired), weighted(s.values), s.rate())


def _linear(linear: Linear, inputs: tuple[Tensor, ...], y: Tensor, batch: int, name: str) -> Events:
    s = Spikes(inputs[0], linear.edge, 1, batch, name)
    return s.each(linear.out_features)


def _matmul(product: MatMul, inputs: tuple[Tensor, ...], y: Tensor, batch: int, name: str) -> Events:
    """Coincidences of two spike operands; with one, each of its spikes reads a row or column of the other."""
    features = min(3, inputs[0].ndim - 1)
    pair = [
        Spikes(x, edge, features, batch, f"{name}[{i}]") if edge in SPIKES else None
        for i, (x, edge) in enumerate(zip(inputs, product.edges, strict=True))
    ]
    match pair:
        case [Spikes() as a, Spikes() as b]:
            both = [_total(_sum(p, (-2,)) * _sum(q, (-1,))) for p, q in ((a.fired, b.fired), (a.values, b.values))]
            return Events(both[0], both[1], torch.minimum(a.rate(), b.rate()))
        case [Spikes() as s, _]:
            width = y.shape[-1]
        case [_, Spikes() as s]:
            width = y.shape[-2]
    return s.each(width)


def _gate(gate: Gate, inputs: tuple[Tensor, ...], y: Tensor, batch: int, name: str) -> Events | None:
    """A binary gate is free, but its kind is asserted; an integer one passes its operand once per spike."""
    features = min(3, inputs[0].ndim - 1)
    a = Spikes(inputs[0], gate.edges[0], features, batch, f"{name}[0]")
    if gate.edges[0] == "binary":
        return None
    if gate.edges[1] not in SPIKES:
        return a.each(1)
    b = Spikes(inputs[1], gate.edges[1], features, batch, f"{name}[1]")
    both = _total(a.fired * b.fired), _total(a.values * b.values)
    return Events(*both, torch.minimum(a.rate(), b.rate()))


def _scan(dendrites: Dendrites, inputs: tuple[Tensor, ...], y: Tensor, batch: int, name: str) -> Events:
    s = Spikes(inputs[0], dendrites.edge, 3, batch, name)
    return s.each(injections(dendrites))


def _causal(mixer: CausalSSA, inputs: tuple[Tensor, ...], y: Tensor, batch: int, name: str) -> Events:
    """Coincidences of k_n and v_n into the state, and a row of the state for every spike of q_n."""
    edge = mixer.inner.edges[0]
    q, k, v = (Spikes(x, edge, 3, batch, f"{name}.{n}") for x, n in zip(inputs, "qkv", strict=True))
    width = v.x.shape[-3] // mixer.heads

    def per_head(values: Tensor) -> Tensor:
        return _sum(values.unflatten(-3, (mixer.heads, -1)), (-3,))

    def total(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _total(per_head(k) * per_head(v)) + _total(q) * width

    rate = (torch.minimum(k.rate(), v.rate()) + q.rate()) / 2
    return Events(total(q.fired, k.fired, v.fired), total(q.values, k.values, v.values), rate)


def _token_qk(mixer: TokenQK, inputs: tuple[Tensor, ...], y: Tensor, batch: int, name: str) -> Events:
    s = Spikes(inputs[0], mixer.edge, 3, batch, f"{name}.q")
    return s.each(1)


def _neuron(neuron: Neuron, inputs: tuple[Tensor, ...], y: Tensor, batch: int, name: str) -> Events:
    s = Spikes(y, neuron.edge, max(y.ndim - 2, 0), batch, name)
    return s.each(1)


_RULES: dict[type[nn.Module], Callable[..., Events | None]] = {
    Conv2d: _conv,
    Linear: _linear,
    MatMul: _matmul,
    Gate: _gate,
    Dendrites: _scan,
    CausalSSA: _causal,
    TokenQK: _token_qk,
    Neuron: _neuron,
}


def _rule_of(module: nn.Module) -> Callable[..., Events | None] | None:
    """The rule of a module that spikes drive."""
    edges: Any = getattr(module, "edges", None) or (getattr(module, "edge", None),)
    if isinstance(module, Conv2d | Linear | MatMul | Dendrites | Gate) and not any(edge in SPIKES for edge in edges):
        return None
    return next((_RULES[base] for base in type(module).__mro__ if base in _RULES), None)


class Counter:
    """Events of the images that pass through a model, by module; see `counting`."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.images = 0
        self.shape: tuple[int, ...] = ()
        self._batch = 0
        self._tracing = False
        self._passes: dict[str, list[Events]] = {}  # of the pass that runs
        self._batches: dict[str, list[Events]] = {}

    def events(self) -> dict[str, Events]:
        """By module, over all images counted so far.

        Raises:
            ValueError: There are fewer than two images, too few for a standard error.
        """
        if self.images < 2:
            raise ValueError(f"a standard error over images needs two images or more, but got {self.images}")
        return {
            name: Events(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
            for name, batches in self._batches.items()
        }

    def _begin(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        self._tracing = x.device.type == "meta"  # lrf_models/counters/trace.py runs the model on shapes
        if self.model.training:
            raise ValueError("events are counted in evaluation mode, but the model is in training mode")
        if self._tracing:
            return
        place = 1 if x.ndim == 5 else 0
        self._batch = x.shape[place]
        if x.numel() == 0:
            raise ValueError(f"a batch must hold at least one image, but got {list(x.shape)}")
        self.shape = (*x.shape[:place], 1, *x.shape[place + 1 :])
        self._passes = {}

    def _count(self, name: str, rule: Any, module: nn.Module, inputs: Any, y: Tensor) -> None:
        if self._tracing:
            return
        if not self._batch:
            raise ValueError("events are counted over whole passes, model(x), not over a part of it")
        with torch.no_grad():
            found = rule(module, inputs, y, self._batch, name or "model")
        if found is not None:
            self._passes.setdefault(name, []).append(Events(*(part.cpu() for part in found)))

    def _end(self, *_: Any) -> None:
        if self._tracing:
            self._tracing = False
            return
        for name, calls in self._passes.items():
            events, values, rates = (torch.stack(parts) for parts in zip(*calls, strict=True))
            once = Events(events.sum(0), values.sum(0), rates.mean(0))
            self._batches.setdefault(name, []).append(once)
        self.images += self._batch
        self._batch = 0


@contextmanager
def counting(model: nn.Module) -> Iterator[Counter]:
    """Count the events of every ``model(x)`` inside: ``with counting(model) as counter: model(x)``.

    The model must be in evaluation mode. Outputs, RNG and statistics are untouched; the hooks go when the context
    ends, also by an exception. Declared kinds are asserted on values.
    """
    counter = Counter(model)
    handles = []
    try:
        handles.append(model.register_forward_pre_hook(counter._begin))
        for name, module in counted_modules(model).items():
            if (rule := _rule_of(module)) is not None:
                hook = _bind(counter, name, rule)
                handles.append(module.register_forward_hook(hook))
        handles.append(model.register_forward_hook(counter._end))
        yield counter
    finally:
        for handle in handles:
            handle.remove()


def _bind(counter: Counter, name: str, rule: Any) -> Callable[[nn.Module, Any, Tensor], None]:
    return lambda module, inputs, y: counter._count(name, rule, module, inputs, y)
