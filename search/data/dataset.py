"""What every data set is: its shape, and three parts that hand out batches. The test part is opened on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from search.data.augment import augment
from spaces.config import Training

Kind = Literal["image", "events", "segmentation"]
Batch = tuple[Tensor, Tensor]
Indices = npt.NDArray[np.int64]
Positions = Sequence[int] | Indices

SPLIT_SEED = 0
IGNORED = 255
"""Label of pixels that count neither in training nor in evaluation."""
"""The parts of a data set are drawn with this seed, whatever the seed of a run: runs can be compared."""


class Part(Protocol):
    """Train, validation or test images."""

    def __len__(self) -> int: ...

    def batches(self, size: int, training: Training | None = None, seed: int = 0) -> Iterator[Batch]:
        """Normalised inputs [B, C, H, W] (events [T, B, C, H, W]) and labels [B] (masks [B, H, W]).

        Without ``training``: everything once, in order, as it is. With it: shuffled by ``seed``, augmented as the
        recipe says with the global generators, and without a last batch that is not full.
        """
        ...

    def subset(self, indices: Positions) -> Part: ...


@dataclass(frozen=True)
class DataSet:
    """One data set with its split.

    Attributes:
        kind: Still images, event frames, or images with one label per pixel (`IGNORED` is no label).
        frames: Time steps of event frames, None for still images.
        open_test: Reads the test part; called by the final evaluation only.
        split: Sixteen hexadecimal digits over the samples of each part: equal digits, equal split.
    """

    name: str
    kind: Kind
    classes: int
    in_chans: int
    img_size: tuple[int, int]
    frames: int | None
    train: Part
    validation: Part
    open_test: Callable[[], Part]
    split: str

    @cached_property
    def test(self) -> Part:
        return self.open_test()

    def model_fields(self) -> dict[str, Any]:
        """The fields of a model that the data decide.

        Raises:
            ValueError: The labels are masks. A candidate is a classifier, and is priced as one.
        """
        if self.kind == "segmentation":
            raise ValueError(
                f"data set {self.name!r} has one label per pixel, but a candidate is a classifier; "
                "lrf_models.segmentation.Segmenter puts a head for masks on one (docs/models.md)"
            )
        fields: dict[str, Any] = {
            "img_size": list(self.img_size),
            "in_chans": self.in_chans,
            "num_classes": self.classes,
            "input": "events" if self.kind == "events" else "image",
        }
        if self.frames is not None:
            fields["timesteps"] = self.frames
        return fields

    def check(self, model: Any) -> None:
        """That a model configuration fits.

        Raises:
            ValueError: Another size, number of channels, classes or time steps.
        """
        for name, value in self.model_fields().items():
            given = getattr(model, name)
            if given != (tuple(value) if isinstance(value, list) else value):
                raise ValueError(
                    f"the model's {name} must be that of data set {self.name!r}, {value}, but got {given}"
                )


class TensorPart:
    """A part that fits in memory: no worker processes, and no Python per sample unless RandAugment is asked for.

    Args:
        x: Inputs [n, C, H, W] or [n, T, C, H, W]; bytes stand for 0..1.
        y: Labels [n].
        mean, std: Per channel, of the 0..1 values.
        mirror: Whether a mirrored image keeps its label.
    """

    def __init__(self, x: Tensor, y: Tensor, mean: Sequence[float], std: Sequence[float], mirror: bool) -> None:
        assert len(x) == len(y)
        self.x, self.y, self.mirror = x, y, mirror
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        self.mean, self.std = list(mean), list(std)
        self._shift = (torch.tensor(mean) * scale).view(-1, 1, 1)
        self._scale = 1 / (torch.tensor(std) * scale).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> TensorPart:
        return TensorPart(self.x.to(device), self.y.to(device), self.mean, self.std, self.mirror)

    def subset(self, indices: Positions) -> TensorPart:
        chosen = torch.as_tensor(indices, device=self.x.device)
        return TensorPart(self.x[chosen], self.y[chosen], self.mean, self.std, self.mirror)

    def batches(self, size: int, training: Training | None = None, seed: int = 0) -> Iterator[Batch]:
        if training is None:
            for start in range(0, len(self), size):
                yield self._finish(self.x[start : start + size]), self.y[start : start + size]
            return
        size = min(size, len(self))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).to(self.x.device)
        for chosen in order[: len(order) // size * size].split(size):
            yield augment(self.x[chosen], self._finish, training, self.mirror), self.y[chosen]

    def _finish(self, x: Tensor) -> Tensor:
        """Normalised, with the time axis of events first."""
        shift, scale = self._shift.to(x.device), self._scale.to(x.device)
        x = (x.float() - shift) * scale
        return x.transpose(0, 1) if x.ndim == 5 else x


def stratified(labels: Indices, share: float, seed: int = SPLIT_SEED) -> tuple[Indices, Indices]:
    """Two sorted lists of positions: the rest, and ``share`` of every class (rounded per class)."""
    rng = np.random.default_rng(seed)
    held = [
        rng.permutation(of_class)[: round(share * len(of_class))]
        for of_class in (np.flatnonzero(labels == label) for label in np.unique(labels))
    ]
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def fingerprint(*content: npt.NDArray[Any] | Sequence[str]) -> str:
    """Sixteen hexadecimal digits over arrays and lists of names."""
    digest = hashlib.sha256()
    for item in content:
        if isinstance(item, np.ndarray):
            digest.update(f"{item.dtype.str}{item.shape}".encode())
            digest.update(np.ascontiguousarray(item).data)
        else:
            digest.update("\n".join(item).encode())
    return digest.hexdigest()[:16]


def check_labels(labels: Tensor, classes: int, source: object) -> None:
    """That labels lie in 0..classes−1; a ValueError names ``source``."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, but {source} holds {low if low < 0 else high}")
