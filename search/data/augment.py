"""Augmentation of whole batches in memory. Randomness comes from the global generators, seeded per epoch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.config import Training


def augment(x: Tensor, finish: Callable[[Tensor], Tensor], training: Training, mirror: bool) -> Tensor:
    """RandAugment, translation and mirroring on the stored values, then ``finish``, then erasing.

    Args:
        x: Stored inputs [B, C, H, W] or [B, T, C, H, W]; all frames of a sample move together.
        finish: Normalises and puts time first.
    """
    if training.rand_augment is not None:
        x = _rand_augment(x, training.rand_augment)
    if training.shift:
        x = translate(x, training.shift)
    if training.flip and mirror:
        flip = torch.rand(len(x), device=x.device) < 0.5
        x = torch.where(flip.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
    x = finish(x)
    if training.erasing:
        x = _erase(x, training.erasing)
    return x


def translate(x: Tensor, reach: int) -> Tensor:
    """Each sample moved by up to ``reach`` pixels in each direction, zeros moving in."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach, reach, reach, reach))
    top, left = torch.randint(0, 2 * reach + 1, (2, len(x)), device=x.device)
    rows = (top[:, None] + torch.arange(height, device=x.device))[:, :, None]
    columns = (left[:, None] + torch.arange(width, device=x.device))[:, None, :]
    samples = torch.arange(len(x), device=x.device)[:, None, None]
    # Advanced indices around the slice come first: [B, H, W, (T,) C].
    moved = padded[(samples, *[slice(None)] * (x.ndim - 3), rows, columns)]
    return moved.movedim((1, 2), (-2, -1))


def _erase(x: Tensor, probability: float) -> Tensor:
    from timm.data.random_erasing import RandomErasing

    erase = RandomErasing(probability, mode="pixel", device=x.device)
    if x.ndim == 4:
        return erase(x)  # type: ignore[no-any-return]
    steps, batch = x.shape[:2]  # one rectangle per sample, the same in every frame
    folded = x.transpose(0, 1).flatten(1, 2).contiguous()
    return erase(folded).view(batch, steps, *x.shape[2:]).transpose(0, 1)  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def _policy(text: str, side: int, gray: bool) -> Any:
    from timm.data.auto_augment import rand_augment_transform

    fill: int | tuple[int, int, int] = 128 if gray else (128, 128, 128)
    try:
        return rand_augment_transform(text, {"translate_const": int(side * 0.45), "img_mean": fill})
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"rand_augment must be a timm policy such as 'rand-m9-mstd0.5', but got {text!r}") from error


def _rand_augment(x: Tensor, text: str) -> Tensor:
    """timm's RandAugment, image by image: its operations are PIL's."""
    from PIL import Image

    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError("rand_augment works on images with 1 or 3 channels, but the data set has others")
    gray = x.shape[1] == 1
    policy = _policy(text, min(x.shape[-2:]), gray)
    images = x.cpu().permute(0, 2, 3, 1).numpy()
    made = [np.asarray(policy(Image.fromarray(image[:, :, 0] if gray else image))) for image in images]
    out = torch.from_numpy(np.stack(made)).to(x.device)
    return out[:, None] if gray else out.permute(0, 3, 1, 2)
