"""Training-free scores: what the spikes of an untrained network say of the accuracy it will have.

A score takes a candidate and its data, looks at one batch of training images without their labels, and is the same
whenever it is asked for; larger promises more. The score of AutoST (Wang et al., arXiv 2307.00293) is the number of
operations alone. That is a price, ``dense_macs``, which ``priced`` sees without asking; so it is not here.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from lrf_models import build_model
from lrf_models.neurons import Neuron
from search.train import seed_all
from spaces.config import Candidate

if TYPE_CHECKING:
    from search.data.dataset import DataSet

BATCH = 64
"""Images of the batch; the kernel has this many rows."""


class Score(Protocol):
    def __call__(self, candidate: Candidate, data: DataSet) -> float: ...


def agreement(spikes: Tensor, sparse: bool) -> Tensor:
    """How much the spike patterns of images agree, a kernel [B, B] in neurons.

    NASWOT (Mellor et al., ICML 2021) counts equal neurons, N − d with the Hamming distance d. Where spikes are rare,
    most neurons are equal because both are silent. So Kim et al. (ECCV 2022) scale d by N/2 over its expectation for
    independent patterns of the same rates, N(r_i(1 − r_j) + r_j(1 − r_i)), as if half of all neurons fired.

    Args:
        spikes: Patterns [B, N]; what is not zero is a spike.
    """
    fired = (spikes > 0).float()
    n = fired.shape[1]
    silent, rate = 1 - fired, fired.mean(1, keepdim=True)
    distance = fired @ silent.T + silent @ fired.T
    if sparse:
        expected = n * (rate @ (1 - rate).T + (1 - rate) @ rate.T)
        distance = distance * (n / 2) / expected.clamp(min=0.5)  # two silent patterns differ in nothing
    return n - distance


def diversity(candidate: Candidate, data: DataSet, *, sparse: bool) -> float:
    """log |det| per image of the mean `agreement` over layers of neurons and time steps: large where images differ.

    A thousandth of a neuron on the diagonal keeps it finite where two images look the same everywhere.
    """
    seed_all(candidate.training.seed, 0)
    model = build_model(candidate.model).train()  # BN has no statistics yet but those of the batch
    kernels: list[Tensor] = []

    def listen(module: nn.Module, inputs: object, spikes: Tensor) -> None:
        kernels.extend(agreement(pattern, sparse) for pattern in spikes.flatten(2))

    for module in model.modules():
        if isinstance(module, Neuron):
            module.register_forward_hook(listen)
    x, _ = next(iter(data.train.batches(BATCH)))
    with torch.no_grad():
        model(x)
    kernel = torch.stack(kernels).double().mean(0)
    return float(torch.linalg.slogdet(kernel + 1e-3 * torch.eye(len(kernel))).logabsdet / len(kernel))


SIGNALS: dict[str, Score] = {
    "hamming": partial(diversity, sparse=False),
    "sparse-hamming": partial(diversity, sparse=True),
}


def scores(names: Iterable[str]) -> tuple[Score, ...]:
    """The scores of these names.

    Raises:
        ValueError: One is unknown.
    """
    names = tuple(names)
    if unknown := [name for name in names if name not in SIGNALS]:
        raise ValueError(f"a signal is one of {sorted(SIGNALS)}, but got {unknown[0]!r}")
    return tuple(SIGNALS[name] for name in names)
