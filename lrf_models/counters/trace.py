"""A forward pass over shapes: no data and no arithmetic, but every operator, every module and every byte.

Tensors live on the meta device. Torch computes the shape of a meta result in Python, about 0.3 ms an operator; as
operators repeat, results are remembered by operator and shapes, which is what makes a price cheap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lrf_models.counters.memory import LiveBytes, is_fresh
from lrf_models.counters.operations import SPIKES, WHOLE, Facts, counted_modules, foreign_modules, rule_of
from lrf_models.neurons import Neuron

aten = torch.ops.aten

WEIGHTED = {
    *(aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.addbmm, aten.mv, aten.addmv, aten.dot, aten.vdot),
    *(aten.convolution, aten._scaled_dot_product_flash_attention_for_cpu, aten._scaled_dot_product_flash_attention),
    *(aten._scaled_dot_product_attention_math, aten._scaled_dot_product_efficient_attention),
    *(aten._fft_r2c, aten._fft_c2r, aten._fft_c2c, aten.linalg_matrix_exp),
}
"""Operators that must not run outside a counted module."""

SUMS = {aten.add, aten.add_}


@dataclasses.dataclass(frozen=True)
class Row:
    """A module's facts and, for its spike operands, the largest value that each can carry."""

    facts: Facts
    bounds: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Trace:
    """What one inference of one image does.

    Attributes:
        rows: By module name, in the order of execution.
        peak_bytes: Peak of the live bytes beyond the weights, the input included.
        ledger: What was not counted; empty for our own models.
    """

    rows: dict[str, Row]
    peak_bytes: int
    ledger: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Facts]:
        return {name: row.facts for name, row in self.rows.items()}


class _Operator(NamedTuple):
    written: int | str | None  # the argument that it writes to and returns
    view: bool
    device: bool
    noted: bool  # whether it may be loose: a weighted operation, or a sum
    combine: Callable[[list[float]], float]  # a bound of its result from those of its arguments


@cache
def _describe(func: Any) -> _Operator:
    """A sum is bounded by the sum of bounds, a product by the product, anything else by the largest."""
    arguments, packet = func._schema.arguments, func.overloadpacket
    writes = [
        argument.name if argument.kwarg_only else i
        for i, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return _Operator(
        writes[0] if writes else None,
        not writes and (not is_fresh(func) or func is aten._unsafe_view.default),
        any(argument.name == "device" for argument in arguments),
        packet in WEIGHTED or packet in SUMS,
        sum if packet in SUMS else math.prod if packet in (aten.mul, aten.mul_) else max,
    )


class _Spec(NamedTuple):
    """A tensor to be, as a result is remembered."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


_REMEMBERED: dict[Any, Any] = {}
_LIMIT = 50_000


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Spec(tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return tuple(_key(item) for item in value)
    return value


class Shapes(LiveBytes):
    """Runs operators on shapes, tracks live bytes, and bounds the values that spikes and their sums can take."""

    def __init__(self) -> None:
        super().__init__()
        self._bounds: dict[int, float] = {}
        self.on_operator: Callable[[Any, Any], None] | None = None
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = _describe(func)
        if operator.view or self.paused:
            return func(*args, **(kwargs or {}))
        if operator.written is not None:
            result = args[operator.written] if isinstance(operator.written, int) else kwargs[operator.written]
        else:
            result = self._shape_of(func, operator, args, kwargs or {})
        if self.on_operator is not None:
            if operator.written is None:
                self.watch_results(result)
            if self._bounds:
                first = result[0] if isinstance(result, list | tuple) else result
                self._propagate(operator, args, first)
            if operator.noted:
                self.on_operator(func, result)
        return result

    def _shape_of(self, func: Any, operator: _Operator, args: Any, kwargs: Any) -> Any:
        key = (func, _key(args), tuple((name, _key(value)) for name, value in kwargs.items()))
        if key not in _REMEMBERED:
            if len(_REMEMBERED) >= _LIMIT:
                _REMEMBERED.clear()
            args, kwargs = tree_map_only(Tensor, lambda t: _key(t).make(), (args, kwargs))
            if operator.device:
                kwargs = {**kwargs, "device": torch.device("meta")}
            result = func(*args, **kwargs)
            if func is aten.native_batch_norm.default and not args[5]:  # a CPU saves no statistics in evaluation
                result = (result[0], result[1].new_empty(0), result[2].new_empty(0))
            _REMEMBERED[key] = tree_map_only(Tensor, _key, result)
        return _revive(_REMEMBERED[key])

    def bound(self, tensor: Tensor, value: float | None = None) -> float:
        """The largest value that a tensor can hold, 1 if nothing is known; set it by giving one."""
        key = tensor.untyped_storage()._cdata
        if value is not None:
            self._bounds[key] = value
        return self._bounds.get(key, 1.0)

    def _free(self, key: int, size: int) -> None:
        super()._free(key, size)
        self._bounds.pop(key, None)

    def _propagate(self, operator: _Operator, args: Any, result: Tensor) -> None:
        keys = [arg.untyped_storage()._cdata for arg in args if isinstance(arg, Tensor)]
        known = [self._bounds[key] for key in keys if key in self._bounds]
        if known:
            self.bound(result, operator.combine(known))


def _revive(result: Any) -> Any:
    if isinstance(result, _Spec):
        return result.make()
    if isinstance(result, list | tuple):
        return type(result)(_revive(item) for item in result)
    return result


class _Recorder:
    """Turns the modules and loose operators of one pass into rows and a ledger."""

    def __init__(self, model: nn.Module, shapes: Shapes) -> None:
        self.shapes = shapes
        self.rows: dict[str, Row] = {}
        self.loose: dict[str, int] = {}
        self.counted = counted_modules(model)
        self.stack: list[str] = []
        self.inside = 0  # depth of modules whose operators belong to their row
        self.scans = 0

    def enter(self, name: str) -> None:
        self.stack.append(name)
        module = self.counted.get(name)
        self.inside += module is not None
        self.scans += isinstance(module, WHOLE)

    def leave(self, name: str, module: nn.Module, inputs: tuple[Any, ...], result: Any) -> None:
        self.stack.pop()
        if name not in self.counted:
            return
        self.inside -= 1
        self.scans -= isinstance(module, WHOLE)
        rule = rule_of(module)
        assert rule is not None
        self.shapes.paused = True
        self._add(name, rule(module, inputs, result), inputs)
        self.shapes.paused = False
        if isinstance(module, Neuron):
            levels = getattr(getattr(module, "settings", None), "levels", 1)
            self.shapes.bound(result, float(levels if module.edge == "integer" else 1))

    def operator(self, func: Any, result: Any) -> None:
        """An operator outside every rule: a residual sum, the mean before the head, or something foreign."""
        if self.scans or not self.stack:
            return
        place, packet = self.stack[-1], func.overloadpacket
        if packet in WEIGHTED and place not in self.counted:
            entry = f"{place or 'model'}: {packet.__name__}"
            self.loose[entry] = self.loose.get(entry, 0) + 1
        elif self.inside == 0 and packet in SUMS:
            self._add(f"{place or 'model'}.sum", Facts("residual", outputs=result.numel(), adds=result.numel()), ())

    def _add(self, name: str, facts: Facts, inputs: tuple[Any, ...]) -> None:
        bounds = tuple(
            self.shapes.bound(x)
            for x, edge in zip(inputs, facts.edges, strict=False)
            if isinstance(x, Tensor) and edge in SPIKES
        )
        before = self.rows.get(name)
        if before is not None:
            facts = before.facts.merge(facts)
            bounds = tuple(map(max, bounds, before.bounds))
        self.rows[name] = Row(facts, bounds)


@contextmanager
def _hooked(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda _m, _x, name=name: recorder.enter(name)))
            handles.append(module.register_forward_hook(lambda m, x, y, name=name: recorder.leave(name, m, x, y)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, shape: tuple[int, ...], *, strict: bool = False) -> Trace:
    """Trace a model in evaluation mode for one image ``[1, C, H, W]`` or frames ``[T, 1, C, H, W]``.

    The model may hold real weights or none (`shell`); it is not changed.

    Raises:
        ValueError: ``strict``, and something was not counted.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    shapes = Shapes()
    recorder = _Recorder(model, shapes)
    try:
        with torch.no_grad(), _hooked(model, recorder), shapes:
            x = torch.empty(shape)
            shapes.watch(x)
            shapes.on_operator = recorder.operator
            model(x)
    finally:
        for module, flag in training.items():
            module.training = flag
    loose = [f"{place} outside a counted module, {n}×" for place, n in recorder.loose.items()]
    ledger = (*foreign_modules(model), *loose)
    if strict and ledger:
        raise ValueError(f"nothing may go uncounted, but got no rule for {'; '.join(ledger)}")
    return Trace(recorder.rows, shapes.peak, ledger)


def shell(build: Callable[[], nn.Module]) -> nn.Module:
    """A model without memory for its weights, and without the time to draw them."""
    with Shapes():
        return build()
