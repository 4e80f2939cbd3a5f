"""What all backbones share: input, head, and the interface that timm's users know."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import ValidationError
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lrf_models.attention import build_mixer
from lrf_models.dynamics import Dendrites
from lrf_models.layers import BatchNorm2d, ConvBN, Edge, Linear
from lrf_models.neurons import Neuron, build_neuron
from spaces import operators
from spaces.config import explain


class ConvNeuron(nn.Module):
    """Convolution, BN, neuron: ``[T, B, C, H, W] → [T, B, C', H', W']`` spikes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        neuron: operators.Neuron,
        *,
        edge: Edge,
        stride: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, out_channels, kernel, edge=edge, stride=stride, bias=bias)
        self.neuron: Neuron = build_neuron(neuron, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.neuron(self.conv(x))
        return y


class Attention(nn.Module):
    """proj(SN(mixer(q, k, v))) with q, k, v = SN(BN(Conv(x))) (Eq. 4); the mixer decides which of them exist.

    Args:
        edge: Kind of the input x; that of the spikes follows from the neuron.
        bias: Whether the projection has one.
    """

    def __init__(
        self,
        settings: operators.Attention,
        model: Any,
        width: int,
        grid: tuple[int, int],
        *,
        edge: Edge,
        bias: bool = False,
    ) -> None:
        super().__init__()
        spikes = build_neuron(model.neuron, width).edge
        fire = partial(build_neuron, model.neuron, threshold=model.attention_threshold)
        self.mixer = build_mixer(
            settings,
            width=width,
            heads=model.heads,
            grid=grid,
            scale=model.scale,
            edge=spikes,
            input_edge=edge,
            fire=fire,
        )
        self.maps = nn.ModuleDict(
            {name: ConvNeuron(width, width, 1, model.neuron, edge=edge) for name in self.mixer.needs}
        )
        if not self.mixer.fires:
            self.neuron = fire(width)
        self.proj = ConvNeuron(width, width, 1, model.neuron, edge=spikes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        maps = {name: module(x) for name, module in self.maps.items()}
        y = self.mixer(maps.get("q"), maps.get("k"), maps.get("v", x))
        out: Tensor = self.proj(y if self.mixer.fires else self.neuron(y))
        return out


class MLP(nn.Module):
    """Two 1×1 convolutions with neurons: d → ratio·d → d."""

    def __init__(self, model: Any, width: int, *, edge: Edge, bias: bool = False) -> None:
        super().__init__()
        hidden = max(int(width * model.mlp_ratio), 1)
        self.expand = ConvNeuron(width, hidden, 1, model.neuron, edge=edge, bias=bias)
        self.reduce = ConvNeuron(hidden, width, 1, model.neuron, edge=self.expand.neuron.edge, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reduce(self.expand(x))
        return y


class Block(nn.Module):
    """x + attention(x), then x + MLP(x). The stream is a sum of spikes, so an integer."""

    def __init__(
        self, settings: operators.Attention, model: Any, width: int, grid: tuple[int, int], *, bias: bool = False
    ) -> None:
        super().__init__()
        self.attention = Attention(settings, model, width, grid, edge="integer", bias=bias)
        self.mlp = MLP(model, width, edge="integer", bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        y: Tensor = x + self.mlp(x)
        return y


@contextmanager
def _statistics_untouched(block: nn.Module) -> Iterator[None]:
    """BN normalises with the batch, but does not average it in: a recomputation is not another batch."""
    norms = [module for module in block.modules() if isinstance(module, BatchNorm2d)]
    before = [(norm.momentum, copy.deepcopy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class SpikingBackbone(nn.Module):
    """A network from images ``[B, C, H, W]`` or frames ``[T, B, C, H, W]`` to logits ``[B, classes]``.

    State starts at zero in every call, so nothing passes from one batch to the next.

    Args:
        settings: The network's configuration.
        levels: (channels, reduction) of each level of the pyramid, finest first.
        head_edge: Kind of the classifier's input.
    """

    out_indices: ClassVar[tuple[int, ...]]

    def __init__(self, settings: Any, levels: Sequence[tuple[int, int]], head_edge: Edge = "real") -> None:
        super().__init__()
        self.settings = settings
        self.in_chans: int = settings.in_chans
        self.num_classes: int = settings.num_classes
        self.num_features = self.head_hidden_size = levels[-1][0]
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": f"levels.{i}"}
            for i, (channels, reduction) in enumerate(levels)
        ]
        self.grad_checkpointing = False
        self.head_edge = head_edge
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
            raise ValueError(f"input must be {wanted}, or [T={s.timesteps}, …] of it, but got {list(x.shape)}")
        eager = type(x) is Tensor and x.device.type != "meta" and not torch.compiler.is_compiling()
        if eager and not bool(torch.isfinite(x).all()):
            raise ValueError("input must be finite, but holds NaN or infinity")
        return x

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """A block, recomputed in the backward pass if gradient checkpointing is on."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            y: Tensor = checkpoint(
                block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_untouched(block))
            )
            return y
        out: Tensor = block(x)
        return out

    def levels(self, x: Tensor) -> Iterator[Tensor]:
        """The maps ``[T, B, C, H, W]`` of the pyramid, finest first; the last is the token map."""
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """The last token map ``[T, B, C, H, W]``."""
        *_, last = self.levels(x)
        return last

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Maps of the pyramid as means over T, ``[B, C, H, W]``; with the last token map unless told otherwise.

        Args:
            indices: Levels to return: the last so many, or those named; None for all. The rest as in timm.
        """
        if output_fmt != "NCHW" or norm:
            raise ValueError(f"features are NCHW without a norm, but got (output_fmt={output_fmt!r}, norm={norm})")
        wanted, last = feature_take_indices(len(self.feature_info), indices)
        maps: dict[int, Tensor] = {}
        for i, y in enumerate(self.levels(x)):
            if i in wanted:
                maps[i] = y.mean(0)
            if i == last and (intermediates_only or stop_early):
                break
        chosen = [maps[i] for i in wanted]
        return chosen if intermediates_only else (y, chosen)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """What timm calls before it wraps a model as a feature extractor, which needs no classifier."""
        if prune_head:
            self.reset_classifier(0)
        chosen: list[int] = feature_take_indices(len(self.feature_info), indices)[0]
        return chosen

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean over T and tokens, then the classifier: one linear map commutes with the mean over T."""
        # A mean's gradient is laid out in the order of the dimensions: C last wherever the map has it last in memory.
        x = x.movedim(2, -1).mean((0, 2, 3)) if x.stride(2) == 1 else x.mean((0, 3, 4))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; 0 removes it. ``global_pool`` is timm's and can only be the mean."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool must be 'avg', but got {global_pool!r}")
        self.num_classes = num_classes
        self.head = Linear(self.num_features, num_classes, edge=self.head_edge) if num_classes else nn.Identity()
        initialise(self.head)

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


def initialise(module: nn.Module) -> None:
    """A linear layer as in the official codes, truncated normal (0.02); they leave convolutions as torch does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


# --- timm ------------------------------------------------------------------------------------------------------

# Operators that have named sizes. These follow the paper's parameter counts: LRF-Dyn has no more than LRF-SSA to two
# digits, so it keeps Q, K and V, and a layer shares its dynamics.
OPERATORS: dict[str, tuple[type[operators.Frozen], dict[str, Any]]] = {
    "ssa": (operators.SSA, {}),
    "lrf_ssa": (operators.LRFSSA, {}),
    "lrf_dyn": (operators.LRFDyn, {"token": "qkv", "sharing": "layer"}),
}


def default_cfg(size: Sequence[int] = (3, 224, 224), classes: int = 1000, first_conv: str = "") -> dict[str, Any]:
    """timm's description of a model without published weights."""
    return {
        "url": "",
        "num_classes": classes,
        "input_size": tuple(size),
        "fixed_input_size": True,
        "classifier": "head",
        "first_conv": first_conv,
    }


def create(
    network: type[Any], settings: type[operators.Frozen], variant: str, pretrained: bool, **fields: Any
) -> nn.Module:
    """A registered model from the fields of its configuration, through timm's builder, which knows its own.

    Raises:
        ValueError: The fields break a law: the field, the law and the value.
    """

    def build(**known: Any) -> SpikingBackbone:
        try:
            backbone: SpikingBackbone = network(settings.model_validate(known))
            return backbone
        except ValidationError as error:
            raise ValueError(explain(error)) from None

    features = {"out_indices": network.out_indices, "feature_cls": "getter"}
    model: nn.Module = build_model_with_cfg(build, variant, pretrained, feature_cfg=features, **fields)
    return model


class Size(NamedTuple):
    """A named size: blocks, the order of their products, and the other fields of the configuration."""

    depth: int
    form: operators.Form
    fields: Mapping[str, Any]


def register_sizes(
    module: str,
    network: type[Any],
    settings: type[operators.Frozen],
    first_conv: str,
    sizes: Mapping[str, Size],
) -> None:
    """Register ``OPERATOR_FAMILY_SIZE`` with timm for every operator and size.

    An entry point takes the fields of the configuration and of the operator, such as ``token="v"``.

    Args:
        module: Name of the family's module; its last part is the family.
    """
    default_cfgs = sys.modules[module].default_cfgs
    for operator in OPERATORS:
        for label, size in sizes.items():
            name = f"{operator}_{module.rpartition('.')[2]}_{label}"
            image = size.fields.get("img_size", 224)
            shape = (size.fields.get("in_chans", 3), image, image)
            cfg = default_cfg(shape, size.fields.get("num_classes", 1000), first_conv)
            default_cfgs.update(generate_default_cfgs({name: cfg}))
            entry = _entry_point(name, network, settings, operator, size)
            entry.__module__ = module
            register_model(entry)


def _entry_point(
    name: str, network: type[Any], settings: type[operators.Frozen], operator: str, size: Size
) -> Callable[..., nn.Module]:
    kind, defaults = OPERATORS[operator]
    block = {"kind": operator, **defaults}
    if "form" in kind.model_fields:
        block["form"] = size.form

    def entry(pretrained: bool = False, **fields: Any) -> nn.Module:
        own = {key: fields.pop(key) for key in kind.model_fields if key in fields}
        blocks = [{**block, **own}] * size.depth
        return create(network, settings, name, pretrained, **{"blocks": blocks, **size.fields, **fields})

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{network.__name__} of {size.depth} blocks, {kind.__name__}: {dict(size.fields)}"
    return entry
