"""Where the energy and the memory of a configuration go, part by part."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lrf_models import build_model
from lrf_models.counters import counting, load_profile
from lrf_models.counters.energy import bound_events, estimate
from lrf_models.counters.events import Events
from lrf_models.counters.memory import attention_values, state_values
from lrf_models.counters.price import traced_model
from search import folder as layout
from search.checkpoint import load_weights
from search.config import RunConfig
from search.data import load
from spaces.config import Candidate

WORK = 2e10  # dense operations that a breakdown may take: a second or so
MOST = 64  # images


@lru_cache(maxsize=512)
def _measured(home: str, candidate: Candidate, data: str, data_dir: str | None, images: int) -> dict[str, Events]:
    """Events of a trained network on the first validation images."""
    model = build_model(candidate.model)
    load_weights(home, model)
    with torch.no_grad(), counting(model.eval()) as counter:
        for x, _ in islice(load(data, data_dir).validation.batches(images), 1):
            model(x)
    return counter.events()


def breakdown(folder: Path, run: RunConfig, candidate: Candidate) -> dict[str, Any]:
    """Energy and bytes of each part of a network, in the order of execution.

    Energy is that of events on validation images if weights and data are at hand; else its upper bound, at which
    every neuron fires at every step. Bytes are what the part keeps (state) or holds for attention while it runs, at
    the profile's precision.

    Returns:
        ``source`` says which energy it is; ``parts`` has rows [name, nJ, bytes].
    """
    traced = traced_model(candidate.model.canonical())[1]
    profile = load_profile(run.profile)
    images = int(min(max(WORK / sum(facts.dense for facts in traced.facts.values()), 2), MOST))
    try:
        home = f"{layout.trials_address(folder, run)}/{candidate.identity}"
        events = _measured(home, candidate, run.data, run.data_dir, images)
        source = f"counted on {images} validation images"
    except ValueError:  # the weights or the data are elsewhere
        events = {name: bound_events(row, True) for name, row in traced.rows.items() if row.facts.gated}
        source = "upper bound: as if every neuron fired at every step"
    found = estimate(traced.rows, events, profile, run.convention, timesteps=candidate.model.timesteps)
    groups: dict[str, list[str]] = {}
    for name in traced.rows:
        groups.setdefault(_part(name), []).append(name)
    parts = []
    for part, names in groups.items():
        energy = sum(torch.as_tensor(found.works[name].energy_pj).double().mean().item() for name in names) / 1e3
        facts = [traced.facts[name] for name in names]
        parts.append((part, energy, (state_values(facts) + attention_values(facts)) * profile.value_bytes))
    return {"source": source, "parts": [part for part in parts if any(part[1:])]}


def _part(name: str) -> str:
    """``blocks.0.attention.v.conv`` → ``block 1 attention``: a block by its halves, anything else as a whole."""
    words = name.split(".")
    numbered = len(words) > 2 and words[1].isdigit()
    return " ".join([words[0].removesuffix("s"), str(int(words[1]) + 1), words[2]]) if numbered else words[0]
