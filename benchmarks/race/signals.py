"""How well cheap signals rank networks by their trained accuracy, on a table of real trainings.

    python -m benchmarks.race.signals benchmarks/tables/digits.parquet [--epochs 25 100] [--networks 300]

Signals: costs that are known before training (the number of operations is AutoST's score), training-free scores
(search/signals.py), the accuracy with weights inherited from super-networks (search/supernet.py), one for each of
``--epochs``, the accuracy after each epoch of the table, and its extrapolation along a power law. Then what no signal
can be expected to beat: another seed, trained in full. And what a signal adds to a search: how well the model of
``priced`` ranks the rest after some trainings, with and without the signal as a feature.

The run file of the table lies beside it, with the same name. Prints a Markdown table, and writes it to
results/signals.json, from which the docs take it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.race.race import RESULTS
from benchmarks.tables.build import bound_space
from search.config import RunConfig, load_run_config
from search.samplers.domain import Domain
from search.samplers.surrogate import Array, GaussianProcess, Ints
from spaces.config import Candidate

PRICES = {
    "parameters": "parameters",
    "dense_macs": "operations (AutoST)",
    "energy_mj_high": "highest possible energy",
}
FLOOR = 1e-3
LESSONS = (10, 30, 100)
OUT = RESULTS / "signals.json"


class Verdict(NamedTuple):
    """What a signal is worth.

    Attributes:
        spearman: Rank correlation with the accuracy after the last epoch.
        found: Share of the best tenth of the networks that is in the signal's best tenth.
        networks: How many were ranked.
        seconds: Cost per network, in seconds of one core; what all networks share is divided by their number.
    """

    signal: str
    spearman: float
    found: float
    networks: int
    seconds: float


class Lesson(NamedTuple):
    """Rank correlation of the model of ``priced`` with the accuracy of networks it has not seen, with one signal."""

    signal: str
    after_10: float
    after_30: float
    after_100: float
    networks: int


class Table(NamedTuple):
    """The networks of a table that were trained in full.

    Attributes:
        identities: Of the networks, n.
        accuracy: After every epoch [n, epochs], seed 0.
        seconds: Spent up to every epoch [n, epochs].
        prices: Costs of each network [n], by name.
        repeats: Final accuracy of those with several seeds [r, seeds].
    """

    identities: list[str]
    accuracy: Array
    seconds: Array
    prices: dict[str, Array]
    repeats: Array


def extrapolated(errors: Array, epochs: int) -> Array:
    """Error after ``epochs`` epochs from those so far [n, e], e ≥ 3, as a power law a·t^-b fitted to logarithms.

    The last half of the epochs counts; b is bounded to [0, 3], so that one lucky epoch promises no miracle.
    """
    seen = errors.shape[1]
    t = np.arange(1, seen + 1)[seen // 2 - (seen == 3) :]
    x, y = np.log(t) - np.log(t).mean(), np.log(np.maximum(errors[:, t - 1], FLOOR))
    slope = np.clip((y @ x) / (x @ x), -3.0, 0.0)
    found: Array = np.exp(y.mean(1) + slope * (np.log(epochs) - np.log(t).mean()))
    return found


def curve_signals(accuracy: Array) -> dict[str, tuple[int, Array]]:
    """What accuracies [n, epochs] say before the last epoch: by name, the epochs seen and the signal [n]."""
    epochs, found = accuracy.shape[1], {}
    for seen in range(1, epochs):
        found[f"accuracy after epoch {seen}"] = seen, accuracy[:, seen - 1]
        if seen >= 3:
            found[f"extrapolated from {seen} epochs"] = seen, -extrapolated(1 - accuracy[:, :seen], epochs)
    return found


def best_found(signal: Array, final: Array, share: float = 0.1) -> float:
    """Share of the best networks that the signal has among its best as many; ties count by their expectation.

    The best are all that reach the accuracy of the one that closes the best tenth.
    """
    best = final >= np.sort(final)[-max(1, round(share * len(final)))]
    k = int(best.sum())
    cut = np.sort(signal)[-k]
    above, tied = signal > cut, signal == cut
    return float((best[above].sum() + best[tied].mean() * (k - above.sum())) / k)


def judge(name: str, signal: Array, final: Array, seconds: float) -> Verdict:
    from scipy.stats import spearmanr

    rank = float(spearmanr(signal, final).statistic)
    return Verdict(name, rank, best_found(signal, final), len(final), float(seconds))


def ceiling(repeats: Array, seconds: float) -> Verdict:
    """How well one full training predicts another with a different seed: means over all ordered pairs of seeds."""
    pairs = [judge("", repeats[:, i], repeats[:, j], 0) for i, j in permutations(range(repeats.shape[1]), 2)]
    rank, found = (float(np.mean([getattr(pair, key) for pair in pairs])) for key in ("spearman", "found"))
    return Verdict("another seed, trained in full", rank, found, len(repeats), seconds)


def read(path: Path) -> Table:
    """The table of a Parquet file.

    Raises:
        ValueError: There is no such table, or it holds fewer than three networks that were trained in full.
    """
    import pyarrow.parquet as pq

    if not path.exists():
        raise ValueError(f"there is no table {path}; benchmarks/tables/build.py makes it")
    rows = pq.read_table(path).to_pandas().sort_values(["identity", "seed", "epoch"])
    full = rows[rows.groupby(["identity", "seed"]).epoch.transform("size") == rows.epochs]
    first = full[full.seed == 0]
    identities = first.identity.unique().tolist()
    if len(identities) < 3:
        raise ValueError(f"{path} must hold three networks that were trained in full, but holds {len(identities)}")
    start = first[first.epoch == 1]
    last = full[full.epoch == full.epochs].pivot(index="identity", columns="seed", values="accuracy")
    return Table(
        identities,
        first.accuracy.to_numpy(dtype=np.float64).reshape(len(identities), -1),
        first.seconds.to_numpy(dtype=np.float64).reshape(len(identities), -1).cumsum(1),
        {name: start[name].to_numpy(dtype=np.float64) for name in PRICES},
        last.dropna().to_numpy(dtype=np.float64),
    )


def built(chosen: Sequence[Candidate], run: RunConfig, lengths: Sequence[int]) -> Iterator[tuple[str, Array, float]]:
    """Name, values [n] and seconds per network of the signals that need a network built."""
    import torch

    from search.data import load
    from search.signals import SIGNALS
    from search.supernet import SuperNetwork

    torch.set_num_threads(1)
    data = load(run.data, run.data_dir)

    def timed(score: Callable[[Candidate], float]) -> tuple[Array, float]:
        started = time.process_time()
        found = np.array([score(candidate) for candidate in chosen], dtype=np.float64)
        return found, (time.process_time() - started) / len(chosen)

    for name, score in SIGNALS.items():
        yield name, *timed(partial(score, data=data))
    for epochs in lengths:
        space, started = list(bound_space(run).enumerate()), time.process_time()
        net = SuperNetwork(space, run.seed)
        net.fit(data, space[0].training.model_copy(update={"epochs": epochs}))
        share = (time.process_time() - started) / len(space)
        accuracy, seconds = timed(partial(net.accuracy, data=data))
        yield f"super-network, {epochs} epochs", accuracy, share + seconds


def taught(features: Array, groups: Ints, final: Array, known: int, repeats: int = 20) -> float:
    """How well the model of ``priced`` ranks the networks that it has not seen, after ``known`` drawn at random.

    Args:
        features: Of each network [n, d], in [0, 1]; ``groups`` says which share a length scale.
    """
    from scipy.stats import spearmanr

    errors, found = np.log(np.maximum(1 - final, FLOOR)), []
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(final))
        seen, rest = order[:known], order[known:]
        model = GaussianProcess(groups).fit(features[seen], errors[seen], np.zeros(known))
        found.append(spearmanr(-model.predict(features[rest])[0], final[rest]).statistic)
    return float(np.mean(found))


def lessons(rows: Array, groups: Ints, signals: dict[str, Array], final: Array) -> list[Lesson]:
    """What each signal [n] adds to the model of ``priced``, which knows the choices and the prices, ``rows``."""
    found = []
    for name, extra in {"none": np.zeros((len(final), 0)), **{n: s[:, None] for n, s in signals.items()}}.items():
        features = np.hstack((rows, scaled(extra)))
        wider = np.append(groups, groups.max() + 1 + np.arange(extra.shape[1])).astype(np.int64)
        found.append(Lesson(name, *(taught(features, wider, final, known) for known in LESSONS), len(final)))
    return found


def scaled(columns: Array) -> Array:
    """Each column [n] between 0 and 1."""
    span = np.ptp(columns, axis=0)
    inside: Array = (columns - columns.min(0)) / np.where(span > 0, span, 1.0)
    return inside


def verdicts(
    table: Table, run: RunConfig, lengths: Sequence[int], networks: int
) -> tuple[list[Verdict], list[Lesson]]:
    """All signals, judged; those that need a network built on ``networks`` that are drawn at random."""
    from lrf_models.counters import price

    space = bound_space(run)
    by_identity = {candidate.identity: candidate for candidate in space.enumerate()}
    chosen = sorted(random.Random(0).sample(range(len(table.identities)), min(networks, len(table.identities))))
    candidates, final = [by_identity[table.identities[i]] for i in chosen], table.accuracy[:, -1]
    started, few = time.process_time(), candidates[:: max(1, len(candidates) // 50)]
    for candidate in few:
        price(candidate)
    seconds = (time.process_time() - started) / len(few)
    found = [judge(label, table.prices[name], final, seconds) for name, label in PRICES.items()]
    signals: dict[str, Array] = {}
    for name, signal, seconds in built(candidates, run, lengths):
        signals[name] = signal
        found.append(judge(name, signal, final[chosen], seconds))
    for name, (seen, signal) in curve_signals(table.accuracy).items():
        found.append(judge(name, signal, final, table.seconds[:, seen - 1].mean()))
        if name.startswith("accuracy"):
            signals[name] = signal[chosen]
    if table.repeats.shape[1] > 1 and len(table.repeats) > 2:
        found.append(ceiling(table.repeats, table.seconds[:, -1].mean()))
    domain = Domain(space)
    points = np.array([domain.encode(space.values_of(candidate)) for candidate in candidates])
    prices = scaled(np.log(np.column_stack([table.prices[name][chosen] for name in PRICES])))
    groups = np.append(domain.groups, domain.groups.max() + 1 + np.arange(len(PRICES))).astype(np.int64)
    return found, lessons(np.hstack((points, prices)), groups, signals, final[chosen])


def markdown(found: Sequence[Verdict], learned: Sequence[Lesson]) -> str:
    """The verdicts and the lessons as two tables."""
    rows = [
        "| signal | rank correlation with the final accuracy | best tenth found | networks | seconds per network |",
        "|---|---|---|---|---|",
    ]
    for v in found:
        rows.append(f"| {v.signal} | {v.spearman:.3f} | {v.found:.0%} | {v.networks} | {v.seconds:.2g} |")
    heads = " | ".join(f"after {known} trainings" for known in LESSONS)
    rows += ["", f"| signal beside choices and prices | {heads} | networks |", "|---" * 5 + "|"]
    for t in learned:
        rows.append(f"| {t.signal} | {t.after_10:.3f} | {t.after_30:.3f} | {t.after_100:.3f} | {t.networks} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--epochs", type=int, nargs="*", default=[25, 100], help="of super-networks")
    parser.add_argument("--networks", type=int, default=10**6, help="how many networks are built and scored")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    try:
        table, run = read(arguments.table), load_run_config(arguments.table.with_suffix(".yaml"))
        found, learned = verdicts(table, run, arguments.epochs, arguments.networks)
    except ValueError as error:
        parser.error(str(error))
    said: dict[str, Any] = {
        "table": arguments.table.stem,
        "verdicts": [verdict._asdict() for verdict in found],
        "lessons": [lesson._asdict() for lesson in learned],
    }
    arguments.out.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(markdown(found, learned))


if __name__ == "__main__":
    main()
