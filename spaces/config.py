"""What a candidate is: frozen, typed values that round-trip through JSON and YAML. No torch in here.

A part that exists only under a choice is a field of that choice (the dendrites belong to ``LRFDyn``, not to
the model), so a candidate holds nothing that it does not use, and its identity follows from its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeast1 = Annotated[int, Field(ge=1)]
Dilations = Annotated[tuple[AtLeast1, ...], Field(description="dilations of the 3×3 local kernels")]
Surrogate = Literal["sigmoid", "triangle", "multi_gaussian", "straight_through"]


class Frozen(BaseModel):
    """An immutable value: unknown keys are errors, equal content is equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> Self:
        """The same meaning with every unused freedom set to one value. Identity is taken from it."""
        return self


# --- neurons (equations in lrf_models/neurons.py) ---------------------------------------------------------


class IF(Frozen):
    """Integrate and fire, no leak."""

    kind: Literal["if"] = "if"
    threshold: Positive = 1.0
    surrogate: Surrogate = "sigmoid"


class LIF(Frozen):
    """Leaky integrate and fire with decayed input; τ in time steps."""

    kind: Literal["lif"] = "lif"
    tau: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    threshold: Positive = 1.0
    surrogate: Surrogate = "sigmoid"


class PLIF(Frozen):
    """LIF with a learned τ per layer, 1/τ = sigmoid(w); ``tau`` is where it starts."""

    kind: Literal["plif"] = "plif"
    tau: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    threshold: Positive = 1.0
    surrogate: Surrogate = "sigmoid"


class ALIF(Frozen):
    """LIF with an adaptive threshold; both time constants learned per layer, in time steps."""

    kind: Literal["alif"] = "alif"
    tau_membrane: Positive = 2.0
    tau_adaptation: Positive = 8.0
    threshold: Positive = 1.0
    adaptation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2
    surrogate: Surrogate = "multi_gaussian"


class DHLIF(Frozen):
    """LIF with dendritic heterogeneity: branches with their own learned decay on disjoint inputs."""

    kind: Literal["dh_lif"] = "dh_lif"
    branches: AtLeast1 = 4
    threshold: Positive = 1.0
    surrogate: Surrogate = "multi_gaussian"


class SFA(Frozen):
    """Spike-firing approximation of SDT-V3: an integer 0..levels, replayed as binary spikes at inference."""

    kind: Literal["sfa"] = "sfa"
    levels: AtLeast1 = 4


Neuron = Annotated[IF | LIF | PLIF | ALIF | DHLIF | SFA, Field(discriminator="kind")]

# --- attention operators (equations in lrf_models/attention.py) -------------------------------------------

Form = Literal["kv", "qk"]


class _Attention(Frozen):
    """What every operator answers about itself."""

    @property
    def uses_heads(self) -> bool:
        """Whether the number of heads changes the network."""
        return True

    @property
    def radius(self) -> int:
        """How many tokens the local field reaches in each direction; 0 without one."""
        return max(getattr(self, "dilations", ()), default=0)


class _Local(_Attention):
    dilations: tuple[AtLeast1, ...] = (1, 3, 5)

    @field_validator("dilations")
    @classmethod
    def _sorted_and_distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"dilations must differ from each other, but got {list(value)}")
        return tuple(sorted(value))


class SSA(_Attention):
    """Spiking self-attention, Eqs. 5-7. ``kv`` computes KᵀV first, ``qk`` stores the N×N map."""

    kind: Literal["ssa"] = "ssa"
    form: Form = "kv"


class _Attended(_Local):
    @field_validator("dilations")
    @classmethod
    def _has_a_field(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:  # it would be the operator without "lrf_", under a second identity
            raise ValueError("a local field needs at least one dilation, but got []")
        return value


class LRFSSA(_Attended):
    """SSA with a localized receptive field on V, Eq. 8."""

    kind: Literal["lrf_ssa"] = "lrf_ssa"
    form: Form = "kv"


class CausalSSA(_Attention):
    """SSA in which token n attends to tokens ≤ n: Eq. 11 without the local field."""

    kind: Literal["causal_ssa"] = "causal_ssa"


class LRFCausalSSA(_Attended):
    """Causal SSA with a localized receptive field on V, Eq. 11."""

    kind: Literal["lrf_causal_ssa"] = "lrf_causal_ssa"


class TokenQK(_Attention):
    """QKFormer's token attention: a {0,1} mask per head and token, made from Q, on K."""

    kind: Literal["token_qk"] = "token_qk"


class LRFDyn(_Local):
    """Charge-fire-reset attention: dendritic dynamics over tokens and a local field, Eqs. 12-15.

    ``tau_max=None`` stands for the number of tokens. ``padding="circular"`` is another, non-causal operator:
    the unpadded FFT, in which every token sees every token.
    """

    kind: Literal["lrf_dyn"] = "lrf_dyn"
    token: Literal["v", "qkv", "x"] = "v"
    sharing: Literal["head", "layer", "channel"] = "head"
    dendrites: AtLeast1 = 8
    coupling: Literal["general", "none", "symmetric", "skew"] = "general"
    tau_min: Positive = 1.0
    tau_max: Positive | None = None
    spacing: Literal["log", "linear"] = "log"
    learnable: bool = True
    scan: Literal["raster", "column", "bidirectional"] = "raster"
    padding: Literal["causal", "circular"] = "causal"
    field: Literal["membrane", "token"] = "membrane"
    taps: Literal["centred", "past"] = "centred"

    @model_validator(mode="after")
    def _ordered_constants(self) -> Self:
        if self.tau_max is not None and self.tau_max < self.tau_min:
            raise ValueError(
                f"tau_min <= tau_max must hold, but got (tau_min={self.tau_min:g}, tau_max={self.tau_max:g})"
            )
        return self

    @property
    def uses_heads(self) -> bool:
        return self.sharing == "head"

    def canonical(self) -> Self:
        unused: dict[str, Any] = {}
        if self.dendrites == 1:  # nothing to couple, and one constant has no spacing
            unused |= {"coupling": "none", "tau_max": self.tau_min, "spacing": "log"}
        if not self.dilations:
            unused |= {"field": "membrane", "taps": "centred"}
        return self.model_copy(update=unused)


Attention = Annotated[SSA | LRFSSA | CausalSSA | LRFCausalSSA | TokenQK | LRFDyn, Field(discriminator="kind")]

# --- backbones (lrf_models/spikformer.py, qkformer.py, sdt_v3.py) -----------------------------------------


class _Model(Frozen):
    """What all backbones share. Sizes are in pixels, ``timesteps`` is the T of the network."""

    img_size: tuple[AtLeast1, AtLeast1] = (224, 224)
    in_chans: AtLeast1 = 3
    num_classes: Annotated[int, Field(ge=0)] = 1000
    input: Literal["image", "events"] = "image"
    timesteps: AtLeast1 = 4
    heads: AtLeast1 = 8
    mlp_ratio: Positive = 4.0
    attention_threshold: Positive = 0.5

    @field_validator("img_size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) else value

    @property
    def attention_blocks(self) -> tuple[_Attention, ...]:
        """The operator of every block, in order."""
        raise NotImplementedError

    def _check_heads(self, width: int, blocks: Iterable[_Attention]) -> None:
        if width % self.heads and any(block.uses_heads for block in blocks):
            raise ValueError(f"heads must divide the width, but got (width={width}, heads={self.heads})")

    def _check_field(self, grid: tuple[int, int], blocks: Iterable[_Attention]) -> None:
        for block in blocks:
            if block.radius >= min(grid) and block.radius > 0:
                raise ValueError(
                    "dilation < side of the token map must hold, "
                    f"but got (dilation={block.radius}, map={grid[0]}×{grid[1]})"
                )

    def _check_branches(self, neuron: Neuron, narrowest: int) -> None:
        """Token-QK's mask has one channel per head."""
        if not isinstance(neuron, DHLIF):
            return
        masks = any(isinstance(block, TokenQK) for block in self.attention_blocks)
        width = min(narrowest, self.heads) if masks else narrowest
        if neuron.branches > width:
            raise ValueError(
                "neuron.branches <= width of every layer must hold, "
                f"but got (branches={neuron.branches}, narrowest layer={width})"
            )


def _resolve_constants(block: Any, tokens: int) -> Any:
    """``tau_max=None`` written out, so that it equals the same number given by hand."""
    if isinstance(block, LRFDyn) and block.tau_max is None:
        block = block.model_copy(update={"tau_max": max(float(tokens), block.tau_min)})
    return block.canonical()


class SpikformerConfig(_Model):
    """Spikformer (Zhou et al., ICLR 2023) with any operator per block.

    The stem has four convolutions of width dim/8, dim/4, dim/2, dim; the last ``pools`` of them are followed by
    a 2×2 reduction (ImageNet 4, CIFAR 2).
    """

    backbone: Literal["spikformer"] = "spikformer"
    dim: Annotated[int, Field(ge=8, multiple_of=8)] = 512
    pools: Annotated[int, Field(ge=0, le=4)] = 4
    scale: Positive = 0.125
    neuron: Neuron = LIF()
    blocks: tuple[Attention, ...] = Field(default=(SSA(),) * 8, min_length=1)

    @property
    def attention_blocks(self) -> tuple[_Attention, ...]:
        return self.blocks

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the token map. A pool halves a side, rounding up."""
        height, width = self.img_size
        for _ in range(self.pools):
            height, width = -(-height // 2), -(-width // 2)
        return height, width

    @model_validator(mode="after")
    def _laws(self) -> Self:
        self._check_heads(self.dim, self.blocks)
        self._check_field(self.grid, self.blocks)
        self._check_branches(self.neuron, self.dim // 8)
        return self

    def canonical(self) -> Self:
        tokens = self.grid[0] * self.grid[1]
        blocks = tuple(_resolve_constants(block, tokens) for block in self.blocks)
        heads = self.heads if any(block.uses_heads for block in blocks) else 1
        return self.model_copy(update={"blocks": blocks, "heads": heads})


class QKFormerConfig(_Model):
    """QKFormer HST (Zhou et al., NeurIPS 2024): three stages of width dim/4, dim/2, dim."""

    backbone: Literal["qkformer"] = "qkformer"
    dim: Annotated[int, Field(ge=8, multiple_of=8)] = 512
    stem_stride: Literal[1, 4] = 4
    scale: Positive = 0.125
    neuron: Neuron = LIF()
    stage1: tuple[Attention, ...] = (TokenQK(),)
    stage2: tuple[Attention, ...] = (TokenQK(),) * 2
    blocks: tuple[Attention, ...] = Field(default=(SSA(),) * 7, min_length=1)

    @property
    def attention_blocks(self) -> tuple[_Attention, ...]:
        return self.stage1 + self.stage2 + self.blocks

    @property
    def stages(self) -> tuple[tuple[tuple[Attention, ...], int, tuple[int, int]], ...]:
        """(operators, width, token map) of each stage."""
        side = tuple(-(-s // self.stem_stride) for s in self.img_size)
        half = tuple(-(-s // 2) for s in side)
        quarter = tuple(-(-s // 2) for s in half)
        return (
            (self.stage1, self.dim // 4, (side[0], side[1])),
            (self.stage2, self.dim // 2, (half[0], half[1])),
            (self.blocks, self.dim, (quarter[0], quarter[1])),
        )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        for blocks, width, grid in self.stages:
            self._check_heads(width, blocks)
            self._check_field(grid, blocks)
        self._check_branches(self.neuron, self.dim // 8)
        return self

    def canonical(self) -> Self:
        names = ("stage1", "stage2", "blocks")
        resolved = {
            name: tuple(_resolve_constants(block, grid[0] * grid[1]) for block in blocks)
            for name, (blocks, _, grid) in zip(names, self.stages, strict=True)
        }
        heads = self.heads if any(block.uses_heads for block in self.attention_blocks) else 1
        return self.model_copy(update={**resolved, "heads": heads})


class SDTV3Config(_Model):
    """Spike-driven Transformer V3 (Yao et al., TPAMI 2025): four widths, the last two with attention.

    The last ``blocks`` sit behind the fourth down-sampling; ``split`` of them come before it (official: 6 of 8).
    """

    backbone: Literal["sdt_v3"] = "sdt_v3"
    timesteps: AtLeast1 = 1
    dims: tuple[AtLeast1, AtLeast1, AtLeast1, AtLeast1] = (32, 64, 128, 192)
    split: Annotated[int, Field(ge=0)] = 6
    neuron: Neuron = SFA()
    blocks: tuple[Attention, ...] = Field(default=(SSA(),) * 8, min_length=1)

    @property
    def attention_blocks(self) -> tuple[_Attention, ...]:
        return self.blocks

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the token map: the image over 16, rounding up."""
        return -(-self.img_size[0] // 16), -(-self.img_size[1] // 16)

    @model_validator(mode="after")
    def _laws(self) -> Self:
        if self.split > len(self.blocks):
            raise ValueError(f"split <= blocks must hold, but got (split={self.split}, blocks={len(self.blocks)})")
        self._check_heads(self.dims[2], self.blocks[: self.split])
        self._check_heads(self.dims[3], self.blocks[self.split :])
        self._check_field(self.grid, self.blocks)
        self._check_branches(self.neuron, self.dims[0] // 2)
        return self

    def canonical(self) -> Self:
        tokens = self.grid[0] * self.grid[1]
        blocks = tuple(_resolve_constants(block, tokens) for block in self.blocks)
        heads = self.heads if any(block.uses_heads for block in blocks) else 1
        return self.model_copy(update={"blocks": blocks, "heads": heads})


Model = Annotated[SpikformerConfig | QKFormerConfig | SDTV3Config, Field(discriminator="backbone")]

# --- training and the whole -------------------------------------------------------------------------------


class Training(Frozen):
    """How a candidate is trained. A recipe (search/recipes) is a named set of these values."""

    optimizer: Literal["adamw", "lamb"] = "adamw"
    lr: Positive = 5e-3
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    dynamics_lr: Annotated[float, Field(gt=0, le=1, description="learning rate of the dynamics' constants / lr")] = (
        1.0
    )
    batch_size: AtLeast1 = 64
    epochs: AtLeast1 = 30
    warmup_epochs: Annotated[float, Field(ge=0)] = 2.0
    min_lr: Annotated[float, Field(ge=0, description="final learning rate / lr")] = 0.01
    clip_grad: Positive | None = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Annotated[int, Field(ge=0, description="random translation, pixels")] = 0
    flip: Annotated[bool, Field(description="random mirroring, where the data set allows it")] = False
    rand_augment: str | None = None
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _laws(self) -> Self:
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ValueError(
                "warmup_epochs < epochs must hold, "
                f"but got (warmup_epochs={self.warmup_epochs:g}, epochs={self.epochs})"
            )
        return self


class Candidate(Frozen):
    """One point of a search space: a network and its training."""

    model: Model
    training: Training = Training()

    def canonical(self) -> Self:
        return self.model_copy(update={"model": self.model.canonical()})

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits over the canonical content: equal identity, equal network and training."""
        content = json.dumps(self.canonical().model_dump(mode="json"), sort_keys=True, allow_nan=False)
        return hashlib.sha256(content.encode()).hexdigest()[:12]
