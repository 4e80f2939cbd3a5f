"""A pyramid head learns shapes that no constant prediction can segment."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lrf_models.segmentation import FPNHead, Segmenter
from search.evaluate import mean_iou

# isort: split
import timm

SIDE = 48


def shapes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images of a bright square (1) and a dark disc (2) on grey (0), and their labels."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    labels = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    for label in labels:
        (r, c), (y, x) = torch.randint(10, SIDE - 10, (2, 2), generator=generator).tolist()
        label[(rows - r).abs().maximum((columns - c).abs()) < 9] = 1
        label[(rows - y) ** 2 + (columns - x) ** 2 < 81] = 2
    level = torch.tensor([0.0, 1.0, -1.0])[labels]
    noise = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return level[:, None] + noise, labels


def segmenter() -> Segmenter:
    torch.manual_seed(0)
    features = timm.create_model(
        "sdt_v3",
        dims=(8, 16, 24, 32),
        heads=2,
        img_size=SIDE,
        split=1,
        blocks=[{"kind": "lrf_dyn", "token": "v", "dilations": [1]}] * 2,
        features_only=True,
        out_indices=(1, 2, 3, 4),
    )
    return Segmenter(features, 3, width=16)


def test_the_head_has_1_4_million_parameters_in_the_papers_setup() -> None:
    for dims in ((32, 64, 128, 192), (64, 128, 256, 360)):
        head = FPNHead(dims, (4, 8, 16, 16), 150)
        assert 1.35e6 < sum(p.numel() for p in head.parameters()) < 1.46e6
    scores = head([torch.randn(2, c, s, s) for c, s in zip(dims, (8, 4, 2, 2), strict=True)])
    assert scores.shape == (2, 150, 8, 8)


def iou(guess: Tensor, truth: Tensor) -> float:
    return mean_iou(torch.bincount(truth.flatten() * 3 + guess.flatten(), minlength=9).view(3, 3))


def test_it_learns_what_a_constant_cannot() -> None:
    model = segmenter().train()
    images, labels = shapes(64, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(60):
        batch = slice(step % 4 * 16, step % 4 * 16 + 16)
        optimizer.zero_grad()
        cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    model.eval()
    unseen, truth = shapes(32, seed=2)
    with torch.no_grad():
        reached = iou(model(unseen).argmax(1), truth)
    constants = [iou(torch.full_like(truth, c), truth) for c in range(3)]
    assert max(constants) <= 1 / 3  # one class right at most
    assert reached > 0.6
