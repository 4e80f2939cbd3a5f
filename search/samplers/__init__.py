"""Samplers by name: each a factory of an Optuna sampler, so that nothing is imported that a run does not use."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from search.metrics import METRICS

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from search.config import RunConfig
    from search.engine import Price
    from spaces.config import Candidate
    from spaces.space import Space


def _random(config: RunConfig, space: Space, price: Price | None, **options: Any) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=config.seed, **options)


def _qmc(config: RunConfig, space: Space, price: Price | None, **options: Any) -> BaseSampler:
    from optuna.samplers import QMCSampler

    return QMCSampler(**{"seed": config.seed, "scramble": True, **options})


def _population(config: RunConfig) -> int:
    """The default of 50 is random search for the first 50 trials."""
    return min(20, max(8, config.trials // 5))


def _nsga2(config: RunConfig, space: Space, price: Price | None, **options: Any) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(**{"seed": config.seed, "population_size": _population(config), **options})


def _nsga3(config: RunConfig, space: Space, price: Price | None, **options: Any) -> BaseSampler:
    from optuna.samplers import NSGAIIISampler

    return NSGAIIISampler(**{"seed": config.seed, "population_size": _population(config), **options})


def _tpe(config: RunConfig, space: Space, price: Price | None, **options: Any) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(**{"seed": config.seed, "multivariate": True, "group": True, **options})


def _gp(config: RunConfig, space: Space, price: Price | None, **options: Any) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(**{"seed": config.seed, **options})


def _brute_force(config: RunConfig, space: Space, price: Price | None, **options: Any) -> BaseSampler:
    from optuna.samplers import BruteForceSampler

    class BruteForce(BruteForceSampler):
        """Ends by repeating itself: to stop a study is refused outside of Optuna's own loop."""

        def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
            try:
                super().after_trial(study, trial, state, values)
            except RuntimeError:
                return

    if continuous := space.continuous():
        raise ValueError(f"sampler 'brute-force' needs a discrete space, but {continuous[0]} is continuous")
    return BruteForce(**{"seed": config.seed, **options})


def _priced(
    config: RunConfig, space: Space, price: Price | None, signals: Sequence[str] = (), **options: Any
) -> BaseSampler:
    if len(config.objectives) > MOST_PRICED:
        raise ValueError(
            f"sampler 'priced' takes at most {MOST_PRICED} objectives, because the boxes of a front's exact "
            f"hypervolume grow too many, but got {list(config.objectives)}; 'nsga3' and 'tpe' take more"
        )
    from search.samplers.priced import PricedSampler
    from search.samplers.quote import Quotes, curves, optima

    scores = _scores(config, signals)  # also where there is no price yet: an unknown one is refused before the run
    quote = Quotes(config, price, scores) if price is not None else None
    known = {"space": space, "quote": quote, "optimum": optima(config), "curve": curves(config)}
    return PricedSampler(**{"seed": config.seed, **known, **options})


def _scores(config: RunConfig, names: Sequence[str]) -> list[Callable[[Candidate], float]]:
    """Training-free scores on the data of a run; torch is loaded only for those who ask for some."""
    if not names:
        return []
    from search.data import load
    from search.signals import scores

    data = load(config.data, config.data_dir)
    return [partial(score, data=data) for score in scores(names)]


MOST_PRICED = 3
_UNTAUGHT = {"random", "qmc", "brute-force"}
"""They do not learn from what they proposed before."""
_RIGID = {"nsga2", "nsga3", "gp", "qmc"}
"""They work on the parameters that every network has, and draw the others at random."""

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "random": _random,
    "qmc": _qmc,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "tpe": _tpe,
    "gp": _gp,
    "brute-force": _brute_force,
    "priced": _priced,
}


def make_sampler(config: RunConfig, space: Space, price: Price | None = None) -> BaseSampler:
    """The sampler that a run asks for.

    Raises:
        ValueError: Its name or one of its options is unknown, or it cannot do what the run asks.
    """
    import warnings

    from optuna.exceptions import ExperimentalWarning

    name = config.sampler.name
    if name not in SAMPLERS:
        raise ValueError(f"a sampler is one of {sorted(SAMPLERS)}, but got {name!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            return SAMPLERS[name](config, space, price, **config.sampler.options)
        except TypeError as error:
            raise ValueError(f"sampler {name!r} does not take these options: {error}") from None


def caveats(config: RunConfig, space: Space) -> list[str]:
    """What a sampler cannot do of what the run asks, and does in a lesser way; one sentence each."""
    name, found = config.sampler.name, []
    if name in _RIGID:
        rng = random.Random(0)
        common = set.intersection(*(set(space.draw(rng)) for _ in range(50)))
        if rest := sorted(set(space.parameters()) - common):
            found.append(
                f"sampler {name!r} works on the {len(common)} parameters that all networks of the space have; the "
                f"other {len(rest)} it draws at random ({', '.join(rest[:3])}{', …' if len(rest) > 3 else ''}); "
                "'tpe' and 'priced' learn them too"
            )
    if name in _UNTAUGHT and (measured := sorted(n for n in config.budgets if not METRICS[n].priced)):
        found.append(
            f"sampler {name!r} does not learn from trials that break a budget, so it goes on proposing what breaks "
            f"that on {', '.join(measured)}"
        )
    return found
