"""Dominance, ranks, spread and hypervolume. Every function takes points to be minimised, one row per point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


def dominates(a: Points, b: Points) -> npt.NDArray[np.bool_]:
    """Whether each row of ``a`` [n, m] dominates each row of ``b`` [k, m]: [n, k]."""
    no_worse = (a[:, None, :] <= b[None, :, :]).all(-1)
    better = (a[:, None, :] < b[None, :, :]).any(-1)
    both: npt.NDArray[np.bool_] = np.logical_and(no_worse, better)
    return both


def nondominated(points: Points) -> npt.NDArray[np.bool_]:
    """Which rows of ``points`` [n, m] no other row dominates: [n]. Equal points do not dominate each other."""
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    keep = np.ones(len(points), dtype=bool)
    # Sorted by the sum, a point can only be dominated by an earlier one; row by row keeps memory at n·m.
    for i in np.argsort(points.sum(1), kind="stable"):
        if keep[i]:
            keep &= ~((points[i] <= points).all(1) & (points[i] < points).any(1))
    return keep


def ranks(points: Points) -> npt.NDArray[np.int64]:
    """Non-domination rank of each row [n]: 0 for the front, 1 for the front of the rest, and so on."""
    beats = np.ones((len(points), len(points)), dtype=bool)
    same = beats.copy()
    for column in points.T:
        beats &= column[:, None] <= column[None, :]
        same &= column[:, None] == column[None, :]
    beats &= ~same
    beaten_by = beats.sum(0)
    rank = np.full(len(points), -1, dtype=np.int64)
    level = 0
    while (rank < 0).any():
        front = np.flatnonzero((rank < 0) & (beaten_by == 0))
        rank[front] = level
        beaten_by -= beats[front].sum(0)
        level += 1
    return rank


class Fronts:
    """Points that come one by one, and their `ranks`: adding one costs O(n), ranking all of them O(n²).

    Attributes:
        points: [n, m], in the order in which they came.
        ranks: [n].
    """

    def __init__(self, points: Points) -> None:
        self.points, self.ranks = points, ranks(points)

    def add(self, point: Points) -> None:
        """Add a point [m]. A rank is one more than the highest of those that dominate, so few others change."""
        above = dominates(self.points, point[None])[:, 0]
        level = int(self.ranks[above].max()) + 1 if above.any() else 0
        self.points = np.concatenate((self.points, point[None]))
        self.ranks = np.append(self.ranks, level)
        moved = np.array([len(self.points) - 1])
        while len(moved):
            level_mates = np.flatnonzero(self.ranks == level)
            pushed = dominates(self.points[moved], self.points[level_mates]).any(0)
            moved, level = level_mates[pushed], level + 1
            self.ranks[moved] = level


def crowding(points: Points) -> Points:
    """Crowding distance of each row within one front (Deb et al. 2002) [n]; infinite at the ends."""
    n, m = points.shape
    distance = np.zeros(n)
    for j in range(m):
        order = np.argsort(points[:, j], kind="stable")
        span = points[order[-1], j] - points[order[0], j] if n else 0.0
        distance[order[:1]] = distance[order[-1:]] = np.inf
        if span > 0 and n > 2:
            distance[order[1:-1]] += (points[order[2:], j] - points[order[:-2], j]) / span
    return distance


def hypervolume(points: Points, reference: Points) -> float:
    """Volume dominated by ``points`` [n, m] and bounded by ``reference`` [m]; exact, for any m ≥ 1.

    Points that do not dominate the reference count nothing. Two objectives are a sweep; more are sliced along the
    last one (While et al. 2006), which is fast enough for fronts of some hundred points and three objectives.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, len(reference))
    points = points[(points < reference).all(1)]
    if len(points) == 0:
        return 0.0
    points = np.unique(points[nondominated(points)], axis=0)
    return _volume(points, np.asarray(reference, dtype=np.float64))


def _volume(front: Points, reference: Points) -> float:
    if len(reference) == 1:
        return float(reference[0] - front.min())
    if len(reference) == 2:
        front = front[np.argsort(front[:, 0], kind="stable")]
        ceiling = np.concatenate(([reference[1]], np.minimum.accumulate(front[:, 1])[:-1]))
        return float(((reference[0] - front[:, 0]) * np.maximum(ceiling - front[:, 1], 0)).sum())
    front = front[np.argsort(front[:, -1], kind="stable")]
    depths = np.append(front[:, -1], reference[-1])
    volume = 0.0
    for i in range(len(front)):
        if (thickness := depths[i + 1] - depths[i]) > 0:
            slab = front[: i + 1, :-1]
            volume += thickness * _volume(slab[nondominated(slab)], reference[:-1])
    return float(volume)
