"""How well cheap signals rank networks by their trained accuracy: Spearman's rank correlation on a table.

    python -m benchmarks.race.signals benchmarks/tables/digits.parquet

Signals: the accuracy after each epoch, its extrapolation along a power law, and costs that are known before training
(among them the dense operations and the highest possible energy, which need no training at all).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
PRICES = ("parameters", "dense_macs", "energy_mj_high")
FLOOR = 1e-3


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


def judged(accuracy: Array, prices: dict[str, Array]) -> dict[str, float]:
    """Spearman's correlation of every signal with the accuracy after the last epoch.

    Args:
        accuracy: After every epoch [n, epochs].
        prices: Further signals of each network [n], by name.
    """
    from scipy.stats import spearmanr

    final, epochs = accuracy[:, -1], accuracy.shape[1]
    signals = dict(prices)
    for seen in range(1, epochs):
        signals[f"accuracy after {seen} epochs"] = accuracy[:, seen - 1]
        if seen >= 3:
            signals[f"extrapolated from {seen} epochs"] = -extrapolated(1 - accuracy[:, :seen], epochs)
    return {name: float(spearmanr(values, final).statistic) for name, values in signals.items()}


def read(path: Path) -> tuple[Array, dict[str, Array]]:
    """Accuracies [n, epochs] and prices [n] of the networks of a table that were trained in full, seed 0.

    Raises:
        ValueError: There is no such table, or it holds fewer than three such networks.
    """
    import pyarrow.parquet as pq

    if not path.exists():
        raise ValueError(f"there is no table {path}; benchmarks/tables/build.py makes it")
    rows = pq.read_table(path).to_pandas()
    rows = rows[rows.seed == 0].sort_values(["identity", "epoch"])
    groups = [group for _, group in rows.groupby("identity") if len(group) == group.epochs.iloc[0]]
    if len(groups) < 3:
        raise ValueError(f"{path} must hold three networks that were trained in full, but holds {len(groups)}")
    prices = {name: np.array([float(group[name].iloc[0]) for group in groups]) for name in PRICES}
    accuracy = np.array([group.accuracy.to_numpy(dtype=np.float64) for group in groups])
    return accuracy, prices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    try:
        accuracy, prices = read(arguments.table)
    except ValueError as error:
        parser.error(str(error))
    print("| signal | Spearman with the final accuracy | networks |\n|---|---|---|")
    for name, value in judged(accuracy, prices).items():
        print(f"| {name} | {value:.3f} | {len(accuracy)} |")


if __name__ == "__main__":
    main()
