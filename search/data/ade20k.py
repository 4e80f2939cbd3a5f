"""ADE20K scene parsing (Zhou et al. 2017) in its challenge layout: 20,210 + 2,000 images, 150 classes per pixel."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.data.dataset import IGNORED, DataSet, fingerprint
from search.data.files import FilePart
from spaces.config import Training

CLASSES = 150
SIZE = 512


class Scenes:
    """``images/PART/*.jpg`` with ``annotations/PART/*.png``, whose 0 is no label and 1..150 are the classes."""

    time_first = False

    def __init__(self, root: Path, part: str, size: int) -> None:
        self.images = sorted((root / "images" / part).glob("*.jpg"))
        if not self.images:
            raise ValueError(f"{root / 'images' / part} holds no .jpg files")
        self.masks = [root / "annotations" / part / f"{path.stem}.png" for path in self.images]
        self.names = [path.name for path in self.images]
        self.size = size

    def sample(self, index: int, training: Training | None) -> tuple[Tensor, Tensor]:
        from PIL import Image

        image = _open(self.images[index]).convert("RGB")
        mask = _open(self.masks[index])
        if mask.size != image.size:
            raise ValueError(f"{self.masks[index]} must be of {image.size} pixels as its image, but is {mask.size}")
        if training is None:
            box = (0, 0, *image.size)
        else:
            box = _random_box(image.size)
            if training.flip and random.random() < 0.5:
                image, mask = (im.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for im in (image, mask))
        side = (self.size, self.size)
        image = image.resize(side, Image.Resampling.BILINEAR, box=box)
        labels = np.asarray(mask.resize(side, Image.Resampling.NEAREST, box=box), dtype=np.int64) - 1
        if labels.max() >= CLASSES:
            raise ValueError(f"labels must lie in 0..{CLASSES}, but {self.masks[index]} holds {labels.max() + 1}")
        labels[labels < 0] = IGNORED
        x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return (x - mean[:, None, None]) / std[:, None, None], torch.from_numpy(labels)


def _open(path: Path) -> Any:
    from PIL import Image

    try:
        image = Image.open(path)
        image.load()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from None
    return image


def _random_box(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square of half to all of the shorter side, anywhere."""
    side = max(1, int(min(size) * random.uniform(0.5, 1)))
    left, top = random.randint(0, size[0] - side), random.randint(0, size[1] - side)
    return left, top, left + side, top + side


def ade20k(folder: Path | None = None, download: bool = False) -> DataSet:
    """A tenth of ``training`` for validation, by seed; the official ``validation`` images are the test part."""
    root = folder if folder is not None else Path("data/ade20k")
    if not (root / "images" / "training").is_dir():
        raise ValueError(f"ade20k is not in {root}: unpack ADEChallengeData2016.zip there")
    source = Scenes(root, "training", SIZE)
    order = np.random.default_rng(0).permutation(len(source.images))
    cut = max(1, len(order) // 10)
    train, validation = np.sort(order[cut:]), np.sort(order[:cut])

    def open_test() -> FilePart:
        test = Scenes(root, "validation", SIZE)
        return FilePart(test, np.arange(len(test.images)))

    return DataSet(
        name="ade20k",
        kind="segmentation",
        classes=CLASSES,
        in_chans=3,
        img_size=(SIZE, SIZE),
        frames=None,
        train=FilePart(source, train),
        validation=FilePart(source, validation),
        open_test=open_test,
        split=fingerprint([source.names[i] for i in train], [source.names[i] for i in validation]),
    )
