"""Second opinions on the dense count: torch's FlopCounterMode, fvcore, and what each of them cannot see.

Both run the parallel form of a scan, which is the cost of training; its module's share is set aside, and so are
batch normalisations, which fold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from lrf_models.counters.operations import WHOLE, counted_modules
from lrf_models.counters.trace import Trace

MULTIPLICATIVE = ("conv", "linear", "matmul")
"""Kinds of rows that other counters see too."""


def counted_macs(trace: Trace) -> int:
    """Our dense multiply-accumulates, without those that no other counter sees."""
    return sum(row.dense for row in trace.facts.values() if row.kind in MULTIPLICATIVE)


def scans(model: nn.Module) -> list[str]:
    """Names of the modules whose parallel form is not what inference costs."""
    return [name for name, module in counted_modules(model).items() if isinstance(module, WHOLE)]


def flop_counter_macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """FlopCounterMode/2 under FakeTensorMode, so without arithmetic. It must equal `counted_macs`."""
    counter = FlopCounterMode(display=False)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter:
        model.eval()(torch.empty(shape, device=device))
    counts = counter.get_flop_counts()
    root = type(model).__name__
    aside = sum(sum(counts.get(f"{root}.{name}", {}).values()) for name in scans(model))
    return (counter.get_total_flops() - aside) // 2


def fvcore_macs(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """fvcore's count by operator, which really runs the model once; without its line for batch normalisation.

    It sees nothing inside an ``autograd.Function``, so no gradients are recorded.
    """
    from fvcore.nn import FlopCountAnalysis

    analysis: Any = FlopCountAnalysis(model.eval(), torch.zeros(shape))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        total = dict(analysis.by_operator())
        by_module = analysis.by_module_and_operator()
    for name in scans(model):
        for operator, count in by_module[name].items():
            total[operator] -= count
    total.pop("batch_norm", None)
    return {operator: int(count) for operator, count in total.items() if count}


def spikingjelly_events(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Accumulates of one pass by SpikingJelly's ``op_counter``, which must be installed.

    It watches operators, not modules, and tells spikes from values by looking: an operand with any value above 1 is
    not spikes for it, so it equals our events where every edge is binary.
    """
    from spikingjelly.activation_based.op_counter import ACCounter, DispatchCounterMode

    counter = ACCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        module(*inputs)
    return int(counter.get_total())


def neurobench_events(layer: nn.Module, spikes: torch.Tensor) -> int:
    """Effective operations of one convolution or linear map by NeuroBench, which must be installed.

    It knows these layers only, so it sees no product of two activations.
    """
    from neurobench.metrics.utils.layers import single_layer_MACs

    with torch.no_grad():
        operations, _ = single_layer_MACs(spikes, layer)
    return int(operations)
