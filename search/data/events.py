"""Event-camera data as frames [T, C, H, W]: recordings integrated beforehand (search/data/convert.py), and a toy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from search.data.augment import augment
from search.data.dataset import DataSet, TensorPart, fingerprint, stratified
from search.data.files import FilePart
from spaces.config import Training


def read_frames(path: Path, shape: tuple[int, ...] | None = None) -> npt.NDArray[np.float32]:
    """Event counts [T, C, H, W] from an ``.npz`` file with the array ``frames``.

    Raises:
        ValueError: It is damaged, or its shape is not ``shape``; the message names it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            frames = file["frames"]
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is no .npz file with an array 'frames', or is damaged: {error}") from None
    if frames.ndim != 4 or (shape is not None and frames.shape != shape):
        raise ValueError(f"frames must be [T, C, H, W] = {list(shape or ())}, but {path} holds {list(frames.shape)}")
    counts: npt.NDArray[np.float32] = frames.astype(np.float32)
    return counts


class FrameFolder:
    """``CLASS/*.npz`` below a folder."""

    time_first = True

    def __init__(self, root: Path, classes: int, shape: tuple[int, ...] | None = None) -> None:
        names = sorted(path.name for path in root.iterdir() if path.is_dir())
        if len(names) != classes:
            raise ValueError(f"{root} must hold {classes} folders, one per class, but holds {len(names)}")
        files = [(path, label) for label, name in enumerate(names) for path in sorted((root / name).glob("*.npz"))]
        if not files:
            raise ValueError(f"{root} holds no .npz files")
        self.paths = [path for path, _ in files]
        self.names = [str(path.relative_to(root)) for path in self.paths]
        self.labels = np.array([label for _, label in files], dtype=np.int64)
        self.shape = shape or read_frames(self.paths[0]).shape

    def sample(self, index: int, training: Training | None) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(read_frames(self.paths[index], self.shape))
        if training is not None:
            x = augment(x[None], lambda batch: batch.transpose(0, 1), training, mirror=True)[:, 0]
        return x, torch.tensor(self.labels[index])


def _recordings(name: str, classes: int, hint: str, folder: Path | None = None, download: bool = False) -> DataSet:
    """``train/CLASS/*.npz`` and ``test/CLASS/*.npz``, or ``CLASS/*.npz`` of which a tenth each becomes test.

    Validation is a stratified tenth of what is left for training.
    """
    root = folder if folder is not None else Path("data") / name
    if not root.is_dir():
        raise ValueError(
            f"{name} is not in {root}: {hint}, then `python -m search.data.convert {name} SOURCE {root}`"
        )
    official = (root / "train").is_dir()
    source = FrameFolder(root / "train" if official else root, classes)
    rest = np.arange(len(source.labels))
    held = np.array([], dtype=np.int64)
    if not official:
        rest, held = stratified(source.labels, 0.1)
    train, validation = (rest[part] for part in stratified(source.labels[rest], 0.1))

    def open_test() -> FilePart:
        if not official:
            return FilePart(source, held)
        test = FrameFolder(root / "test", classes, source.shape)
        return FilePart(test, np.arange(len(test.labels)))

    steps, channels, height, width = source.shape
    return DataSet(
        name=name,
        kind="events",
        classes=classes,
        in_chans=channels,
        img_size=(height, width),
        frames=steps,
        train=FilePart(source, train),
        validation=FilePart(source, validation),
        open_test=open_test,
        split=fingerprint(*([source.names[i] for i in part] for part in (train, validation, held))),
    )


cifar10_dvs = partial(_recordings, "cifar10-dvs", 10, "get the .aedat files of CIFAR10-DVS (Li et al. 2017)")
dvs_gesture = partial(_recordings, "dvs-gesture", 11, "get DvsGesture (Amir et al. 2017)")


def moving_edges(folder: Path | None = None, download: bool = False) -> DataSet:
    """A bar that wraps around a 12×12 map in 4 steps: right, left, down, up; 1,200 recordings, made by a seed.

    A step is a third of the map, so the frames of a recording and of its reverse are the same set in another order:
    without time, opposite directions cannot be told apart, and at most half of the answers are right.
    """
    rng = np.random.default_rng(0)
    n, steps, side = 1200, 4, 12
    labels = np.arange(n) % 4
    x = (rng.random((n, steps, 2, side, side)) < 0.02).astype(np.uint8)
    start = rng.integers(0, side, n)
    for i, label in enumerate(labels):
        for t in range(steps):
            place = (start[i] + (1 if label % 2 == 0 else -1) * t * side // 3) % side
            polarity = rng.integers(0, 2, side)  # at random, or one frame would show the direction
            where = (polarity, np.arange(side), place) if label < 2 else (polarity, place, np.arange(side))
            x[i, t][where] = 1
    rest, test = stratified(labels, 0.25)
    train, validation = (rest[part] for part in stratified(labels[rest], 1 / 3))
    frames = torch.from_numpy(x).float()
    everything = TensorPart(frames, torch.from_numpy(labels), [0.0, 0.0], [1.0, 1.0], mirror=False)
    return DataSet(
        name="moving-edges",
        kind="events",
        classes=4,
        in_chans=2,
        img_size=(side, side),
        frames=steps,
        train=everything.subset(train),
        validation=everything.subset(validation),
        open_test=lambda: everything.subset(test),
        split=fingerprint(x, labels, train, validation, test),
    )
