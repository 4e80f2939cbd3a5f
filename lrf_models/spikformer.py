"""Spikformer with any attention operator per block.

Source: "Spikformer: When Spiking Neural Network Meets Transformer", Zhou et al., ICLR 2023. Differences from the
official code: no bias where a BN follows, and no unused LayerNorm (10·d values per block less).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
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
from lrf_models.layers import ConvBN, MaxPool2d
from lrf_models.neurons import build_neuron
from spaces import config


class Stem(nn.Module):
    """Spiking patch splitting: four 3×3 convolutions of width d/8 … d, the last ``pools`` of them with a max-pool,
    and a convolutional position embedding x + SN(BN(Conv(x)))."""

    def __init__(self, settings: config.SpikformerConfig) -> None:
        super().__init__()
        widths = stem_widths(settings)
        self.timesteps = settings.timesteps
        self.first = ConvBN(settings.in_chans, widths[0], 3, edge="analog")
        self.neuron = build_neuron(settings.neuron, widths[0])
        self.convs = nn.ModuleList(
            ConvNeuron(a, b, 3, settings.neuron, edge=self.neuron.edge) for a, b in pairwise(widths)
        )
        self.pools = nn.ModuleList(MaxPool2d() if pooled else nn.Identity() for pooled in stem_pools(settings))
        self.position = ConvNeuron(settings.dim, settings.dim, 3, settings.neuron, edge=self.neuron.edge)

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        """The map after each convolution, the last with its position embedding."""
        x = self.first(x)
        x = self.pools[0](self.neuron(x.expand(self.timesteps, *x.shape[1:])))
        for conv, pool in zip(self.convs, list(self.pools)[1:], strict=True):
            yield x
            x = pool(conv(x))
        yield x + self.position(x)


def stem_widths(settings: config.SpikformerConfig) -> list[int]:
    """Channels after each convolution of the stem."""
    return [settings.dim // 8, settings.dim // 4, settings.dim // 2, settings.dim]


def stem_pools(settings: config.SpikformerConfig) -> list[bool]:
    """Which convolutions of the stem a max-pool follows."""
    return [i >= 4 - settings.pools for i in range(4)]


class Spikformer(SpikingBackbone):
    """Stem, blocks of attention and MLP with residual sums of spikes, mean, linear head."""

    out_indices = (0, 1, 2, 3)

    def __init__(self, settings: config.SpikformerConfig) -> None:
        reductions = [2 ** sum(stem_pools(settings)[: i + 1]) for i in range(4)]
        super().__init__(settings, list(zip(stem_widths(settings), reductions, strict=True)))
        self.stem = Stem(settings)
        self.blocks = nn.ModuleList(Block(block, settings, settings.dim, settings.grid) for block in settings.blocks)

    def levels(self, x: Tensor) -> Iterator[Tensor]:
        *fine, x = self.stem(self.to_steps(x))
        yield from fine
        for block in self.blocks:
            x = self.run(block, x)
        yield x


default_cfgs = generate_default_cfgs({"spikformer": default_cfg(first_conv="stem.first.conv")})


@register_model
def spikformer(pretrained: bool = False, **fields: Any) -> nn.Module:
    """A Spikformer from the fields of `spaces.config.SpikformerConfig`."""
    return create(Spikformer, config.SpikformerConfig, "spikformer", pretrained, **fields)


_CIFAR = {"img_size": 32, "pools": 2, "num_classes": 100}
_DVS = {"img_size": 128, "in_chans": 2, "num_classes": 10, "input": "events", "timesteps": 16, "scale": 0.25}

register_sizes(
    __name__,
    Spikformer,
    config.SpikformerConfig,
    "stem.first.conv",
    {
        "8_384": Size(8, "kv", {"dim": 384, "heads": 6}),
        "6_512": Size(6, "kv", {"dim": 512, "heads": 8}),
        "8_512": Size(8, "kv", {"dim": 512, "heads": 8}),
        "10_512": Size(10, "kv", {"dim": 512, "heads": 8}),
        "8_768": Size(8, "kv", {"dim": 768, "heads": 12}),
        "4_384_cifar": Size(4, "qk", {"dim": 384, "heads": 12, **_CIFAR}),
        "2_256_dvs": Size(2, "qk", {"dim": 256, "heads": 16, **_DVS}),
    },
)
