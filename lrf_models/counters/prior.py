"""What a candidate will probably cost, from the measured costs of others: between the bounds of a price.

A module of the candidate gets the event density (events per operation that spikes gate) of the modules in the same
place of a measured network, block numbers aside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import mean

import torch

from lrf_models.counters.energy import Convention, bound_events, check, estimate, load_profile
from lrf_models.counters.events import Events
from lrf_models.counters.price import DEFAULT_PROFILE, Measurement, traced_model
from lrf_models.counters.trace import Row
from spaces.config import Candidate, Model
from spaces.operators import Frozen


class Expectation(Frozen):
    """Energy as each neighbour alone would predict it: mean, lowest and highest."""

    energy_mj: float
    low: float
    high: float


def expect(
    candidate: Candidate | Model,
    neighbours: Sequence[Measurement],
    profile: str = DEFAULT_PROFILE,
    convention: Convention = "event",
) -> Expectation:
    """The energy of a candidate from trained neighbours; no data, no arithmetic.

    Raises:
        ValueError: There is no neighbour, or the profile lacks what the convention needs.
    """
    if not neighbours:
        raise ValueError("an expected energy needs a measured neighbour or more, but got none")
    hardware = load_profile(profile)
    check(hardware, convention)
    model = candidate.model if isinstance(candidate, Candidate) else candidate
    rows = traced_model(model.canonical())[1].rows
    energies = [
        estimate(rows, _scaled(rows, neighbour), hardware, convention, timesteps=model.timesteps).energy_mj.item()
        for neighbour in neighbours
    ]
    return Expectation(energy_mj=mean(energies), low=min(energies), high=max(energies))


def _scaled(rows: dict[str, Row], neighbour: Measurement) -> dict[str, Events]:
    """Events as the neighbour's densities say; a place that it has not gets its mean density."""
    by_role: dict[str, list[float]] = {}
    for name, density in neighbour.densities.items():
        by_role.setdefault(_role(name), []).append(density)
    overall = mean(neighbour.densities.values()) if neighbour.densities else 0.0
    scaled = {}
    for name, row in rows.items():
        if not row.facts.gated:
            continue
        density = mean(by_role.get(_role(name), [overall]))
        top = bound_events(row, True)
        events = torch.clamp(top.events * density, max=top.values)
        scaled[name] = Events(events, events, torch.minimum(torch.full_like(top.rate, density), top.rate))
    return scaled


def _role(name: str) -> str:
    return re.sub(r"\d+", "*", name)
