"""QKFormer: a hierarchical spiking transformer with any attention operator per block.

Source: "QKFormer: Hierarchical Spiking Transformer using Q-K Attention", Zhou et al., NeurIPS 2024. Parameters equal
the official code's, redundant biases before a BN included. The state of the last neuron does not leak across
images, as it does in the official spiking self-attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from lrf_models.backbone import (
    Block,
    ConvNeuron,
    Size,
    SpikingBackbone,
    create,
    default_cfg,
    register_sizes,
)
from lrf_models.layers import ConvBN, Edge, MaxPool2d
from lrf_models.neurons import build_neuron
from spaces import config, operators


class PooledConvNeuron(nn.Module):
    """Convolution, BN, max-pool if ``pooled``, neuron."""

    def __init__(
        self, in_channels: int, out_channels: int, neuron: operators.Neuron, *, edge: Edge, pooled: bool
    ) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, out_channels, 3, edge=edge)
        self.pool = MaxPool2d() if pooled else nn.Identity()
        self.neuron = build_neuron(neuron, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.neuron(self.pool(self.conv(x)))
        return y


class Embedding(nn.Module):
    """3×3 convolutions, one of which may pool, plus a 1×1 shortcut: sums of two spikes.

    Args:
        pools: One entry per convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, neuron: operators.Neuron, *, edge: Edge, pools: Sequence[bool]
    ) -> None:
        super().__init__()
        convs: list[PooledConvNeuron] = []
        width, kind = in_channels, edge
        for pooled in pools:
            convs.append(PooledConvNeuron(width, out_channels, neuron, edge=kind, pooled=pooled))
            width, kind = out_channels, convs[-1].neuron.edge
        self.convs = nn.Sequential(*convs)
        self.shortcut = ConvNeuron(in_channels, out_channels, 1, neuron, edge=edge, stride=2 if any(pools) else 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convs(x) + self.shortcut(x)
        return y


class Stem(nn.Module):
    """The first convolution of an image, once, then its neuron over T."""

    def __init__(self, settings: config.QKFormerConfig) -> None:
        super().__init__()
        width = settings.dim // 8
        self.timesteps = settings.timesteps
        self.first = ConvBN(settings.in_chans, width, 3, edge="analog")
        self.pool = MaxPool2d() if settings.stem_stride > 1 else nn.Identity()
        self.neuron = build_neuron(settings.neuron, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first(x))
        y: Tensor = self.neuron(x.expand(self.timesteps, *x.shape[1:]))
        return y


class QKFormer(SpikingBackbone):
    """Three stages of an embedding and blocks, widths d/4, d/2 and d; the first two use token-QK officially.

    With ``stem_stride=1`` (CIFAR) the stem has one convolution less, and embeddings pool after the second one.
    """

    out_indices = (0, 1, 2)

    def __init__(self, settings: config.QKFormerConfig) -> None:
        widths = [width for _, width, _ in settings.stages]
        super().__init__(settings, [(width, settings.stem_stride * 2**i) for i, width in enumerate(widths)])
        self.stem = Stem(settings)
        cifar = settings.stem_stride == 1
        pools = [[False]] + [[False, True]] * 2 if cifar else [[True, False]] * 3
        self.embeddings = nn.ModuleList()
        self.stages = nn.ModuleList()
        width_in, edge = settings.dim // 8, self.stem.neuron.edge
        for (blocks, width, grid), pooled in zip(settings.stages, pools, strict=True):
            self.embeddings.append(Embedding(width_in, width, settings.neuron, edge=edge, pools=pooled))
            self.stages.append(nn.ModuleList(Block(block, settings, width, grid, bias=True) for block in blocks))
            width_in, edge = width, "integer"

    def levels(self, x: Tensor) -> Iterator[Tensor]:
        x = self.stem(self.to_steps(x))
        for embedding, stage in zip(self.embeddings, self.stages, strict=True):
            assert isinstance(stage, nn.ModuleList)
            x = embedding(x)
            for block in stage:
                x = self.run(block, x)
            yield x


default_cfgs = generate_default_cfgs({"qkformer": default_cfg(first_conv="stem.first.conv")})


@register_model
def qkformer(pretrained: bool = False, **fields: Any) -> nn.Module:
    """A QKFormer from the fields of `spaces.config.QKFormerConfig`."""
    return create(QKFormer, config.QKFormerConfig, "qkformer", pretrained, **fields)


_TOKEN_QK = {"kind": "token_qk"}
_CIFAR = {"img_size": 32, "stem_stride": 1, "num_classes": 100, "stage2": [_TOKEN_QK]}

register_sizes(
    __name__,
    QKFormer,
    config.QKFormerConfig,
    "stem.first.conv",
    {
        "10_384": Size(7, "kv", {"dim": 384, "heads": 6}),
        "10_512": Size(7, "kv", {"dim": 512, "heads": 8}),
        "10_768": Size(7, "kv", {"dim": 768, "heads": 12}),
        "4_384_cifar": Size(2, "kv", {"dim": 384, "heads": 8, **_CIFAR}),
    },
)
