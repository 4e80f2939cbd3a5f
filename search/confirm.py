"""Repeated seeds for the members of a final front: which of them are really better, and by how much.

A front is made of the luckiest of many trainings, so the seed that brought a member there is left out of its mean:
only fresh seeds count. Members that they move may let others in, which are confirmed then, until the front stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from search.metrics import Z95
from search.record import Record
from search.worker import Result, Task
from spaces.config import Candidate

TrainAll = Callable[[Sequence[Task]], Iterator[tuple[Task, Result]]]


def reseeded(candidate: Candidate, by: int) -> Candidate:
    """The same network and training with its ``by``-th fresh seed."""
    training = candidate.training.model_copy(update={"seed": candidate.training.seed + by})
    return candidate.model_copy(update={"training": training})


def settled(record: Record, repeats: Sequence[dict[str, float]]) -> Record:
    """A record whose metrics are means over fresh seeds, with standard errors of those means.

    The scatter over n seeds is widened by Student's t over 1.96, so that 1.96 standard errors are a 95 % interval
    for few seeds too. The error over validation images, which all seeds share, is added in squares. Fewer than two
    repeats change nothing.
    """
    if len(repeats) < 2:
        return record
    from scipy.special import stdtrit

    n = len(repeats)
    wider = float(stdtrit(n - 1, 0.975)) / Z95
    metrics, errors = dict(record.metrics), dict(record.errors)
    for name in record.metrics.keys() & set.intersection(*({*repeat} for repeat in repeats)):
        values = np.array([repeat[name] for repeat in repeats])
        metrics[name] = float(values.mean())
        if (scatter := float(values.std(ddof=1))) > 0:
            errors[name] = math.hypot(record.errors.get(name, 0.0), wider * scatter / math.sqrt(n))
    return record.model_copy(update={"metrics": metrics, "errors": errors, "seeds": n})


def confirm(
    members: Callable[[], Sequence[Record]],
    seeds: int,
    folder_of: Callable[[str], str],
    train_all: TrainAll,
    store: Callable[[str, list[dict[str, float]]], None],
    known: Callable[[], set[str]],
) -> None:
    """Train every member of the front with fresh seeds, until all of them are confirmed.

    Args:
        members: The front as it stands.
        seeds: Fresh seeds per member.
        folder_of: Address of the folder of a training, by identity; a finished one is not trained again.
        store: Keeps the metrics of one member's complete repeats, by identity.
        known: Identities that were confirmed before.
    """
    while todo := [r for r in members() if r.identity not in known() and r.candidate is not None]:
        tasks, owner = [], {}
        for record in todo:
            assert record.candidate is not None
            for by in range(1, seeds + 1):
                candidate = reseeded(record.candidate, by)
                owner[candidate.identity] = record.identity
                folder = folder_of(candidate.identity)
                tasks.append(
                    Task(number=record.number, identity=candidate.identity, candidate=candidate, folder=folder)
                )
        found: dict[str, list[dict[str, float]]] = {record.identity: [] for record in todo}
        for task, result in train_all(tasks):
            if result.outcome.status == "complete":
                found[owner[task.identity]].append(result.outcome.metrics)
        for identity, repeats in found.items():
            store(identity, repeats)
