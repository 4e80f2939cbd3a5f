"""Who trains which candidate: every candidate once, by one of several drivers, over any number of sessions."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from search import study as book
from search.config import RunConfig
from search.record import Record
from search.worker import done_marker

CLAIM_PATIENCE_S = 30.0
"""How long another driver may stay silent between its claim of a candidate and its confirmation."""
BEAT_S = 10.0
"""How often a driver shows the others that it lives."""
DEAD_S = 120.0
"""How long a driver may show nothing before the others take over its trials."""


class Ledger:
    """One driver's account of one study.

    Args:
        config: The run; ``trials`` bounds the different candidates that all drivers train together.
        study: The truth.
        owner: Name under which this driver signs; None if no other driver can be at work on the study.
        folder_of: Address of the folder of a candidate, by identity.
    """

    def __init__(
        self, config: RunConfig, study: optuna.Study, owner: str | None, folder_of: Callable[[str], str]
    ) -> None:
        self.config, self.study, self.owner = config, study, owner
        self.holders: dict[str, int] = {}
        """Number of the trial that holds a candidate, by identity; lost ones hold nothing."""
        self.retries: set[int] = set()
        """Queued trials of candidates that were lost."""
        self._folder_of = folder_of
        self._counted: set[str] = set()
        self._open: set[int] = set()
        self._confirmed: set[int] = set()
        self._twins: dict[int, list[tuple[optuna.Trial, Record]]] = {}
        self._seen = 0
        self._beat = -BEAT_S
        self._beats: dict[str, tuple[object, float]] = {}
        self.sync()

    @property
    def used(self) -> int:
        """Different candidates handed out so far, over all sessions and drivers."""
        return len(self._counted)

    # --- reading ---

    def sync(self) -> list[FrozenTrial]:
        """Take note of what is new in the study; returns all its trials, as they were then."""
        everything = self.study.get_trials(deepcopy=False)
        numbers = [*sorted(self._open), *range(self._seen, len(everything))]
        self._seen = len(everything)
        for number in numbers:
            trial = everything[number]
            if trial.state == TrialState.WAITING:
                self._open.add(number)
                if trial.user_attrs.get(book.ATTEMPT, 1) > 1:
                    self.retries.add(number)
                continue
            self.retries.discard(number)
            if trial.state == TrialState.RUNNING:
                self._open.add(number)
                if number in self._confirmed or book.CLAIM not in trial.user_attrs:
                    continue
                self._confirmed.add(number)
            else:
                self._open.discard(number)
                self._confirmed.discard(number)
            if (record := book.record_of(trial)) is not None:
                self._note(record, lost=book.is_lost(trial))
        return everything

    def _note(self, record: Record, *, lost: bool = False) -> None:
        if not record.identity or record.status in ("rejected", "duplicate") or record.duplicate_of is not None:
            return
        self._counted.add(record.identity)
        if not lost:
            self.holders.setdefault(record.identity, record.number)
        elif self.holders.get(record.identity) == record.number:
            del self.holders[record.identity]
        if record.status != "running":
            self._tell_twins(record.number, None if lost else record)

    # --- writing ---

    def confirm(self, trial: optuna.Trial, record: Record) -> None:
        """Write down that a candidate is being trained."""
        trial.set_user_attr(book.CLAIM, record.model_dump_json(exclude={"parameters"}))
        self._confirmed.add(trial.number)
        self._open.add(trial.number)
        self._note(record)

    def end(self, trial: optuna.Trial, record: Record) -> None:
        """Write down how a trial ended, and tell the sampler."""
        book.tell(self.study, trial, record, self.config.objectives, self.config.budgets)
        self._note(record)

    def requeue(self, trial: optuna.Trial, record: Record, reason: str) -> None:
        """Queue a lost candidate again, then fail its trial: killed in between, `enqueue` finds it queued."""
        book.enqueue(self.study, trial.params, record.identity, origin=record.origin, attempt=record.attempt + 1)
        book.give_up(self.study, trial, reason)
        self.sync()

    # --- repeats ---

    def repeat(self, trial: optuna.Trial, record: Record, holder: int) -> None:
        """Answer a repeat from the trial that holds the candidate, now or when that one is over."""
        record = record.model_copy(update={"status": "duplicate", "duplicate_of": holder})
        original = book.record_of(self.study.get_trials(deepcopy=False)[holder])
        assert original is not None
        if original.status != "running":
            self._answer(trial, record, original)
            return
        trial.set_user_attr(book.CLAIM, record.model_dump_json(exclude={"parameters"}))
        if self.owner is not None:
            trial.set_user_attr(book.OWNER, self.owner)
        self._twins.setdefault(holder, []).append((trial, record))

    def _answer(self, trial: optuna.Trial, record: Record, original: Record) -> None:
        shared = {"reason", "cost", "metrics", "errors", "violations"}
        record = record.model_copy(update={name: getattr(original, name) for name in shared})
        book.tell(self.study, trial, record, self.config.objectives, self.config.budgets, like=original)

    def _tell_twins(self, number: int, original: Record | None) -> None:
        for trial, record in self._twins.pop(number, []):
            if original is None:
                book.give_up(self.study, trial, "it repeated a trial that was lost")
            else:
                self._answer(trial, record, original)

    # --- several drivers ---

    def claim(self, trial: optuna.Trial, record: Record) -> bool:
        """Make a candidate this driver's own; False if another driver has it or the trials are used up.

        Claim, look, confirm. Of two drivers at least one sees the other's claim. One that sees an unconfirmed claim
        in its way yields if that claim has the lower number, and waits for its fate if it has the higher one. Claims
        and confirmations must be looked for in the same state of the study: a claim that is confirmed between two
        looks would be seen by neither.
        """
        if self.owner is not None:
            trial.set_user_attr(book.OWNER, self.owner)
            trial.set_user_attr(book.INTENT, record.identity)
        since = time.monotonic()
        while True:
            everything = self.sync() if self.owner is not None else []
            holder = self.holders.get(record.identity)
            if holder is not None:
                self.repeat(trial, record, holder)
                return False
            full = record.identity not in self._counted and self.used >= self.config.trials
            rivals = self._rivals(trial, record, everything) if everything else []
            if full or any(rival.number < trial.number for rival in rivals):
                book.give_up(self.study, trial)
                return False
            if not rivals:
                self.confirm(trial, record)
                return True
            if time.monotonic() - since > CLAIM_PATIENCE_S:  # died between claim and confirmation
                for rival in rivals:
                    book.give_up(self.study, optuna.Trial(self.study, rival._trial_id))
            time.sleep(0.05)

    def _rivals(self, trial: optuna.Trial, record: Record, everything: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Unconfirmed claims of other drivers on the same candidate, or on the last places of the run."""
        claims = [
            everything[number]
            for number in sorted(self._open)
            if number != trial.number
            and everything[number].state == TrialState.RUNNING
            and book.INTENT in everything[number].user_attrs
            and book.CLAIM not in everything[number].user_attrs
        ]
        if record.identity not in self._counted and self.used + len(claims) >= self.config.trials:
            return claims
        return [claim for claim in claims if claim.user_attrs[book.INTENT] == record.identity]

    def tick(self) -> bool:
        """Show the other drivers that this one lives, and take over from the dead; whether anything was taken over.

        A driver is dead when others saw no sign of it for `DEAD_S` of their own time: clocks are never compared.
        """
        now = time.monotonic()
        if self.owner is None or now - self._beat < BEAT_S:
            return False
        if now - self._beat > 3 * BEAT_S:  # this one was away itself: what it missed proves nothing
            self._beats.clear()
        self._beat = now
        self.study.set_user_attr(f"beat:{self.owner}", time.time())
        self.sync()
        signs = self.study.user_attrs
        dead = set()
        for trial in self._running():
            other = trial.user_attrs.get(book.OWNER, "")
            if other == self.owner or (not other and trial.number in self._confirmed):
                continue
            key = other or f"trial {trial.number}"
            sign = signs.get(f"beat:{other}")
            if key not in self._beats or self._beats[key][0] != sign:
                self._beats[key] = (sign, now)
            elif now - self._beats[key][1] > DEAD_S:
                dead.add(other)
        return bool(dead) and self.reconcile(dead) > 0

    # --- after an interruption ---

    def reconcile(self, dead: Collection[str] = ()) -> int:
        """Settle the trials that nobody works on any more; returns how many there were.

        A finished one is told from its done-marker. Any other is failed, and its candidate queued again, to go on
        from its checkpoint. Only for a start, or for drivers that are known to be ``dead``.
        """
        orphans = [trial for trial in self._running() if self._is_orphan(trial, dead)]
        for orphan in orphans:
            if not _is_repeat(orphan):
                self._recover(orphan)
        self.sync()
        for orphan in orphans:
            if _is_repeat(orphan):
                self._recover_repeat(orphan)
        self.sync()
        return len(orphans)

    def _running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _is_orphan(self, trial: FrozenTrial, dead: Collection[str]) -> bool:
        owner = trial.user_attrs.get(book.OWNER, "")
        if dead:
            return owner in dead
        return self.owner is None or owner == self.owner

    def _recover(self, orphan: FrozenTrial) -> None:
        trial = optuna.Trial(self.study, orphan._trial_id)
        record = book.record_of(orphan)
        if record is None:  # killed while the sampler was suggesting
            if fixed := orphan.system_attrs.get("fixed_params"):
                known = orphan.user_attrs
                origin, attempt = known.get(book.ORIGIN, "sampler"), known.get(book.ATTEMPT, 1)
                book.enqueue(self.study, fixed, known.get(book.IDENTITY, ""), origin=origin, attempt=attempt)
            book.give_up(self.study, trial)
        elif book.END in orphan.user_attrs:  # killed between its record and the sampler's ear
            if (record.reason or "").startswith(book.LOST):
                book.give_up(self.study, trial)
            else:
                self.end(trial, record)
        elif (result := done_marker(self._folder_of(record.identity))) is not None:
            self.end(trial, book.final(record, result, self.config))
        else:
            self.requeue(trial, record, "the driver ended while it ran")

    def _recover_repeat(self, orphan: FrozenTrial) -> None:
        trial = optuna.Trial(self.study, orphan._trial_id)
        record = book.record_of(orphan)
        assert record is not None
        assert record.duplicate_of is not None
        holder = self.study.get_trials(deepcopy=False)[record.duplicate_of]
        original = book.record_of(holder)
        if original is None or original.status == "running" or book.is_lost(holder):
            book.give_up(self.study, trial, "it repeated a trial that was lost")
        else:
            self._answer(trial, record, original)


def _is_repeat(trial: FrozenTrial) -> bool:
    record = book.record_of(trial)
    return record is not None and record.duplicate_of is not None
