"""What a network costs before it is trained, and what it turned out to cost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from lrf_models import build_model
from lrf_models.counters import memory
from lrf_models.counters.energy import Convention, Policy, bound_events, check, estimate, load_profile
from lrf_models.counters.events import Counter, counting
from lrf_models.counters.trace import Trace, shell, trace
from spaces.config import Candidate, Model
from spaces.cost import Cost
from spaces.operators import Frozen

DEFAULT_PROFILE = "45nm-fp32"


def price(candidate: Candidate | Model, profile: str = DEFAULT_PROFILE, convention: Convention = "event") -> Cost:
    """The price of a candidate's network: no data, no arithmetic, no weights.

    Bounds of the energy take every firing rate as 0 and as 1. Bytes are at the profile's precision, the peak at
    float32. Equal networks are priced once.

    Raises:
        ValueError: There is no such profile or convention, or they do not go together.
    """
    model = candidate.model if isinstance(candidate, Candidate) else candidate
    return _price(model.canonical(), profile, convention)


@lru_cache(maxsize=4096)
def _price(model: Model, profile_name: str, convention: Convention) -> Cost:
    profile = load_profile(profile_name)
    check(profile, convention)
    network, traced = traced_model(model)
    low, high = (
        estimate(
            traced.rows,
            {name: bound_events(row, firing) for name, row in traced.rows.items() if row.facts.gated},
            profile,
            convention,
            timesteps=model.timesteps,
        ).energy_mj.item()
        for firing in (False, True)
    )
    facts = traced.facts.values()
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        dense_macs=sum(row.dense for row in facts),
        weights_bytes=memory.weight_values(network) * profile.value_bytes,
        state_bytes=memory.state_values(facts) * profile.value_bytes,
        attention_bytes=memory.attention_values(facts) * profile.value_bytes,
        peak_bytes=traced.peak_bytes,
        energy_mj_low=low,
        energy_mj_high=high,
    )


def image_shape(model: Model) -> tuple[int, ...]:
    """The input of one inference: an image, or frames of events."""
    image = (1, model.in_chans, *model.img_size)
    return (model.timesteps, *image) if model.input == "events" else image


@lru_cache(maxsize=64)
def traced_model(model: Model) -> tuple[nn.Module, Trace]:
    """A network without weights, and its trace."""
    network = shell(lambda: build_model(model))
    return network, _remembered_trace(network, image_shape(model))


class Measurement(Frozen):
    """Cost of a trained network on real images: means over images, with standard errors over images.

    Attributes:
        energy_mj: Energy per image. ``sops``: synaptic operations per image.
        rates: Mean output of each neuron layer, per neuron and time step, by module name.
        densities: Events per operation that spikes gate, by module name: what `prior.expect` learns from.
        n: Number of images.
        unpriced: Operations that the profile has no price for; they count as nothing.
    """

    energy_mj: float
    energy_mj_se: float
    sops: float
    sops_se: float
    rates: dict[str, float]
    densities: dict[str, float] = {}
    n: int
    profile: str
    convention: Convention
    policy: Policy = Policy()
    unpriced: tuple[str, ...] = ()


def measurement(
    counter: Counter,
    profile: str = DEFAULT_PROFILE,
    convention: Convention = "event",
    policy: Policy | None = None,
) -> Measurement:
    """What a counter saw, under a profile and a convention.

    Raises:
        ValueError: It saw fewer than two images, or the profile lacks what the convention needs.
    """
    events = counter.events()
    traced = _remembered_trace(counter.model, counter.shape)
    estimated = estimate(traced.rows, events, load_profile(profile), convention, policy, timesteps_of(counter.model))
    energy, energy_se = mean_and_error(estimated.energy_mj)
    sops, sops_se = mean_and_error(estimated.sops)
    neurons = [name for name, row in traced.rows.items() if row.facts.kind == "neuron" and name in events]
    return Measurement(
        energy_mj=energy,
        energy_mj_se=energy_se,
        sops=sops,
        sops_se=sops_se,
        rates={name: events[name].rate.mean().item() for name in neurons},
        densities={
            name: found.values.mean().item() / traced.facts[name].gated
            for name, found in events.items()
            if traced.facts[name].gated
        },
        n=counter.images,
        profile=profile,
        convention=convention,
        policy=policy or Policy(),
        unpriced=estimated.unpriced,
    )


_TRACES: OrderedDict[str, Trace] = OrderedDict()
_KEPT = 64


def _remembered_trace(model: nn.Module, shape: tuple[int, ...]) -> Trace:
    """`trace`, once for all networks of the same settings and modules, priced or measured."""
    settings = getattr(model, "settings", None)
    if settings is None:  # what a foreign network does is not known from how it is printed
        return trace(model, shape)
    description = f"{shape} {settings} {model!r}"
    if description not in _TRACES:
        _TRACES[description] = trace(model, shape)
        if len(_TRACES) > _KEPT:
            _TRACES.popitem(last=False)
    return _TRACES[description]


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean over images and its standard error."""
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def timesteps_of(model: nn.Module) -> int:
    """T of a network that says it, else 1."""
    steps: int = getattr(getattr(model, "settings", None), "timesteps", 1)
    return steps


def measure(
    model: nn.Module,
    batches: Iterable[Tensor | Sequence[Any]],
    profile: str = DEFAULT_PROFILE,
    convention: Convention = "event",
    *,
    policy: Policy | None = None,
    target_error: float | None = None,
) -> Measurement:
    """The cost of a model on images; it is run in evaluation mode and left as it was.

    Args:
        batches: Images ``[B, C, H, W]`` or frames ``[T, B, C, H, W]``, alone or before labels.
        target_error: Stop as soon as the standard error of the energy is this share of the energy.

    Raises:
        ValueError: There are fewer than two images, a declared kind does not hold, or the profile does not fit.
    """
    check(load_profile(profile), convention)
    training = {module: module.training for module in model.modules()}
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    devices = [device] if device.type == "cuda" else []
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices), counting(model) as counter:
            for batch in batches:
                x = batch if isinstance(batch, Tensor) else batch[0]
                model(x.to(device))
                if target_error is not None and counter.images >= 30:
                    so_far = measurement(counter, profile, convention, policy)
                    if so_far.energy_mj_se <= target_error * so_far.energy_mj:
                        break
    finally:
        for module, flag in training.items():
            module.training = flag
    return measurement(counter, profile, convention, policy)
