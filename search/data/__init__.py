"""Data sets by name. One line here adds one; docs/data.md says where each finds its files."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from search.data.dataset import DataSet
from search.data.digits import digits

__all__ = ["DataSet", "DATA_SETS", "load"]

Loader = Callable[[Path | None, bool], DataSet]

DATA_SETS: dict[str, Loader] = {
    "digits": digits,
}


@lru_cache(maxsize=2)
def load(name: str, data_dir: str | None = None, download: bool = False) -> DataSet:
    """A data set by name; kept in memory, so that the trials of a worker process read it once.

    Args:
        data_dir: Where its files are; None looks where packages install them, and in ``data/NAME``.
        download: Fetch missing files, for the sets that can.

    Raises:
        ValueError: Unknown name, missing or damaged files: what to install or where to put them.
    """
    if name not in DATA_SETS:
        raise ValueError(f"data must be one of {sorted(DATA_SETS)}, but got {name!r}")
    return DATA_SETS[name](None if data_dir is None else Path(data_dir).expanduser(), download)
