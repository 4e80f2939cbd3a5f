"""Parts that stay on disk: a source reads one sample, worker processes read many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from search.data.dataset import Batch, Indices, Positions
from spaces.config import Training

Sample = tuple[Tensor, Tensor]


class Source(Protocol):
    """Samples by index, each a normalised and augmented input and its label (or mask)."""

    time_first: bool
    """Whether inputs are frames [T, C, H, W], so that a batch is [T, B, C, H, W]."""

    def sample(self, index: int, training: Training | None) -> Sample:
        """A ValueError names the file that cannot be read."""
        ...


class FilePart:
    """Some samples of a source. As many worker processes as the trial has threads beyond its first."""

    def __init__(self, source: Source, indices: Positions) -> None:
        self.source = source
        self.indices: Indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def subset(self, indices: Positions) -> FilePart:
        return FilePart(self.source, self.indices[np.asarray(indices, dtype=np.int64)])

    def batches(self, size: int, training: Training | None = None, seed: int = 0) -> Iterator[Batch]:
        shuffled = training is not None
        loader = DataLoader(
            _Samples(self, training),
            min(size, len(self)),
            shuffle=shuffled,
            drop_last=shuffled,
            generator=torch.Generator().manual_seed(seed),
            num_workers=torch.get_num_threads() - 1,
            pin_memory=torch.cuda.is_available(),
        )
        try:
            for x, y in loader:
                yield (x.transpose(0, 1) if self.source.time_first else x), y
        except ValueError as error:  # from a worker it arrives with the worker's traceback as its text
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from None


class _Samples(Dataset[Sample]):
    def __init__(self, part: FilePart, training: Training | None) -> None:
        self.part, self.training = part, training

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, position: int) -> Sample:
        return self.part.source.sample(int(self.part.indices[position]), self.training)
