"""Expected hypervolume improvement, exact for objectives that are independent given a candidate.

The region that no point of a front dominates is cut into disjoint boxes. A new point y gains, in every box, the
part of it above y, and the sides of that part are independent if the objectives are, so that the expectation of
the product is the product of expectations (Emmerich et al. 2008; Yang et al. 2019). A known objective is a
distribution of one value, so candidates whose costs are priced exactly need no other treatment.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from search.pareto import Points, nondominated

Box = tuple[tuple[float, ...], tuple[float, ...]]


def free_boxes(front: Points, reference: Points) -> tuple[Points, Points]:
    """The region below ``reference`` [m] that no row of ``front`` [n, m] dominates, as disjoint boxes.

    Returns:
        Lower and upper corners [boxes, m]; a lower corner may be minus infinity.
    """
    reference = np.asarray(reference, dtype=np.float64)
    front = np.asarray(front, dtype=np.float64).reshape(-1, len(reference))
    front = front[(front < reference).all(1)]
    front = np.unique(front[nondominated(front)], axis=0)
    boxes = _slice(front, tuple(reference))
    m = len(reference)
    return np.array([b[0] for b in boxes]).reshape(-1, m), np.array([b[1] for b in boxes]).reshape(-1, m)


def _slice(front: Points, reference: tuple[float, ...]) -> list[Box]:
    """Slices along the last objective; a box that goes on through the next slice is kept open, not cut."""
    if len(reference) == 1:
        best = float(front.min()) if len(front) else reference[0]
        return [((-np.inf,), (best,))]
    if len(reference) == 2:  # a staircase: the many slices of three objectives end here
        steps = front[np.argsort(front[:, 0])].tolist()
        left = [-np.inf, *(x for x, _ in steps)]
        right = [*(x for x, _ in steps), reference[0]]
        top = [reference[1], *(y for _, y in steps)]
        return [((x, -np.inf), (z, y)) for x, z, y in zip(left, right, top, strict=True)]
    front = front[np.argsort(front[:, -1], kind="stable")]
    levels = np.unique(front[:, -1])
    done: list[Box] = []
    opened: dict[Box, float] = dict.fromkeys(_slice(front[:0, :-1], reference[:-1]), -np.inf)
    for level in levels:
        slab = front[front[:, -1] <= level][:, :-1]
        slab = np.unique(slab[nondominated(slab)], axis=0)
        now = _slice(slab, reference[:-1])
        going_on = set(now)
        for box, start in opened.items():
            if box not in going_on:
                done.append(((*box[0], start), (*box[1], float(level))))
        opened = {box: opened.get(box, float(level)) for box in now}
    done += [((*box[0], start), (*box[1], reference[-1])) for box, start in opened.items()]
    return done


def expected_improvement(samples: list[Points], boxes: tuple[Points, Points]) -> npt.NDArray[np.float64]:
    """Expected gain in hypervolume of each candidate [n].

    Args:
        samples: Per objective, equally likely values of each candidate [n, s]; s is 1 for a known objective.
        boxes: What `free_boxes` returns.
    """
    lower, upper = boxes
    gain = np.ones((len(samples[0]), len(lower)))
    for j, values in enumerate(samples):
        edges, where = np.unique(np.concatenate((lower[:, j], upper[:, j])), return_inverse=True)
        below = np.empty((len(values), len(edges)))  # E[(edge - Y)+]
        for k, edge in enumerate(edges):
            below[:, k] = np.maximum(edge - values, 0).mean(1) if np.isfinite(edge) else 0.0
        gain *= below[:, where[len(lower) :]] - below[:, where[: len(lower)]]
    total: npt.NDArray[np.float64] = gain.sum(1)
    return total
