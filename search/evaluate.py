"""How good a trained model is on one part of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.data.dataset import IGNORED, Part


@dataclass(frozen=True)
class Evaluation:
    """Metrics with standard errors over images; n images."""

    metrics: dict[str, float]
    errors: dict[str, float]
    n: int


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a model are."""
    return next(model.parameters()).device


@torch.inference_mode()
def evaluate(model: nn.Module, part: Part, batch_size: int = 256) -> Evaluation:
    """Accuracy over all images of a part; for masks the share of pixels, and the mean IoU over classes.

    The standard error is that of (k + 2) of (n + 4) images (Agresti and Coull 1998), which is not zero where every
    image is right. For masks it is the deviation of the images' pixel accuracies over √n.
    """
    was_training = model.training
    model.eval()
    device = device_of(model)
    shares: list[Tensor] = []
    confusion: Tensor | None = None
    for x, y in part.batches(batch_size):
        y = y.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(x.to(device, non_blocking=True))
        guess = logits.argmax(1)
        if y.ndim == 1:
            shares.append((guess == y).double())
            continue
        seen = y != IGNORED
        shares.append(((guess == y) & seen).flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1).double())
        classes = logits.shape[1]
        pairs = torch.bincount(y[seen] * classes + guess[seen], minlength=classes**2).view(classes, classes)
        confusion = pairs if confusion is None else confusion + pairs
    model.train(was_training)
    share = torch.cat(shares)
    n = len(share)
    accuracy = share.mean().item()
    if confusion is None:
        shrunk = (accuracy * n + 2) / (n + 4)
        return Evaluation({"accuracy": accuracy}, {"accuracy": (shrunk * (1 - shrunk) / (n + 4)) ** 0.5}, n)
    error = (share.std() / n**0.5).item() if n > 1 else 0.0
    return Evaluation({"accuracy": accuracy, "miou": mean_iou(confusion)}, {"accuracy": error}, n)


def mean_iou(confusion: Tensor) -> float:
    """Mean over the classes that occur of intersection / union; ``confusion`` [true, guessed] counts pixels."""
    hit = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hit
    occurs = union > 0
    return (hit[occurs] / union[occurs]).mean().item()
