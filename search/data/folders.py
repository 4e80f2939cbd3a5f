"""Images in folders, one per class, read by timm; ImageNet is one of them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.data.dataset import DataSet, fingerprint, stratified
from search.data.files import FilePart
from spaces.config import Training

CROP = 0.875
"""Side of the centre crop over the side of the resized image."""


class Folder:
    """The images below one folder."""

    time_first = False

    def __init__(self, root: Path, size: int) -> None:
        from lrf_models.torchvision_guard import import_torchvision

        import_torchvision()  # before timm
        from timm.data import create_dataset

        try:
            reader = create_dataset("", root=str(root), search_split=False).reader
        except RuntimeError as error:  # timm's words for an empty folder
            raise ValueError(f"{root} holds no images: {error}") from None
        self.reader: Any = reader
        self.classes: dict[str, int] = reader.class_to_idx
        self.labels = np.array([label for _, label in reader.samples], dtype=np.int64)
        self.names: list[str] = [str(Path(path).relative_to(root)) for path, _ in reader.samples]
        self.size = size

    def sample(self, index: int, training: Training | None) -> tuple[Tensor, Tensor]:
        from PIL import Image

        file, label = self.reader[index]
        try:
            image = Image.open(file).convert("RGB")
        except (OSError, SyntaxError) as error:
            raise ValueError(f"cannot read the image {self.reader.filename(index, absolute=True)}: {error}") from None
        return transform(self.size, training)(image), torch.tensor(label)


@lru_cache(maxsize=4)
def _transform(size: int, key: str | None) -> Any:
    from timm.data import create_transform

    if key is None:
        return create_transform(size, crop_pct=CROP, interpolation="bicubic")
    policy, erasing, flip = json.loads(key)
    return create_transform(
        size,
        is_training=True,
        hflip=0.5 if flip else 0.0,
        color_jitter=None,
        auto_augment=policy,
        re_prob=erasing,
        re_mode="pixel",
        interpolation="bicubic",
    )


def transform(size: int, training: Training | None) -> Any:
    """timm's transform: random resized crop and what the recipe asks for, or resize and centre crop."""
    key = None if training is None else json.dumps([training.rand_augment, training.erasing, training.flip])
    return _transform(size, key)


def image_folder(folder: Path | None = None, download: bool = False, name: str = "image-folder") -> DataSet:
    """``train/CLASS/*`` and ``val/CLASS/*`` (or ``validation``, ``test``) of 224×224.

    The images of ``val`` are the test part, as is usual where the real test labels are not public; validation is a
    stratified tenth of ``train``. If ``test`` exists beside ``val``, they are what they say.
    """
    root = folder if folder is not None else Path("data") / name
    train_root = root / "train"
    if not train_root.is_dir():
        raise ValueError(f"{name} is not in {root}: it must hold train/CLASS/*.jpeg and val/CLASS/*.jpeg")
    held = [root / part for part in ("val", "validation", "test") if (root / part).is_dir()]
    if not held:
        raise ValueError(f"{root} has neither val nor test beside train")
    source = Folder(train_root, 224)
    if len(held) > 1:
        first = _same_classes(Folder(held[0], 224), source, held[0])
        train, validation = (
            FilePart(source, np.arange(len(source.labels))),
            FilePart(first, np.arange(len(first.labels))),
        )
        seen = [source.names, first.names]
    else:
        kept, tenth = stratified(source.labels, 0.1)
        train, validation = FilePart(source, kept), FilePart(source, tenth)
        seen = [[source.names[i] for i in kept], [source.names[i] for i in tenth]]

    def open_test() -> FilePart:
        test = _same_classes(Folder(held[-1], 224), source, held[-1])
        return FilePart(test, np.arange(len(test.labels)))

    return DataSet(
        name=name,
        kind="image",
        classes=len(source.classes),
        in_chans=3,
        img_size=(224, 224),
        frames=None,
        train=train,
        validation=validation,
        open_test=open_test,
        split=fingerprint(*seen),
    )


def imagenet(folder: Path | None = None, download: bool = False) -> DataSet:
    """ImageNet-1k (ILSVRC 2012) in folders ``train`` and ``val`` by class."""
    return image_folder(folder, download, name="imagenet")


def _same_classes(source: Folder, reference: Folder, root: Path) -> Folder:
    if source.classes != reference.classes:
        odd = sorted(set(source.classes) ^ set(reference.classes))[0]
        raise ValueError(f"{root} must have the classes of train, but {odd!r} is in one of them only")
    return source
