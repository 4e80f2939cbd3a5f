"""Runs a NIR graph, from the graph alone: the check that results/nir_graph.py wrote what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def run(graph: Any, images: Tensor) -> Tensor:
    """Logits ``[B, classes]`` of ``images`` [B, C, H, W], shown for all time steps.

    Raises:
        ValueError: The graph holds a node that is not known here.
    """
    steps = int(_plain(graph.metadata["timesteps"]))
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        before[target].append(source)
    values: dict[str, Tensor] = {}
    for name in TopologicalSorter(before).static_order():
        if not before[name]:
            values[name] = images.expand(steps, *images.shape)
        else:
            total = sum((values[source] for source in before[name][1:]), values[before[name][0]])
            values[name] = _node(name, graph.nodes[name], total)
    return values["output"].mean(0)


def _node(name: str, node: Any, x: Tensor) -> Tensor:
    """One node on ``x`` [T, B, ...]."""
    flat = x.flatten(0, 1)
    match type(node).__name__:
        case "Conv2d":
            w, b = _tensor(node.weight), _tensor(node.bias)
            stride, padding, dilation = (_pair(v) for v in (node.stride, node.padding, node.dilation))
            y = F.conv2d(flat, w, b, stride, padding, dilation, int(node.groups))
        case "LIF" | "IF":
            return torch.stack(list(_fire(node, x)))
        case "SumPool2d" | "AvgPool2d":
            size, stride, padding = (_pair(v) for v in (node.kernel_size, node.stride, node.padding))
            divisor = 1 if type(node).__name__ == "SumPool2d" else None
            y = F.avg_pool2d(flat, size, stride, padding, divisor_override=divisor)
        case "Threshold":
            return (x > _tensor(node.threshold)).float()
        case "Flatten":
            return x.flatten(2)
        case "Affine":
            return x @ _tensor(node.weight).T + _tensor(node.bias)
        case "NIRGraph":
            return _over_tokens(node, x)
        case "Output":
            return x
        case other:
            raise ValueError(f"node {name!r} is a {other}, which this reader does not know")
    folded: Tensor = y.unflatten(0, x.shape[:2])
    return folded


def _fire(node: Any, x: Tensor) -> Iterator[Tensor]:
    """Forward Euler at dt = 1 with reset to v_reset."""
    threshold, reset, r = _tensor(node.v_threshold), _tensor(node.v_reset), _tensor(node.r)
    v = torch.zeros_like(x[0])
    for current in x:
        if type(node).__name__ == "LIF":
            v = v + (_tensor(node.v_leak) - v + r * current) / _tensor(node.tau)
        else:
            v = v + r * current
        spikes = v > threshold
        yield spikes.float()
        v = torch.where(spikes, reset, v)


def _over_tokens(graph: Any, x: Tensor) -> Tensor:
    """Coupled leaky integrators over the tokens of a map ``[T, B, C, H, W]``, inputs held for one token each."""
    nodes = graph.nodes
    tau, r = _tensor(nodes["dendrites"].tau), _tensor(nodes["dendrites"].r)
    gamma, readout = _tensor(nodes["gamma"].weight), _tensor(nodes["readout"].weight)
    size, channels = gamma.shape
    generator = torch.zeros(size + channels, size + channels)
    generator[:size, :size] = -torch.diag(1 / tau)
    if "coupling" in nodes:
        generator[:size, :size] += (r / tau)[:, None] * _tensor(nodes["coupling"].weight)
    generator[:size, size:] = (r / tau)[:, None] * gamma
    step = torch.linalg.matrix_exp(generator.double()).float()
    order = str(_plain(graph.metadata["order"]))
    if order == "column":
        x = x.transpose(-1, -2)
    tokens = x.flatten(-2).unbind(-1)
    state = torch.zeros(*x.shape[:2], size)
    found = []
    for u in reversed(tokens) if order == "reversed" else tokens:
        state = state @ step[:size, :size].T + u @ step[:size, size:].T
        found.append(state @ readout.T)
    y: Tensor = torch.stack(found[::-1] if order == "reversed" else found, -1).unflatten(-1, x.shape[-2:])
    return y.transpose(-1, -2) if order == "column" else y


def _pair(value: Any) -> tuple[int, int]:
    a, b = np.broadcast_to(value, 2)
    return int(a), int(b)


def _tensor(array: Any) -> Tensor:
    return torch.as_tensor(np.asarray(array, dtype=np.float32))


def _plain(value: Any) -> Any:
    """HDF5 gives back bytes and arrays without dimensions."""
    if isinstance(value, np.ndarray):
        value = value.item()
    return value.decode() if isinstance(value, bytes) else value
