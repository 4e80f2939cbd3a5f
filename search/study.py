"""The Optuna study of a run: the truth about it. What is written there, how it is read, what it is told.

Each trial carries two user attributes, both the JSON of a `Record`: ``claim`` when it is handed out and ``end`` when
it is over. A trial is what those say; Optuna's own state and values are what the sampler learns from.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from search import folder as layout
from search.config import Bound, RunConfig
from search.confirm import settled
from search.metrics import METRICS, priced_metrics
from search.record import Record
from search.storage import open_storage
from search.worker import Result
from spaces.config import explain

CLAIM, END, INTENT = "claim", "end", "intent"
OWNER, IDENTITY, ATTEMPT, ORIGIN = "owner", "identity", "attempt", "origin"
LOST = "lost: "
FINGERPRINT, READY, TEST, CONFIRM = "fingerprint", "ready", "test:", "confirm:"

# What may differ when a study is opened again: it changes neither what a number means nor what is comparable.
_FREE = {"name", "sampler", "schedule", "trials", "seed", "start", "warm_start", "loggers"}
_FREE |= {"resources", "storage", "storage_path", "data_dir"}


def fingerprint(config: RunConfig) -> dict[str, str]:
    """What two sessions on one study must share, each part as canonical JSON."""
    content = config.model_dump(mode="json")
    parts = {key: json.dumps(value, sort_keys=True) for key, value in content.items() if key not in _FREE}
    parts["directions"] = json.dumps([METRICS[name].direction for name in config.objectives])
    return parts


def open_study(config: RunConfig, storage: BaseStorage) -> optuna.Study:
    """The study of a run, made if it does not exist; its sampler is still Optuna's default.

    Raises:
        ValueError: A study of that name exists for another space, other objectives or another training.
    """
    directions = [METRICS[name].direction for name in config.objectives]
    try:
        study = optuna.load_study(storage=storage, study_name=config.name)
    except KeyError:
        with suppress(DuplicatedStudyError):  # another driver was faster
            optuna.create_study(storage=storage, study_name=config.name, directions=directions)
        study = optuna.load_study(storage=storage, study_name=config.name)
    mine = fingerprint(config)
    theirs = study.user_attrs.get(FINGERPRINT)
    found = [direction.name.lower() for direction in study.directions]
    if found != directions:
        raise ValueError(f"study {config.name!r} has the directions {found}, but the run asks for {directions}")
    if theirs is None:
        if study.get_trials(deepcopy=False):
            raise ValueError(f"study {config.name!r} exists in this storage and was not made by lrf-search")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(config.objectives))
        study.set_user_attr(FINGERPRINT, mine)
    elif theirs != mine:
        key = next(key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key))
        here, there = _shorten(mine.get(key)), _shorten(theirs.get(key))
        raise ValueError(f"the run file says {key} = {here}, but its study was made with {there}")
    return study


def _shorten(text: str | None) -> str:
    text = str(text)
    if len(text) <= 200:
        return text
    return f"{text[:150]}… (hash {hashlib.sha256(text.encode()).hexdigest()[:12]})"


# --- reading ------------------------------------------------------------------------------------------------


def records(folder: Path) -> list[Record]:
    """Every trial of a run, in the order of their numbers; reads only.

    Raises:
        ValueError: The folder holds no run, or its study is missing, damaged, or cannot be reached.
    """
    config = layout.load(folder)
    storage = open_storage(layout.storage_address(folder, config), alone=False, write=False)
    try:
        study = optuna.load_study(storage=storage, study_name=config.name)
    except KeyError:
        return []  # killed before anything was proposed
    return study_records(study)


def study_records(study: optuna.Study) -> list[Record]:
    """Every trial of a study, with what was measured later of the front: test metrics and repeated seeds."""
    repeats = repeated_seeds(study)
    tests = {key.removeprefix(TEST): value for key, value in study.user_attrs.items() if key.startswith(TEST)}
    found = []
    for trial in study.get_trials(deepcopy=False):
        record = record_of(trial)
        if record is None:
            continue
        if record.identity in tests and record.status == "complete":
            record = record.model_copy(update={"test": tests[record.identity]})
        if record.identity in repeats and record.status == "complete":
            record = settled(record, repeats[record.identity])
        found.append(record)
    return found


def over(found: Sequence[Record]) -> set[str]:
    """Identities of the candidates that need no more training, each counted once however often it was handed out."""
    ended = {r.identity for r in found if r.status in ("complete", "stopped", "infeasible", "failed")}
    return ended - {r.identity for r in found if r.status in ("running", "waiting")}


def record_of(trial: FrozenTrial) -> Record | None:
    """One trial as a record; None for a suggestion that was given up before it became one.

    Raises:
        ValueError: What the study holds is no record.
    """
    text = trial.user_attrs.get(END) or trial.user_attrs.get(CLAIM)
    if text is not None:
        try:
            record = Record.model_validate_json(text)
        except ValidationError as error:
            raise ValueError(f"the study is damaged: trial {trial.number}: {explain(error)}") from None
        update: dict[str, Any] = {"parameters": dict(trial.params)}
        if trial.state.is_finished() and END not in trial.user_attrs:
            update |= {"status": "failed", "reason": "ended from outside"}
        return record.model_copy(update=update)
    if trial.state == TrialState.WAITING:
        return Record(
            number=trial.number,
            status="waiting",
            identity=trial.user_attrs.get(IDENTITY, ""),
            parameters=trial.system_attrs.get("fixed_params", {}),
            attempt=trial.user_attrs.get(ATTEMPT, 1),
            origin=trial.user_attrs.get(ORIGIN, "sampler"),
        )
    return None


def store_test(folder: Path, identity: str, metrics: Mapping[str, float]) -> None:
    """Keep the test metrics of a member of the final front. The caller holds the run folder's lock."""
    _writable(folder).set_user_attr(f"{TEST}{identity}", dict(metrics))


def store_repeats(folder: Path, identity: str, repeats: Sequence[Mapping[str, float]]) -> None:
    """Keep what fresh seeds gave for a member of the final front. The caller holds the run folder's lock."""
    _writable(folder).set_user_attr(f"{CONFIRM}{identity}", [dict(repeat) for repeat in repeats])


def repeated_seeds(study: optuna.Study) -> dict[str, list[dict[str, float]]]:
    """Metrics of the repeats of every member that was confirmed, by identity."""
    attributes = study.user_attrs.items()
    return {key.removeprefix(CONFIRM): value for key, value in attributes if key.startswith(CONFIRM)}


def confirmed(folder: Path) -> set[str]:
    """Identities whose seeds were repeated."""
    return set(repeated_seeds(_writable(folder)))


def _writable(folder: Path) -> optuna.Study:
    config = layout.load(folder)
    storage = open_storage(layout.storage_address(folder, config), alone=config.storage is None)
    return optuna.load_study(storage=storage, study_name=config.name)


# --- telling ------------------------------------------------------------------------------------------------


def verdict(
    record: Record, objectives: Sequence[str], budgets: Mapping[str, Bound]
) -> tuple[TrialState, list[float] | None, dict[str, float]]:
    """What the sampler is told of a record: state, values and constraints (kept if ≤ 0).

    Only a full, finite training is COMPLETE. A failure of the candidate is PRUNED with a broken constraint, because a
    trial told FAIL is ignored and would be proposed again. FAIL is for lost infrastructure.
    """
    match record.status:
        case "complete":
            values = [record.metrics[name] for name in objectives]
            assert all(math.isfinite(value) for value in values)
            return (
                TrialState.COMPLETE,
                values,
                {name: _signed(b, record.metrics[name]) for name, b in budgets.items()},
            )
        case "stopped":
            return TrialState.PRUNED, None, {}
        case "rejected":
            return TrialState.PRUNED, None, dict(record.violations) or {"law": 1.0}
        case "infeasible" | "failed":
            return TrialState.PRUNED, None, {record.status: 1.0}
        case _:
            return TrialState.FAIL, None, {}


def _signed(bound: Bound, value: float) -> float:
    """Positive by how much a bound is broken, negative by how much is left."""
    sides = []
    if bound.max is not None:
        sides.append(value - bound.max)
    if bound.min is not None:
        sides.append(bound.min - value)
    return max(sides)


def final(record: Record, result: Result, config: RunConfig) -> Record:
    """The record of a trial that is over, with what its outcome lacks said plainly."""
    outcome = result.outcome
    exact = priced_metrics(record.cost) if record.cost is not None else {}
    metrics = {**exact, **outcome.metrics}
    status, reason, violations = outcome.status, outcome.reason, {}
    if status == "complete":
        needed = dict.fromkeys((*config.objectives, *config.budgets))
        if missing := [name for name in needed if name not in metrics]:
            status, reason = "failed", f"the objective returned no {', '.join(missing)}"
        else:
            amounts = {name: bound.violation(metrics[name]) for name, bound in config.budgets.items()}
            violations = {name: amount for name, amount in amounts.items() if amount > 0}
    elif status == "stopped" and reason is None:
        last = max((epoch.epoch for epoch in result.history), default=0)
        reason = f"not among the best 1/{config.schedule.reduction} after {last} epochs"
    update = {"status": status, "reason": reason, "metrics": metrics, "errors": outcome.errors}
    return record.model_copy(
        update=update | {"violations": violations, "history": result.history, "seconds": result.seconds}
    )


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    record: Record,
    objectives: Sequence[str],
    budgets: Mapping[str, Bound],
    like: Record | None = None,
) -> None:
    """Finish a trial; a repeat is told ``like`` the trial whose result it shares.

    Nothing happens if another driver, which took this one for dead, has finished the trial meanwhile.
    """
    state, values, constraints = verdict(like or record, objectives, budgets)
    try:
        trial.set_user_attr(END, record.model_dump_json(exclude={"parameters"}))
        told = trial.constraints
        for name, value in constraints.items():
            if name not in told:
                trial.set_constraint(name, value)
        study.tell(trial, values, state, skip_if_finished=True)
    except UpdateFinishedTrialError:
        return


def give_up(study: optuna.Study, trial: optuna.Trial, reason: str | None = None) -> None:
    """FAIL a trial: lost, with its reason in the record, or without a trace if it never became a candidate."""
    text = trial.user_attrs.get(CLAIM)
    try:
        if text is not None and reason is not None:
            lost = Record.model_validate_json(text).model_copy(update={"status": "failed", "reason": LOST + reason})
            trial.set_user_attr(END, lost.model_dump_json(exclude={"parameters"}))
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
    except UpdateFinishedTrialError:
        return


def enqueue(
    study: optuna.Study, parameters: Mapping[str, Any], identity: str, *, origin: str, attempt: int = 1
) -> None:
    """Queue a candidate, unless it is in the queue already."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if identity and any(trial.user_attrs.get(IDENTITY) == identity for trial in waiting):
        return
    study.enqueue_trial(
        dict(parameters), user_attrs={IDENTITY: identity, ORIGIN: origin, ATTEMPT: attempt}, skip_if_exists=False
    )


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a finished trial stands for nothing but lost infrastructure."""
    return trial.state == TrialState.FAIL
