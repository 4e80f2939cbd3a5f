"""What a worker does with one candidate: run the objective, survive what can be survived, leave a done-marker."""

from __future__ import annotations

import faulthandler
import math
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from search.folder import read_text, write_text
from search.objective import Objective, Outcome
from search.record import Epoch
from search.storage import is_transient, patiently
from spaces.config import Candidate
from spaces.operators import Frozen

DONE = "result.json"
PROGRESS = "epochs.json"


class Task(Frozen):
    """One candidate to train; ``folder`` is its own, the same after a restart and on another node."""

    number: int
    identity: str
    candidate: Candidate
    folder: str
    attempt: int = 1


class Result(Frozen):
    """What a worker found. ``repeated`` counts epochs that were trained more than once after lost workers."""

    outcome: Outcome
    history: tuple[Epoch, ...] = ()
    seconds: float = 0.0
    repeated: int = 0


class _Progress(Frozen):
    history: tuple[Epoch, ...] = ()
    repeated: int = 0


Send = Callable[[tuple[Epoch, ...]], bool]
"""Takes the epochs that the driver has not seen yet; False asks the objective to stop."""


def done_marker(folder: str) -> Result | None:
    """The stored result of a candidate that a worker finished, even if no driver was there to hear of it."""
    text = read_text(f"{folder}/{DONE}")
    if text is None:
        return None
    try:
        return Result.model_validate_json(text)
    except ValidationError:
        return None  # torn by a full disk: train again from the checkpoint


def evaluate(objective: Objective, task: Task, send: Send, time_limit_s: float | None = None) -> Result:
    """Train one candidate, or answer from its done-marker.

    A problem of the candidate (out of memory, not finite, an exception, the time limit) is a `Result`. Storage that
    is full or away is waited for; the objective then goes on from its own checkpoint.

    Raises:
        OSError: The storage stayed away: a failure of the infrastructure, to be retried elsewhere.
    """
    if (earlier := done_marker(task.folder)) is not None:
        return earlier
    start = time.monotonic()
    log = _Log(task.folder, send)

    def finish(outcome: Outcome) -> Result:
        result = Result(outcome=outcome, history=log.history, seconds=time.monotonic() - start, repeated=log.repeated)
        if outcome.status != "stopped":  # a stopped trial is told by the driver, which decided it
            text = result.model_dump_json()
            patiently(lambda: write_text(f"{task.folder}/{DONE}", text), f"cannot write to {task.folder}")
        return result

    with _time_limit(time_limit_s, finish):
        return finish(_attempt(objective, task, log))


def _attempt(objective: Objective, task: Task, log: _Log) -> Outcome:
    def once() -> Outcome:
        try:
            return _finite(objective(task.candidate, task.folder, log.report))
        except Exception as error:
            if is_transient(error):
                raise
            return blame(error)

    return patiently(once, f"the storage of {task.folder} does not answer")


class _Log:
    """The epochs of a candidate over all its attempts, kept beside its checkpoint."""

    def __init__(self, folder: str, send: Send) -> None:
        self._address = f"{folder}/{PROGRESS}"
        self._send = send
        text = read_text(self._address)
        try:
            earlier = _Progress.model_validate_json(text) if text else _Progress()
        except ValidationError:
            earlier = _Progress()
        self.history, self.repeated = earlier.history, earlier.repeated
        self._sent = 0

    def report(self, epoch: Epoch) -> bool:
        kept = tuple(e for e in self.history if e.epoch < epoch.epoch)
        self.repeated += len(self.history) - len(kept)
        finite = {name: value for name, value in epoch.metrics.items() if math.isfinite(value)}
        self.history = (*kept, epoch.model_copy(update={"metrics": finite}))
        text = _Progress(history=self.history, repeated=self.repeated).model_dump_json()
        write_text(self._address, text, sync=False)
        unseen = tuple(e for e in self.history if e.epoch > self._sent)
        self._sent = epoch.epoch
        return self._send(unseen)


def _finite(outcome: Outcome) -> Outcome:
    """A complete outcome with a number that is none becomes infeasible, so that it never reaches a front."""
    bad = [f"{name} is {value}" for name, value in outcome.metrics.items() if not math.isfinite(value)]
    finite = {name: value for name, value in outcome.metrics.items() if math.isfinite(value)}
    errors = {name: value for name, value in outcome.errors.items() if math.isfinite(value)}
    if bad and outcome.status == "complete":
        return Outcome(status="infeasible", metrics=finite, reason=f"diverged: {', '.join(bad)}")
    return outcome.model_copy(update={"metrics": finite, "errors": errors})


def blame(error: BaseException) -> Outcome:
    """The outcome that an exception of the objective means: out of memory is a result, the rest a failure."""
    text = " ".join(str(error).split())
    out_of_memory = (
        isinstance(error, MemoryError)
        or "OutOfMemory" in type(error).__name__
        or "out of memory" in text.lower()
        or "can't allocate memory" in text.lower()
    )
    if out_of_memory:
        return Outcome(status="infeasible", reason=f"out of memory: {text[:300] or type(error).__name__}")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return Outcome(status="failed", reason=f"{type(error).__name__}: {text[:300]}{place}")


@contextmanager
def _time_limit(seconds: float | None, finish: Callable[[Outcome], Result]) -> Iterator[None]:
    """End the process when a trial hangs, after leaving a done-marker that says so.

    Nothing else ends a thread that is stuck in native code. The next attempt finds the marker and returns it. Should
    even the timer's thread not get to run, faulthandler's watchdog, which needs no Python, ends the process.
    """
    if seconds is None:
        yield
        return

    def end() -> None:
        finish(Outcome(status="failed", reason=f"the time limit of {seconds:g} s passed"))
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + 30, exit=True)
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()
