"""Neurons and attention operators as values: their constants and laws. No torch in here.

A part that exists only under a choice is a field of that choice (the dendrites belong to ``LRFDyn``, not to
the model), so a candidate holds nothing that it does not use, and its identity follows from its content.
"""

from __future__ import annotations

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


class Operator(Frozen):
    """What every operator answers about itself."""

    @property
    def uses_heads(self) -> bool:
        """Whether the number of heads changes the network."""
        return True

    @property
    def radius(self) -> int:
        """How many tokens the local field reaches in each direction; 0 without one."""
        return max(getattr(self, "dilations", ()), default=0)


class _Local(Operator):
    dilations: tuple[AtLeast1, ...] = (1, 3, 5)

    @field_validator("dilations")
    @classmethod
    def _sorted_and_distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"dilations must differ from each other, but got {list(value)}")
        return tuple(sorted(value))


class SSA(Operator):
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


class CausalSSA(Operator):
    """SSA in which token n attends to tokens ≤ n: Eq. 11 without the local field."""

    kind: Literal["causal_ssa"] = "causal_ssa"


class LRFCausalSSA(_Attended):
    """Causal SSA with a localized receptive field on V, Eq. 11."""

    kind: Literal["lrf_causal_ssa"] = "lrf_causal_ssa"


class TokenQK(Operator):
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
