"""Dense prediction: a light feature-pyramid head on the maps of a backbone.

Source: "Panoptic Feature Pyramid Networks", Kirillov et al., CVPR 2019, with neurons before the convolutions as in
SDT-V3. On SDT-V3-S with 150 classes the head has 1.40 M parameters. The finest map needs no convolution of its
own after the pyramid, and the others have one for each doubling of their side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from lrf_models.layers import Conv2d
from lrf_models.neurons import build_neuron
from lrf_models.sdt_v3 import NeuronConv
from spaces import operators


class FPNHead(nn.Module):
    """Maps ``[B, C_i, H_i, W_i]``, finest first, to scores ``[B, classes, H_0, W_0]``.

    Args:
        channels: C_i of each map; ``reductions`` are their strides, powers of two.
        neuron: Applied to each map before each convolution; the maps count as one time step.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        num_classes: int,
        *,
        width: int = 128,
        neuron: operators.Neuron | None = None,
    ) -> None:
        super().__init__()
        neuron = neuron or operators.SFA()
        self.laterals = nn.ModuleList(NeuronConv(c, width, 1, neuron) for c in channels)
        self.smooth = nn.ModuleList(NeuronConv(width, width, 3, neuron) for _ in channels)
        doublings = [(r // reductions[0]).bit_length() - 1 for r in reductions]
        self.scales = nn.ModuleList(
            nn.ModuleList(NeuronConv(width, width, 3, neuron) for _ in range(n)) for n in doublings
        )
        self.neuron = build_neuron(neuron, width)
        self.classify = Conv2d(width, num_classes, 1, edge=self.neuron.edge, bias=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        pyramid = [lateral(x[None]) for lateral, x in zip(self.laterals, maps, strict=True)]
        for i in range(len(pyramid) - 1, 0, -1):
            pyramid[i - 1] = pyramid[i - 1] + _resize(pyramid[i], pyramid[i - 1], "nearest")
        total: Tensor | None = None
        for x, smooth, scale in zip(pyramid, self.smooth, self.scales, strict=True):
            assert isinstance(scale, nn.ModuleList)
            y = smooth(x)
            for layer in scale:
                y = layer(y)
                y = interpolate(y[0], scale_factor=2.0, mode="bilinear", align_corners=False)[None]
            total = y if total is None else total + _resize(y, total, "bilinear")
        scores: Tensor = self.classify(self.neuron(total))[0]
        return scores


def _resize(x: Tensor, like: Tensor, mode: str) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return interpolate(x[0], like.shape[-2:], mode=mode, align_corners=None if mode == "nearest" else False)[None]


class Segmenter(nn.Module):
    """A feature extractor (``timm.create_model(..., features_only=True)``) with an FPN head.

    Images ``[B, C, H, W]`` to scores ``[B, classes, H, W]``.
    """

    def __init__(self, features: nn.Module, num_classes: int, **head: Any) -> None:
        super().__init__()
        self.features = features
        info: Any = features.feature_info
        self.head = FPNHead(info.channels(), info.reduction(), num_classes, **head)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x))
        return interpolate(scores, x.shape[-2:], mode="bilinear", align_corners=False)
