"""What all backbones share: input, head, and the interface that timm's users know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from timm.models import build_model_with_cfg
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lrf_models.attention import build_mixer
from lrf_models.dynamics import Dendrites
from lrf_models.layers import ConvBN, Edge, Linear
from lrf_models.neurons import Neuron, build_neuron
from spaces import config
from spaces.space import explain


class ConvNeuron(nn.Module):
    """Convolution, BN, neuron: ``[T, B, C, H, W] → [T, B, C', H', W']`` spikes."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, neuron: config.Neuron, *, edge: Edge
    ) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, out_channels, kernel, edge=edge)
        self.neuron: Neuron = build_neuron(neuron, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.neuron(self.conv(x))
        return y


class Attention(nn.Module):
    """proj(SN(mixer(q, k, v))) with q, k, v = SN(BN(Conv(x))) (Eq. 4); the mixer decides which of them exist.

    Args:
        edge: Kind of the input x; that of the spikes follows from the neuron.
    """

    def __init__(
        self, settings: config.Attention, model: Any, width: int, grid: tuple[int, int], *, edge: Edge
    ) -> None:
        super().__init__()
        spikes = build_neuron(model.neuron, width).edge
        self.mixer = build_mixer(
            settings,
            width=width,
            heads=model.heads,
            grid=grid,
            scale=model.scale,
            edge=spikes,
            input_edge=edge,
            neuron=build_neuron(model.neuron, model.heads, model.attention_threshold),
        )
        self.maps = nn.ModuleDict(
            {name: ConvNeuron(width, width, 1, model.neuron, edge=edge) for name in self.mixer.needs}
        )
        if not self.mixer.fires:
            self.neuron = build_neuron(model.neuron, width, model.attention_threshold)
        self.proj = ConvNeuron(width, width, 1, model.neuron, edge=spikes)

    def forward(self, x: Tensor) -> Tensor:
        maps = {name: module(x) for name, module in self.maps.items()}
        y = self.mixer(maps.get("q"), maps.get("k"), maps.get("v", x))
        out: Tensor = self.proj(y if self.mixer.fires else self.neuron(y))
        return out


class MLP(nn.Module):
    """Two 1×1 convolutions with neurons: d → ratio·d → d."""

    def __init__(self, model: Any, width: int, *, edge: Edge) -> None:
        super().__init__()
        hidden = max(int(width * model.mlp_ratio), 1)
        self.expand = ConvNeuron(width, hidden, 1, model.neuron, edge=edge)
        self.reduce = ConvNeuron(hidden, width, 1, model.neuron, edge=self.expand.neuron.edge)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reduce(self.expand(x))
        return y


class Block(nn.Module):
    """x + attention(x), then x + MLP(x). The stream is a sum of spikes, so an integer."""

    def __init__(self, settings: config.Attention, model: Any, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.attention = Attention(settings, model, width, grid, edge="integer")
        self.mlp = MLP(model, width, edge="integer")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        y: Tensor = x + self.mlp(x)
        return y


class SpikingBackbone(nn.Module):
    """A network from images ``[B, C, H, W]`` or frames ``[T, B, C, H, W]`` to logits ``[B, classes]``.

    State starts at zero in every call, so nothing passes from one batch to the next.
    """

    def __init__(self, settings: Any, num_features: int) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes: int = settings.num_classes
        self.num_features = self.head_hidden_size = num_features
        self.grad_checkpointing = False
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(settings.num_classes)

    def to_steps(self, x: Tensor) -> Tensor:
        """Frames ``[T or 1, B, C, H, W]``: an image stays one frame, which the stem repeats after its first BN.

        Raises:
            ValueError: The shape is not the configured one, or a value is not finite.
        """
        s = self.settings
        if x.ndim == 4:
            x = x[None]
        elif x.ndim == 5 and x.shape[0] != s.timesteps:
            raise ValueError(f"frames must have T={s.timesteps} time steps, but got T={x.shape[0]}")
        if x.ndim != 5 or tuple(x.shape[2:]) != (s.in_chans, *s.img_size):
            wanted = f"[B, {s.in_chans}, {s.img_size[0]}, {s.img_size[1]}]"
            raise ValueError(f"input must be {wanted}, or [T, …] of it, but got {list(x.shape)}")
        eager = type(x) is Tensor and x.device.type == "cpu" and not torch.compiler.is_compiling()
        if eager and not bool(torch.isfinite(x).all()):
            raise ValueError("input must be finite, but holds NaN or infinity")
        return x

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """A block, recomputed in the backward pass if gradient checkpointing is on."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            y: Tensor = checkpoint(block, x, use_reentrant=False)
            return y
        out: Tensor = block(x)
        return out

    def forward_features(self, x: Tensor) -> Tensor:
        """The last token map ``[T, B, C, H, W]``."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean over T and tokens, then the classifier: one linear map commutes with the mean over T."""
        x = x.mean((0, 3, 4))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier; 0 removes it."""
        self.num_classes = num_classes
        self.head = Linear(self.num_features, num_classes, edge="real") if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade a second forward pass per block for its activations' memory."""
        self.grad_checkpointing = enable

    def dynamics(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and values of the constants of dendrites and neurons: no weight decay, their own learning rate."""
        for prefix, module in self.named_modules():
            if isinstance(module, Dendrites | Neuron):
                for name, parameter in module.named_parameters(recurse=False):
                    yield f"{prefix}.{name}", parameter

    def no_weight_decay(self) -> set[str]:
        """Names that timm's parameter groups leave without weight decay."""
        return {name for name, _ in self.dynamics()}


def initialise(model: nn.Module) -> None:
    """Truncated normal (0.02) for linear and 1×1 maps, as the official codes do; BN at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def create(
    network: Callable[[Any], SpikingBackbone],
    settings: type[config.Frozen],
    variant: str,
    pretrained: bool,
    **fields: Any,
) -> SpikingBackbone:
    """A registered model from the fields of its configuration, through timm's builder.

    Raises:
        ValueError: The fields break a law: the field, the law and the value.
    """
    try:
        built = settings.model_validate({k: v for k, v in fields.items() if k in settings.model_fields})
    except ValidationError as error:
        raise ValueError(explain(error)) from None
    rest = {k: v for k, v in fields.items() if k not in settings.model_fields}
    model: SpikingBackbone = build_model_with_cfg(lambda **_: network(built), variant, pretrained, **rest)
    return model


def default_cfg(size: Sequence[int] = (3, 224, 224), classes: int = 1000) -> dict[str, Any]:
    """timm's description of a model without published weights."""
    return {"url": "", "num_classes": classes, "input_size": tuple(size), "classifier": "head", "first_conv": "stem"}
