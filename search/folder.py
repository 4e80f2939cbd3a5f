"""The folder of a run: what lies where, who may write there, and small files on local or shared storage."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from search.config import RunConfig, load_run_config
from search.host import machine, versions

RUN_FILE = "run.yaml"
JOURNAL = "study.journal"
LOCK = "lock"
OWNER = "owner"
HOST = "host.yaml"
TRIALS = "trials"
RAY = "ray"


def create(config: RunConfig, run_dir: Path) -> Path:
    """Make the folder of a new run, with its run file, in one step.

    Raises:
        ValueError: The folder exists or cannot be written.
    """
    folder = run_dir / config.name
    if folder.exists():
        raise ValueError(f"the run folder {folder} exists; go on with it by `lrf-search resume {folder}`, or rename")
    draft = run_dir / f".{config.name}.{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        (draft / OWNER).write_text(uuid.uuid4().hex[:12], encoding="utf-8")
        note_session(draft)
        write_run_file(draft, config)
        draft.rename(folder)  # a folder with a run file, or none: never half of it
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ValueError(f"cannot make the run folder {folder}: {error.strerror}") from None
    return folder


def sessions(folder: Path) -> list[dict[str, str]]:
    """Packages and machines of a run, in the order in which they came; sessions that share them are one.

    They are notes for a reader: one that is damaged is left out, and keeps nobody from going on.
    """
    text = read_text(str(folder / HOST))
    try:
        noted = yaml.safe_load(text) if text else []
    except yaml.YAMLError:
        noted = []
    return [note for note in (noted if isinstance(noted, list) else [noted]) if isinstance(note, dict)]


def note_session(folder: Path) -> None:
    """Add this session's packages and machine, if they are new."""
    here = {"versions": versions(), "machine": machine()}
    if here not in (before := sessions(folder)):
        write_text(str(folder / HOST), yaml.safe_dump([*before, here], sort_keys=False))


def write_run_file(folder: Path, config: RunConfig) -> None:
    """Write the resolved run file, whole or not at all."""
    draft = folder / f"{RUN_FILE}.tmp"
    draft.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    os.replace(draft, folder / RUN_FILE)


def load(folder: Path) -> RunConfig:
    """The run file of an existing run.

    Raises:
        ValueError: There is no run in the folder, or its run file breaks a law.
    """
    if not (folder / RUN_FILE).is_file():
        raise ValueError(f"{folder} is no run folder: it has no {RUN_FILE}")
    return load_run_config(folder / RUN_FILE)


def find(run: str, run_dir: Path = Path("runs")) -> Path:
    """The folder that the user means: a path, or the name of a run in ``run_dir``."""
    path = Path(run)
    return path if path.exists() or len(path.parts) != 1 else run_dir / run


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Hold a run folder exclusively; gives the owner's name under which this folder's driver signs its trials.

    Raises:
        ValueError: Another driver holds it, or the folder cannot be written.
    """
    try:
        (folder / LOCK).touch()
    except OSError as error:
        raise ValueError(f"cannot write to the run folder {folder}: {error.strerror}") from None
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ValueError(f"another driver is working on {folder} ({file.read().strip() or 'unknown'})") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield (folder / OWNER).read_text(encoding="utf-8").strip()


def is_locked(folder: Path) -> bool:
    """Whether a driver on a machine that shares this folder's locks is at work."""
    try:
        with open(folder / LOCK, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def storage_address(folder: Path, config: RunConfig) -> str | Path:
    """Where the run's study is: the journal in the folder unless the run file names another storage."""
    return config.storage if config.storage is not None else folder / JOURNAL


def trials_address(folder: Path, config: RunConfig) -> str:
    """Where the folders of the trials are: a path, or an fsspec address on shared storage."""
    if config.storage_path is None:
        return str(folder.absolute() / TRIALS)
    return f"{config.storage_path.rstrip('/')}/{config.name}/{TRIALS}"


# --- small files, on a local path or an fsspec address ------------------------------------------------------


def read_text(address: str) -> str | None:
    """The content of a small file; None if there is none."""
    try:
        if "://" not in address:
            return Path(address).read_text(encoding="utf-8")
        import fsspec

        with fsspec.open(address, "r", encoding="utf-8") as file:
            return str(file.read())
    except FileNotFoundError:
        return None


def write_text(address: str, text: str, *, sync: bool = True) -> None:
    """Write a small file, whole or not at all (object stores do so by nature); ``sync`` for more than scratch."""
    if "://" in address:
        import fsspec

        with fsspec.open(address, "w", encoding="utf-8") as file:
            file.write(text)
        return
    path = Path(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
