"""From a run file to a search that can be worked on, and what every session of a run does first."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from search import folder as layout
from search import study as book
from search.config import RunConfig
from search.engine import DRAWS, Price, Search
from search.record import Record
from search.samplers import make_sampler
from search.storage import open_storage
from spaces.config import Candidate, candidate_from
from spaces.cost import Cost
from spaces.presets import load_space, starting_points
from spaces.space import Space
from spaces.tree import Parameter, Scalar


def resolve(config: RunConfig, model: dict[str, Any], training: dict[str, Any]) -> RunConfig:
    """The run file with its space written out, bound to ``model`` fields of the data and ``training`` values.

    What is written into the run folder does not change when a named space or a recipe does.

    Raises:
        ValueError: The space, its bindings or a starting point break a law, the space holds no network at all, or
            the sampler is unknown.
    """
    space = load_space(config.space)
    bound = space.bound(model, training)
    config = config.model_copy(update={"space": {"name": space.name, **bound.raw}})
    make_sampler(config, bound)
    for values in config.warm_start:
        _by_values(values, bound)
    if not config.start:
        bound.sample(random.Random(config.seed), DRAWS)
    if len(starts(config, bound)) > config.trials:
        raise ValueError(
            f"starting points <= trials must hold, but got (start={len(config.start)}, trials={config.trials})"
        )
    return config


def starts(config: RunConfig, space: Space) -> list[tuple[dict[str, Any], Candidate]]:
    """The starting points of a run as parameter values, with the candidates that they build.

    Raises:
        ValueError: One is unknown, is not in the space, or breaks a law.
    """
    made = starting_points(space)
    found = []
    for start in config.start:
        if isinstance(start, str):
            if start not in made:
                raise ValueError(f"a starting point of this space is one of {sorted(made)}, but got {start!r}")
            found.append((dict(space.values_of(made[start])), made[start]))
            continue
        found.append(_by_values(start, space))
    return found


def _by_values(start: dict[str, Any], space: Space) -> tuple[dict[str, Any], Candidate]:
    if unknown := sorted(set(start) - set(space.parameters())):
        raise ValueError(f"start: no parameter of the space is called {unknown[0]!r}")
    values: dict[str, Any] = {}

    def pick(name: str, parameter: Parameter) -> Scalar:
        if name not in start:
            raise ValueError(f"start: the parameter {name!r} has no value")
        try:
            values[name] = parameter.label(start[name])
        except ValueError as error:
            raise ValueError(f"start: {name} {error}") from None
        picked: Scalar = values[name]
        return picked

    return values, space.build(pick)


def moved(candidates: Iterable[Candidate], space: Space, model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parameter values of those candidates of earlier runs that a space contains, each network once.

    They take over what the new data set (``model``) and the new training decide, where the space leaves them no
    choice; the rest of a candidate must be one that the space can build.
    """
    decided = {"model": model.keys(), "training": space.raw["training"].keys()}
    fixed = {
        part: {key: space.raw[part][key] for key in keys if not isinstance(space.raw[part][key], Mapping)}
        for part, keys in decided.items()
    }
    parameters = space.parameters()
    found: dict[str, dict[str, Any]] = {}
    for candidate in candidates:
        raw = candidate.model_dump(mode="json")
        with suppress(ValueError):
            there = candidate_from({part: {**raw[part], **fixed[part]} for part in fixed})
            labels = space.values_of(there)
            found.setdefault(there.identity, {name: parameters[name].value(labels[name]) for name in labels})
    return list(found.values())


def priced_by(config: RunConfig) -> Price:
    """`lrf_models.counters.price` under the run's profile; remembered, because samplers ask again and again."""
    from lrf_models.counters import price

    @functools.lru_cache(maxsize=10_000)
    def of(model: str) -> Cost:
        return price(Candidate.model_validate_json(f'{{"model": {model}}}'), config.profile, config.convention)

    return lambda candidate: of(candidate.model.model_dump_json())


def open_search(
    config: RunConfig,
    folder: Path,
    owner: str,
    price: Price | None,
    listen: Callable[[Record], None] = lambda record: None,
) -> Search:
    """The search of a run folder, reconciled with what happened before. The caller holds the folder's lock.

    Raises:
        ValueError: The study is damaged, cannot be reached, or was made for something else.
    """
    alone = config.storage is None
    space = load_space(config.space)
    storage = open_storage(layout.storage_address(folder, config), alone=alone)
    study = book.open_study(config, storage)
    # A sampler is not stored. With the same seed again it would propose again what it proposed in the last session.
    seed = config.seed + len(study.get_trials(deepcopy=False)) + (0 if alone else int(owner, 16) % 2**20)
    study.sampler = make_sampler(config.model_copy(update={"seed": seed}), space, price)
    if book.READY not in study.user_attrs:
        for values, candidate in starts(config, space):
            book.enqueue(study, values, candidate.identity, origin="start")
        for warm in config.warm_start:
            values, candidate = _by_values(warm, space)
            book.enqueue(study, values, candidate.identity, origin="warm")
        study.set_user_attr(book.READY, True)
    return Search(
        config,
        space,
        study,
        price=price,
        trials=layout.trials_address(folder, config),
        owner=None if alone else owner,
        listen=listen,
    )
