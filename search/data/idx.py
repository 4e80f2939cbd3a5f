"""Fashion-MNIST (Xiao et al. 2017) from IDX files: 60,000 + 10,000 images of 28×28."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from search.data.dataset import DataSet, TensorPart, check_labels, fingerprint, stratified

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of bytes, plain or compressed by gzip.

    Raises:
        ValueError: It is no IDX file of bytes, or is cut short; the message names it.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no IDX file of bytes: it starts with {content[:4].hex() or 'nothing'}")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4 : min(start, len(content) // 4 * 4)], ">u4").tolist()
    if len(shape) != content[3] or len(content) - start != math.prod(shape):
        raise ValueError(f"{path} is damaged: {math.prod(shape)} bytes after the header, but {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def fashion_mnist(folder: Path | None = None, download: bool = False) -> DataSet:
    """54,000 images for training, 6,000 of the 60,000 for validation (stratified), the 10,000 for test."""
    folder = _find(folder, download)
    pixels, labels = _images(folder, "train")
    train, validation = stratified(labels, 0.1)
    mean, std = [float(pixels[train].mean() / 255)], [float(pixels[train].std() / 255)]
    everything = TensorPart(torch.from_numpy(pixels), torch.from_numpy(labels), mean, std, mirror=True)

    def open_test() -> TensorPart:
        x, y = _images(folder, "t10k")
        return TensorPart(torch.from_numpy(x), torch.from_numpy(y), mean, std, mirror=True)

    return DataSet(
        name="fashion-mnist",
        kind="image",
        classes=10,
        in_chans=1,
        img_size=(28, 28),
        frames=None,
        train=everything.subset(train),
        validation=everything.subset(validation),
        open_test=open_test,
        split=fingerprint(pixels, labels, train, validation),
    )


def _find(folder: Path | None, download: bool) -> Path:
    places = [folder] if folder is not None else [DEBIAN, Path("data/fashion-mnist")]
    for place in places:
        for inside in (place, place / "FashionMNIST" / "raw"):
            if _file(inside, "train-images-idx3-ubyte") is not None:
                return inside
    if download:
        from lrf_models.torchvision_guard import import_torchvision

        import_torchvision()
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(places[-1]), download=True)
        return places[-1] / "FashionMNIST" / "raw"
    raise ValueError(
        f"fashion-mnist is not in {' or '.join(map(str, places))}: install Debian's package dataset-fashion-mnist, "
        "put its four IDX files there, or have `lrf-search train` fetch it by --download"
    )


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _images(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images [n, 1, 28, 28] and labels [n] of ``train`` or ``t10k``."""
    arrays = []
    for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        path = _file(folder, name)
        if path is None:
            raise ValueError(f"{folder / name} (or .gz) does not exist")
        arrays.append((read_idx(path), path))
    (pixels, _), (labels, source) = arrays
    if pixels.shape[1:] != (28, 28) or len(pixels) != len(labels):
        raise ValueError(f"{source} must label images of 28×28, but there are {len(labels)} for {pixels.shape}")
    check_labels(torch.from_numpy(labels), 10, source)
    return pixels[:, None], labels.astype(np.int64)
