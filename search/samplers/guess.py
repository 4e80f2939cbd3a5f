"""Prices of candidates that were not priced yet, guessed from those that were."""

from __future__ import annotations

import numpy as np

from search.samplers.surrogate import Array, GaussianProcess, Ints

LIMIT = 400


class Guess:
    """Grows with every exact price; constants are fitted anew whenever there are half as many more.

    Args:
        groups: Length-scale group of each feature.
    """

    def __init__(self, groups: Ints) -> None:
        self._groups = groups
        self._rows: list[Array] = []
        self._logs: list[Array] = []
        self._theta: Array | None = None
        self._fitted = 0
        self._model: GaussianProcess | None = None

    def learn(self, row: Array, logs: Array) -> None:
        """One exact price: features [d] and logarithms of its costs [c]."""
        self._rows.append(row)
        self._logs.append(logs)
        self._model = None

    def __call__(self, rows: Array) -> Array:
        """Logarithms of the costs [n, c] of features [n, d]; at least two prices must be known."""
        if self._model is None:
            x, y = np.array(self._rows[-LIMIT:]), np.array(self._logs[-LIMIT:])
            if len(self._rows) > 1.5 * self._fitted:
                self._fitted = len(self._rows)
                widest = int(np.argmax(y.std(0)))
                self._theta = GaussianProcess(self._groups).fit(x, y[:, widest], np.zeros(len(x))).theta
            self._model = GaussianProcess(self._groups, self._theta).settle(x, y)
        return self._model.means(rows)
