"""From operations and events to energy, under a named hardware profile and a named convention.

Every figure is an estimate: arithmetic (and, under ``memory``, accesses) at published prices per operation; no
control, no leakage, no communication. docs/counters.md defines the conventions and cites the profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import torch
import yaml
from pydantic import Field, ValidationError, field_validator
from torch import Tensor

from lrf_models.counters.events import Events
from lrf_models.counters.operations import Facts
from lrf_models.counters.trace import Row
from spaces.config import explain
from spaces.operators import Frozen

Convention = Literal["paper", "event", "extended", "memory"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Amount = Tensor | float


class Profile(Frozen):
    """Prices of a piece of hardware in pJ. What is not published stays empty, and is reported as not priced.

    Attributes:
        source: Where the numbers were published. ``evidence``: what they rest on.
        mac_pj: Multiply-accumulate. ``ac_pj``: accumulate, or synaptic operation. ``add_pj``: addition, comparison.
        update_pj: Update of one neuron, where the hardware has a price for it.
        sram_pj: Access by size of the memory in bytes, linear in between; nothing is larger than the largest.
        all_in: Whether ``ac_pj`` contains everything else already.
        value_bytes: Bytes of one weight or state value.
    """

    name: str
    title: str
    source: str
    evidence: Literal["measured", "simulated", "estimated"]
    mac_pj: Price | None
    ac_pj: Price
    add_pj: Price | None = None
    update_pj: Price | None = None
    sram_pj: dict[Annotated[int, Field(gt=0)], Price] | None = None
    all_in: bool = False
    value_bytes: Annotated[int, Field(ge=1)] = 4
    note: str = ""

    @field_validator("sram_pj")
    @classmethod
    def _sorted(cls, value: dict[int, float] | None) -> dict[int, float] | None:
        if value is not None and not value:
            raise ValueError("sram_pj must hold at least one size, or be left out")
        return value and dict(sorted(value.items()))

    def access_pj(self, values: float) -> float:
        """One access to a memory of that many values."""
        assert self.sram_pj is not None
        return float(np.interp(values * self.value_bytes, list(self.sram_pj), list(self.sram_pj.values())))


class Policy(Frozen):
    """What the rules leave open.

    Attributes:
        decay: A decay constant costs a real multiplication, or a shift (an accumulation) if it is a power of two.
        integers: A value v on a synapse costs v accumulations, or one multiply-accumulate.
    """

    decay: Literal["multiply", "shift"] = "multiply"
    integers: Literal["accumulate", "multiply"] = "accumulate"


def profile_names() -> list[str]:
    """The profiles that come with the package."""
    folder = resources.files("lrf_models.counters") / "profiles"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


@lru_cache(maxsize=64)
def load_profile(source: str) -> Profile:
    """A profile by name, or from a YAML file of your own.

    Raises:
        ValueError: There is none of that name, or a field is missing, unknown or negative.
    """
    if source in profile_names():
        text = (resources.files("lrf_models.counters") / "profiles" / f"{source}.yaml").read_text(encoding="utf-8")
    elif Path(source).suffix in (".yaml", ".yml"):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the profile {source}: {error}") from None
    else:
        raise ValueError(f"a profile is one of {profile_names()} or a .yaml file, but got {source!r}")
    try:
        return Profile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise ValueError(f"profile {source}: {explain(error)}") from None


def check(profile: Profile, convention: str) -> None:
    """Whether a convention exists and the profile has what it needs.

    Raises:
        ValueError: It does not.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"a convention is one of {list(CONVENTIONS)}, but got {convention!r}")
    if convention == "memory" and profile.sram_pj is None:
        raise ValueError(f"convention 'memory' needs prices of memory accesses (sram_pj), which {profile.name} lacks")


@dataclass(frozen=True)
class Work:
    """What a module does under a convention: numbers, or one for every image.

    Attributes:
        mac: Multiply-accumulates and multiplications. ``ac``: accumulations that spikes cause (synaptic operations).
        shift: Decays as shifts. ``add``: additions and comparisons. ``update``: neuron updates.
        energy_pj: All of them that the profile prices.
        unpriced: Names of those that it does not.
    """

    mac: Amount
    ac: Amount
    shift: int
    add: int
    update: int
    energy_pj: Amount
    unpriced: tuple[str, ...]


def work(
    row: Row, events: Events | None, profile: Profile, convention: Convention, policy: Policy, timesteps: int = 1
) -> Work:
    """The work of one module.

    Args:
        events: What its spikes triggered; None if nothing gates it.
        timesteps: T of the network. ``paper`` multiplies the first convolution of a repeated image by it.
    """
    facts = row.facts
    if convention == "paper":
        repeats = timesteps // facts.steps if facts.edges == ("analog",) else 1
        mac: Amount = (facts.dense - facts.decay - facts.dense_gated) * repeats
        ac: Amount = events.rate * facts.dense_gated if events is not None else 0.0
    else:
        mac, ac = facts.real, 0.0
        strict = policy.integers == "multiply" and "integer" in facts.edges
        if events is not None and facts.gated:
            ac = 0.0 if strict else events.values
            mac = mac + (events.events if strict else 0)
    shifted = policy.decay == "shift"
    wide = convention in ("extended", "memory") and not profile.all_in
    leaks = facts.leaks if wide and profile.update_pj is None else 0
    decays = facts.decay + leaks
    shift, mac = (decays, mac) if shifted else (0, mac + decays)
    update = facts.updates if wide and profile.update_pj is not None else 0
    compares = facts.updates if wide and profile.update_pj is None else 0
    add = facts.adds + compares if wide else 0
    return _price(facts, mac, ac, shift, add, update, profile, convention)


def _price(
    facts: Facts,
    mac: Amount,
    ac: Amount,
    shift: int,
    add: int,
    update: int,
    profile: Profile,
    convention: Convention,
) -> Work:
    unpriced = []
    energy: Amount = ac * profile.ac_pj + shift * profile.ac_pj
    for name, amount, price in (
        ("multiply-accumulates", mac, profile.mac_pj),
        ("additions", add, profile.add_pj),
        ("neuron updates", update, profile.update_pj),
    ):
        if price is not None:
            energy = energy + amount * price
        elif not profile.all_in and bool(torch.as_tensor(amount).any()):
            unpriced.append(name)
    if convention == "memory":
        energy = energy + _accesses_pj(facts, mac, ac, shift, profile)
    return Work(mac, ac, shift, add, update, energy, tuple(unpriced))


def _accesses_pj(facts: Facts, mac: Amount, ac: Amount, shift: int, profile: Profile) -> Amount:
    """A multiply-accumulate reads a weight and an operand; an accumulation reads a weight, reads and writes its sum.

    A neuron update reads and writes every value of its state. A memory is as large as what one module keeps in it
    for one step.
    """
    if facts.kind == "neuron":
        values = facts.membranes * facts.steps  # 0 where no state survives a step
        return 2 * values * profile.access_pj(facts.membranes)
    held, sums = profile.access_pj(facts.held), profile.access_pj(facts.recurrent or facts.outputs / facts.steps)
    operand = profile.access_pj(facts.recurrent or facts.inputs)
    return mac * (held + operand) + (ac + shift) * (held + 2 * sums)


def bound_events(row: Row, firing: bool) -> Events:
    """What would be counted if every neuron fired at every step, or none."""
    facts, bounds = row.facts, row.bounds if firing else (0.0,)
    events = torch.tensor([float(facts.gated) * firing], dtype=torch.float64)
    product, least = float(np.prod(bounds)), min(bounds, default=0.0)
    return Events(events, events * product, torch.tensor([least], dtype=torch.float64))


@dataclass(frozen=True)
class Estimate:
    """Work and energy of a network, by module.

    Attributes:
        works: By module name.
        sops: Synaptic operations; ``energy_mj``: energy. One for every image.
        unpriced: What is in the energy with price zero, because the profile has none.
    """

    works: dict[str, Work]
    sops: Tensor
    energy_mj: Tensor
    unpriced: tuple[str, ...]


def estimate(
    rows: Mapping[str, Row],
    events: Mapping[str, Events],
    profile: Profile,
    convention: Convention = "event",
    policy: Policy | None = None,
    timesteps: int = 1,
) -> Estimate:
    """The energy of a network from its rows and events.

    Raises:
        ValueError: The profile lacks what the convention needs.
    """
    check(profile, convention)
    policy = policy or Policy()
    works = {name: work(row, events.get(name), profile, convention, policy, timesteps) for name, row in rows.items()}
    images = max((len(e.rate) for e in events.values()), default=1)
    zero = torch.zeros(images, dtype=torch.float64)
    sops, energy = zero.clone(), zero.clone()
    for item in works.values():
        sops += item.ac
        energy += item.energy_pj
    unpriced = dict.fromkeys(name for item in works.values() for name in item.unpriced)
    return Estimate(works, sops, energy * 1e-9, tuple(unpriced))
