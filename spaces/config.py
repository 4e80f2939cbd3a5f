"""What a candidate is, network and training: frozen, typed values that round-trip through JSON and YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from spaces.operators import (
    DHLIF,
    LIF,
    SFA,
    SSA,
    AtLeast1,
    Attention,
    Frozen,
    LRFDyn,
    Neuron,
    Operator,
    Positive,
    TokenQK,
)


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
    def attention_blocks(self) -> tuple[Operator, ...]:
        """The operator of every block, in order."""
        raise NotImplementedError

    def _check_heads(self, width: int, blocks: Iterable[Operator]) -> None:
        if width % self.heads and any(block.uses_heads for block in blocks):
            raise ValueError(f"heads must divide the width, but got (width={width}, heads={self.heads})")

    def _check_field(self, grid: tuple[int, int], blocks: Iterable[Operator]) -> None:
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
    def attention_blocks(self) -> tuple[Operator, ...]:
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
    def attention_blocks(self) -> tuple[Operator, ...]:
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
    def attention_blocks(self) -> tuple[Operator, ...]:
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


# What pydantic calls by the names of Python's types is called as in a YAML file.
_WORDS = {
    "extra_forbidden": "there is no such key",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}


def load_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ValueError: It cannot be read, is not YAML, or holds something else.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must hold a mapping, but holds {type(raw).__name__}")
    return raw


def explain(error: ValidationError) -> str:
    """A validation error as one sentence: the field, the law, the value."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    if first["type"] in ("value_error", "missing"):
        return f"{place}: {message}" if place else message
    return f"{place}: {message}, but got {first['input']!r}"


def candidate_from(raw: object) -> Candidate:
    """A validated candidate from plain data.

    Raises:
        ValueError: One sentence with the field, the law and the value.
    """
    try:
        return Candidate.model_validate(raw)
    except ValidationError as error:
        raise ValueError(explain(error)) from None
