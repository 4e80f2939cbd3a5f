"""Data sets by name. One line here adds one; docs/data.md says where each finds its files."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from search.data.ade20k import ade20k
from search.data.cifar import cifar10, cifar100
from search.data.dataset import DataSet
from search.data.digits import digits
from search.data.events import cifar10_dvs, dvs_gesture, moving_edges
from search.data.folders import image_folder, imagenet
from search.data.idx import fashion_mnist

__all__ = ["DataSet", "DATA_SETS", "load"]

Loader = Callable[[Path | None, bool], DataSet]

DATA_SETS: dict[str, Loader] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "image-folder": image_folder,
    "imagenet": imagenet,
    "cifar10-dvs": cifar10_dvs,
    "dvs-gesture": dvs_gesture,
    "moving-edges": moving_edges,
    "ade20k": ade20k,
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
