"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their Python format: 50,000 + 10,000 images of 3×32×32."""

from __future__ import annotations

import pickle
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from search.data.dataset import DataSet, TensorPart, check_labels, fingerprint, stratified

_FORMATS: dict[int, tuple[str, list[str], list[str], bytes]] = {
    10: ("cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"], b"labels"),
    100: ("cifar-100-python", ["train"], ["test"], b"fine_labels"),
}


class _Arrays(pickle.Unpickler):
    """The official files are pickles: NumPy arrays are all that they may create."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0], name) in {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy", "_reconstruct")}:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it would create {module}.{name}")


def read_batch(path: Path, classes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images [n, 3, 32, 32] and labels [n] of one file.

    Raises:
        ValueError: It is damaged, or a label is outside the classes; the message names it.
    """
    try:
        batch = _Arrays(BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(batch[_FORMATS[classes][3]], np.int64)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path} is no CIFAR-{classes} file, or is damaged: {error}") from None
    if len(pixels) != len(labels):
        raise ValueError(f"{path} is damaged: {len(pixels)} images, but {len(labels)} labels")
    check_labels(torch.from_numpy(labels), classes, path)
    return pixels, labels


def _cifar(classes: int, folder: Path | None = None, download: bool = False) -> DataSet:
    """90 / 10 % of the 50,000 for training and validation (stratified), the official 10,000 for test."""
    name = f"cifar{classes}"
    inside, train_files, test_files, _ = _FORMATS[classes]
    root = folder if folder is not None else Path("data") / name
    if root.name != inside:
        root = root / inside
    if not root.is_dir() and download:
        from lrf_models.torchvision_guard import import_torchvision

        import_torchvision()
        from torchvision import datasets

        getattr(datasets, f"CIFAR{classes}")(str(root.parent), download=True)
    if not root.is_dir():
        raise ValueError(
            f"{name} is not in {root}: unpack cifar-{classes}-python.tar.gz there, "
            "or have `lrf-search train` fetch it by --download"
        )

    def read(files: list[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        batches = [read_batch(root / file, classes) for file in files]
        return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])

    pixels, labels = read(train_files)
    train, validation = stratified(labels, 0.1)
    mean = (pixels[train].mean((0, 2, 3)) / 255).tolist()
    std = (pixels[train].std((0, 2, 3)) / 255).tolist()
    everything = TensorPart(torch.from_numpy(pixels), torch.from_numpy(labels), mean, std, mirror=True)

    def open_test() -> TensorPart:
        x, y = read(test_files)
        return TensorPart(torch.from_numpy(x), torch.from_numpy(y), mean, std, mirror=True)

    return DataSet(
        name=name,
        kind="image",
        classes=classes,
        in_chans=3,
        img_size=(32, 32),
        frames=None,
        train=everything.subset(train),
        validation=everything.subset(validation),
        open_test=open_test,
        split=fingerprint(pixels, labels, train, validation),
    )


cifar10 = partial(_cifar, 10)
cifar100 = partial(_cifar, 100)
