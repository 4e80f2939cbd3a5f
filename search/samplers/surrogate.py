"""A small Gaussian process for mixed spaces: Matérn 5/2, one length scale per group of features, MAP estimates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_ROOT5 = np.sqrt(5.0)
SAMPLE = 200
"""Observations that the constants are estimated on; predictions use all."""


def _squared_distances(a: Array, b: Array) -> Array:
    """Between all rows [n, k]."""
    squares: Array = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    squares[squares < 0] = 0.0
    return squares


def _matern(squared: Array) -> tuple[Array, Array]:
    """Correlation at a squared scaled distance, and its factor 5/3·(1 + √5·r)·exp(-√5·r) in every derivative."""
    r = _ROOT5 * np.sqrt(squared)
    decay = np.exp(-r)
    return (1 + r + r * r / 3) * decay, (5.0 / 3.0) * (1 + r) * decay


@dataclass
class GaussianProcess:
    """Regression of one number on features in about [0, 1].

    Length scales have the dimension-scaled log-normal prior of Hvarfner et al. (2024, "Vanilla Bayesian
    optimization performs great in high dimensions"); signal and noise have wide log-normal priors around 1 and
    10⁻³ of the variance of the targets. Known extra noise per target (a value that was extrapolated) is added.

    Attributes:
        groups: Which length scale each feature uses [d].
        theta: Log of inverse length scales, of signal and of noise variance; a start for `fit`, then the result.
    """

    groups: Ints
    theta: Array | None = None

    def fit(self, x: Array, y: Array, extra: Array, afresh: bool = True) -> GaussianProcess:
        """Estimate the constants on ``x`` [n, d], ``y`` [n] with ``extra`` noise variance [n] in units of y².

        A start from earlier constants needs a few steps only: the data grow by one at a time. What few data seemed to
        say may trap it, so now and then the search should start ``afresh`` as well; the better end counts. Of many
        observations an even sample decides, which the rest hardly changes.
        """
        count = int(self.groups.max()) + 1
        mean = np.append(np.full(count, -(np.sqrt(2) + np.log(count) / 2)), [0.0, np.log(1e-3)])
        self._prior = mean, np.append(np.full(count, np.sqrt(3)), [1.0, 2.0])
        fresh = mean + np.append(np.ones(count), [0.0, 0.0])
        starts = [(self.theta, 8)] if self.theta is not None else []
        if not starts or afresh:
            starts.append((fresh, 30))
        self._centre_on(y)
        rows = np.unique(np.linspace(0, len(y) - 1, min(len(y), SAMPLE)).astype(np.int64))
        target = (y[rows] - self._centre) / self._scale
        apart = np.array([_squared_distances(x[rows][:, g], x[rows][:, g]) for g in self._members()])
        bounds = [(-6.0, 4.0)] * count + [(-3.0, 3.0), (np.log(1e-6), 0.0)]
        ends = [
            minimize(
                self._loss,
                start,
                args=(apart, target, extra[rows] / self._scale**2),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={"maxiter": steps},
            )
            for start, steps in starts
        ]
        self.theta = min(ends, key=lambda end: float(end.fun)).x
        return self.condition(x, y, extra)

    def settle(self, x: Array, y: Array) -> GaussianProcess:
        """Take observations [n, c] of several quantities with constants that were fitted on one; see `means`."""
        self._centre_on(y)
        self._x = self._stretched(x)
        correlation, _ = _matern(_squared_distances(self._x, self._x))
        factor = cholesky(self._kernel(self.theta, correlation, np.zeros(len(x))), lower=True)
        self._weights = cho_solve((factor, True), (y - self._centre) / self._scale)
        return self

    def means(self, x: Array) -> Array:
        """What is expected at ``x`` [k, d] of each quantity [k, c]."""
        means: Array = self._centre + self._scale * (self._cross(x) @ self._weights)
        return means

    def _centre_on(self, y: Array) -> None:
        self._centre, spread = y.mean(0), y.std(0)
        self._scale = np.where(spread > 0, spread, 1.0)

    def condition(self, x: Array, y: Array, extra: Array) -> GaussianProcess:
        """Take these observations with the constants as they were fitted."""
        self._x = self._stretched(x)
        correlation, _ = _matern(_squared_distances(self._x, self._x))
        kernel = self._kernel(self.theta, correlation, extra / self._scale**2)
        self._factor = cholesky(kernel, lower=True)
        self._weights = cho_solve((self._factor, True), (y - self._centre) / self._scale)
        return self

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of an observation at ``x`` [k, d]: what one more training would measure.

        The noise is part of it: a front holds what was measured, and where networks are all but equal in what they
        promise, the luck of the next training is what is left to gain.
        """
        assert self.theta is not None
        cross = self._cross(x)
        half = solve_triangular(self._factor, cross.T, lower=True)
        variance = np.exp(self.theta[-2]) + np.exp(self.theta[-1]) - (half**2).sum(0)
        return self._centre + self._scale * (cross @ self._weights), self._scale * np.sqrt(
            np.maximum(variance, 1e-12)
        )

    def _cross(self, x: Array) -> Array:
        assert self.theta is not None
        cross: Array = np.exp(self.theta[-2]) * _matern(_squared_distances(self._stretched(x), self._x))[0]
        return cross

    def _members(self) -> list[Ints]:
        return [np.flatnonzero(self.groups == g) for g in range(int(self.groups.max()) + 1)]

    def _stretched(self, x: Array) -> Array:
        assert self.theta is not None
        stretched: Array = x * np.exp(self.theta[:-2])[self.groups]
        return stretched

    @staticmethod
    def _kernel(theta: Array | None, correlation: Array, extra: Array) -> Array:
        assert theta is not None
        kernel: Array = np.exp(theta[-2]) * correlation
        kernel[np.diag_indices_from(kernel)] += np.exp(theta[-1]) + extra + 1e-8
        return kernel

    def _loss(self, theta: Array, apart: Array, target: Array, extra: Array) -> tuple[float, Array]:
        """Negative log posterior of the constants, and its gradient."""
        inverse_squares = np.exp(2 * theta[:-2])
        flat = apart.reshape(len(apart), -1)
        correlation, slope = _matern((inverse_squares @ flat).reshape(apart.shape[1:]))
        try:
            factor = cholesky(self._kernel(theta, correlation, extra), lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        inverse, _ = dpotri(factor, lower=1)
        inverse = inverse + np.tril(inverse, -1).T
        weights = inverse @ target
        outer = 0.5 * (inverse - np.outer(weights, weights))
        signal = np.exp(theta[-2])
        gradient = np.empty_like(theta)
        # d correlation / d log(1/l_g) = -slope · distance_g² / l_g²
        gradient[:-2] = -signal * inverse_squares * (flat @ (outer * slope).ravel())
        gradient[-2] = signal * (outer * correlation).sum()
        gradient[-1] = np.exp(theta[-1]) * np.trace(outer)
        away = (theta - self._prior[0]) / self._prior[1]
        loss = 0.5 * target @ weights + np.log(np.diag(factor)).sum() + 0.5 * (away**2).sum()
        return float(loss), gradient + away / self._prior[1]
