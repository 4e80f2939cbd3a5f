"""Where a study is kept: a journal file by default, or a database by URL; both wait while their storage is away."""

from __future__ import annotations

import errno
import functools
import inspect
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._storage import JournalOperation

T = TypeVar("T")

PATIENCE_S = 600.0
"""How long a full disk or a database that does not answer is waited for before the run gives up."""

JOURNAL_SCHEME = "journal:"

_TRANSIENT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EPIPE,
}
_log = logging.getLogger("search")


def is_transient(error: BaseException) -> bool:
    """Whether an error is one of storage that is full or away for a while, so that trying again can help."""
    if isinstance(error, ConnectionError | TimeoutError | StorageInternalError):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT


def patiently(action: Callable[[], T], what: str) -> T:
    """The result of ``action``, called again while it fails for a transient reason, `PATIENCE_S` at most."""
    start, pause = time.monotonic(), 0.1
    while True:
        try:
            return action()
        except Exception as error:
            if not is_transient(error) or time.monotonic() - start > PATIENCE_S:
                raise
            if pause == 0.1:
                _log.warning("%s: %s; trying again", what, error)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


_SUGGESTING = {JournalOperation.CREATE_TRIAL, JournalOperation.SET_TRIAL_PARAM}


class Journal(JournalFileBackend):
    """Optuna's journal file, made to survive a full disk.

    A line that could be written only in part is taken back, because the next one would be glued to it and the
    file could never be read again. Parameters go to the disk with the claim that follows them: alone they mean
    nothing, and every synchronisation costs milliseconds.
    """

    def __init__(self, path: Path) -> None:
        self._guard = JournalFileSymlinkLock(str(path))
        super().__init__(str(path), lock_obj=self._guard)
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        sync = any(log.get("op_code") not in _SUGGESTING for log in logs)
        patiently(lambda: self._append(lines, sync), f"cannot write {self.path}")

    def _append(self, lines: bytes, sync: bool) -> None:
        self._guard.acquire()
        try:
            with open(self.path, "ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    left = memoryview(lines)
                    while left:
                        left = left[file.write(left) :]
                    if sync:
                        os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), size)
                    raise
        finally:
            self._guard.release()

    def trim(self) -> int:
        """Cut off a last line that a killed driver left unfinished; returns the number of bytes cut."""
        self._guard.acquire()
        try:
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self.path, whole)
            return len(content) - whole
        finally:
            self._guard.release()

    def last_line(self) -> bytes:
        """The last whole line."""
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        return content[content.rfind(b"\n", 0, max(end - 1, 0)) + 1 : end]


class Database(RDBStorage):
    """Optuna's relational storage; every call waits while the server is away."""


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Database, *args: Any, **kwargs: Any) -> Any:
        return patiently(lambda: method(self, *args, **kwargs), "the study's database does not answer")

    return call


# Optuna's cache in front of the database also calls methods that are not part of its interface.
for _name, _method in vars(RDBStorage).items():
    if inspect.isfunction(_method) and not _name.startswith("__"):
        setattr(Database, _name, _patient(_method))


def open_storage(address: str | Path, *, alone: bool, write: bool = True) -> BaseStorage:
    """The storage at a journal's path, ``journal:PATH``, or a database URL.

    Args:
        address: Where it is.
        alone: No other driver can be using it (the caller holds the run folder's lock), so that a lock that a
            killed driver left behind is removed at once instead of waited for.
        write: Whether a torn last line may be trimmed and a missing file made.

    Raises:
        ValueError: It is missing, damaged, or cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if isinstance(address, str) and not address.startswith(JOURNAL_SCHEME):
        return _open_database(address)
    path = Path(str(address).removeprefix(JOURNAL_SCHEME))
    if not write and not path.exists():
        raise ValueError(f"the study {path} is missing")
    try:
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            if alone:
                path.with_name(path.name + ".lock").unlink(missing_ok=True)
            journal = Journal(path)
            journal.trim()
        else:
            journal = Journal(path)
        # Optuna passes over a last line that it cannot read, as if it were torn; what is written after it is lost.
        json.loads(journal.last_line() or b"null")
        return JournalStorage(journal)
    except OSError as error:
        raise ValueError(f"cannot open the study {path}: {error.strerror}") from None
    except Exception as error:  # the journal is replayed: anything can be wrong with a damaged one
        raise ValueError(
            f"the study {path} is damaged ({type(error).__name__}: {error}); it was not changed"
        ) from None


def _open_database(url: str) -> BaseStorage:
    arguments: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        arguments = {"connect_args": {"timeout": 60}}
    for attempt in range(5):
        try:
            RDBStorage(url, engine_kwargs=arguments).remove_session()  # impatient: a wrong address must not wait
            return optuna.storages.get_storage(Database(url, engine_kwargs=arguments))
        except Exception as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            if "already exists" not in reason and "UNIQUE constraint" not in reason:
                break
            time.sleep(0.5 * (attempt + 1))  # another driver is making the tables
    raise ValueError(f"cannot open the study at {hide_password(url)}: {reason}")


def hide_password(url: str) -> str:
    """A database URL without its password, to be printed."""
    scheme, _, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}"
