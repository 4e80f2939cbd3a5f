"""scikit-learn's handwritten digits: 1,797 images of 8×8, bundled with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from search.data.dataset import DataSet, TensorPart, fingerprint, stratified


def digits(folder: Path | None = None, download: bool = False) -> DataSet:
    """Stratified 60 / 20 / 20 % for training, validation and test. Needs no files."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    rest, test = stratified(labels, 0.2)
    train, validation = (rest[part] for part in stratified(labels[rest], 0.25))
    mean, std = float(pixels[train].mean() / 255), float(pixels[train].std() / 255)
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels)
    everything = TensorPart(x, y, [mean], [std], mirror=False)
    return DataSet(
        name="digits",
        kind="image",
        classes=10,
        in_chans=1,
        img_size=(8, 8),
        frames=None,
        train=everything.subset(train),
        validation=everything.subset(validation),
        open_test=lambda: everything.subset(test),
        split=fingerprint(pixels, labels, train, validation, test),
    )
