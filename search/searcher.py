"""Ray Tune's searcher and scheduler, as thin adapters around `search.engine.Search`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.engine import Search
from search.objective import Outcome
from search.record import Epoch
from search.worker import Result, Task

TASK, EPOCHS, RESULT = "task", "epochs", "result"
Epochs: TypeAdapter[tuple[Epoch, ...]] = TypeAdapter(tuple[Epoch, ...])


class TuneSearcher(Searcher):  # type: ignore[misc]
    """Hands the tasks of a `Search` to Ray Tune and what comes of them back.

    Tune pickles its searcher into scratch that nothing is ever read from; the search itself stays out of it.
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self.search = search
        self._tasks: dict[str, int] = {}
        self._errors: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "search"}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        task = self.search.next()
        if task is None:
            return Searcher.FINISHED if self.search.finished else None
        self._tasks[trial_id] = task.number
        return {TASK: task.model_dump_json(), **task.candidate.model_dump(mode="json")}  # loggers show the candidate

    def on_epochs(self, trial_id: str, text: str) -> bool:
        """Pass reported epochs on; False if the trial should stop."""
        return self.search.report(self._tasks[trial_id], Epochs.validate_json(text))

    def on_error(self, trial_id: str, text: str) -> None:
        """Remember why a trial's worker failed, for the case that Ray does not try again."""
        self._errors[trial_id] = text

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._tasks.pop(trial_id, None)
        reason = self._errors.pop(trial_id, "the worker was lost")
        if number is None:
            return
        if error and re.search(
            r"out of memory|OutOfMemory|low on memory|memory monitor|\bOOM\b", reason, re.IGNORECASE
        ):
            outcome = Outcome(status="infeasible", reason=f"out of memory, the worker was killed: {reason}")
            self.search.finish(number, Result(outcome=outcome))
        elif error:
            self.search.lost(number, reason)
        elif result is not None and RESULT in result:
            self.search.finish(number, Result.model_validate_json(result[RESULT]))
        elif self.search.was_stopped(number):
            self.search.finish(number, None)
        # Otherwise Tune is winding up after an interruption: the trial stays open for `resume`.

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a run is resumed from its study")


class TuneTicker(Callback):  # type: ignore[misc]
    """Gives the search a moment at every step of Tune's loop."""

    def __init__(self, searcher: TuneSearcher) -> None:
        self._searcher = searcher

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._searcher.search.tick()


class TuneScheduler(FIFOScheduler):  # type: ignore[misc]
    """Stops trials as the search says, and notes why workers fail."""

    def __init__(self, searcher: TuneSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if EPOCHS in result and not self._searcher.on_epochs(trial.trial_id, result[EPOCHS]):
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._searcher.on_error(trial.trial_id, _last_error(trial))


def _last_error(trial: Trial) -> str:
    """The last lines of what Tune wrote about a trial's failure, as one sentence."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return "the worker was lost"
    return " ".join(text.strip().split()[-60:])


def task_of(config: dict[str, Any]) -> Task:
    """The task that `TuneSearcher.suggest` put into a Tune configuration."""
    return Task.model_validate_json(config[TASK])
