"""Linear operations that know what arrives on their inputs.

Every weighted operation of a model is one of these modules (or a token scan, lrf_models/dynamics.py), so a
counter sees all of them, and the builder declares the kind of each input once:

* ``analog``: pixels; every value costs a multiply-accumulate.
* ``binary``: spikes; a one costs an accumulate per synapse, a zero nothing.
* ``integer``: sums of spikes; a value v is v spikes.
* ``real``: membrane values and sums that the receiver holds; multiply-accumulates, unless a spike meets them.

Shape suffixes, here and in all models: T time steps, B images, C channels, H W map, N = H·W tokens,
h heads, d channels per head, G groups of dynamics, k dendrites.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Edge = Literal["analog", "binary", "integer", "real"]


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` on the last three dimensions of ``[..., C, H, W]``, with a declared input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        edge: Edge,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        folded = x.flatten(0, -4)
        y = self._on_cpu(folded) if x.device.type == "cpu" else super().forward(folded)
        return y.view(*x.shape[:-3], *y.shape[1:])

    def _on_cpu(self, x: Tensor) -> Tensor:
        """The same values by whichever of torch's operations is fastest (docs/operators.md)."""
        if (
            self.stride == (1, 1)
            and self.kernel_size == (1, 1)
            and self.groups == 1
            and x.is_contiguous(memory_format=torch.channels_last)
        ):
            y = torch.nn.functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            return y.permute(0, 3, 1, 2)
        depthwise = self.groups == self.in_channels == self.out_channels and self.bias is None
        training = torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        if self.stride == (1, 1) and depthwise and self.dilation[0] > 1 and training:
            return cast(Tensor, _DilatedDepthwise.apply(x, self.weight, self.dilation[0]))  # type: ignore[no-untyped-call]
        return super().forward(x)


class _DilatedDepthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 for the CPU, where torch's own backward takes ten times its forward.

    The gradient of the input is a convolution with the turned kernel; that of a tap is the inner product of the
    output's gradient and the shifted input, over the places where both exist.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _depthwise(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad, r = grads[0], ctx.dilation
        grad_x = _depthwise(grad, weight.flip(-1, -2), r) if ctx.needs_input_grad[0] else None
        x_BHWC, grad_BHWC = (a.permute(0, 2, 3, 1).contiguous() for a in (x, grad))
        grad_weight = torch.zeros_like(weight)
        half, (height, width) = weight.shape[-1] // 2, x.shape[-2:]
        for i, j in product(range(weight.shape[-2]), range(weight.shape[-1])):
            (seen, there), (across, beside) = _overlap((i - half) * r, height), _overlap((j - half) * r, width)
            if seen.start < seen.stop and across.start < across.stop:
                shared_BHWC = x_BHWC[:, seen, across] * grad_BHWC[:, there, beside]
                grad_weight[:, 0, i, j] = shared_BHWC.sum((0, 1, 2))
        return grad_x, grad_weight, None


def _depthwise(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] - 1) // 2
    return torch.nn.functional.conv2d(x, weight, None, 1, padding, dilation, x.shape[1])


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where a line of ``size`` places, and the same line moved by ``shift``, both exist."""
    return slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size - max(shift, 0))


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` on ``[..., C, H, W]``, statistics over all leading dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -4)).view(x.shape)


class MaxPool2d(nn.MaxPool2d):
    """The 3×3 max-pool of stride 2 on ``[..., C, H, W]``: halves a side, rounding up."""

    def __init__(self) -> None:
        super().__init__(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x.flatten(0, -4))
        return y.view(*x.shape[:-3], *y.shape[1:])


class ConvBN(nn.Module):
    """Convolution, then batch normalisation, which folds into it at inference.

    A bias is redundant here; the official codes of QKFormer and SDT-V3 have some.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        edge: Edge,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel, edge=edge, stride=stride, groups=groups, bias=bias)
        self.bn = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class Linear(nn.Linear):
    """`torch.nn.Linear` with a declared input."""

    def __init__(self, in_features: int, out_features: int, *, edge: Edge, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.edge = edge


class MatMul(nn.Module):
    """``a @ b`` as a module: a product of two activations is an operation like any other.

    Attributes:
        edges: Kinds of ``a`` and ``b``. With a spike on either side, zeros there cost nothing.
    """

    def __init__(self, edges: tuple[Edge, Edge]) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)


class Gate(nn.Module):
    """``a ⊙ b`` with binary ``a``: it selects, and costs nothing where ``a`` is zero."""

    def __init__(self, edges: tuple[Edge, Edge]) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class LocalField(nn.Module):
    """Σ over dilations of a depthwise 3×3 convolution: the localized receptive field of Eqs. 8 and 12.

    ``taps="past"`` keeps the five taps at or before the centre in raster order, so a stream can compute it.
    Input and output ``[..., C, H, W]``.
    """

    def __init__(
        self, channels: int, dilations: tuple[int, ...], *, edge: Edge, taps: Literal["centred", "past"] = "centred"
    ) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(
            Conv2d(channels, channels, 3, edge=edge, dilation=r, groups=channels) for r in dilations
        )
        self.taps = taps
        if taps == "past":
            mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
            for kernel in self.kernels:
                parametrize.register_parametrization(kernel, "weight", _Masked(mask))

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.kernels
        total: Tensor = first(x)
        for kernel in rest:
            total = total + kernel(x)
        return total


class _Masked(nn.Module):
    """Weights outside the mask are zero, and stay so."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask
