"""Host latency: how much slower or faster a network is than a reference, on this computer.

Two networks timed one after the other differ by what else the machine does, so passes are interleaved, A B B A, and
what counts is the ratio within a pair. It says nothing about neuromorphic hardware.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spaces.operators import Frozen


class Latency(Frozen):
    """Median ratio of latencies, with a bootstrap interval of 95 % over pairs.

    Attributes:
        ratio: Latency over that of the reference.
        seconds: Median of the model's own passes; ``reference_seconds`` of the reference's.
        pairs: Number of pairs.
    """

    ratio: float
    low: float
    high: float
    seconds: float
    reference_seconds: float
    pairs: int


@contextmanager
def alone() -> Iterator[None]:
    """One process at a time on this computer, on one pinned thread, with denormal numbers flushed to zero."""
    threads, cores = torch.get_num_threads(), _cores()
    with (Path(tempfile.gettempdir()) / f"lrf-search-latency-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            torch.set_num_threads(1)
            torch.set_flush_denormal(True)
            if cores:
                os.sched_setaffinity(0, {min(cores)})
            yield
        finally:
            if cores:
                os.sched_setaffinity(0, cores)
            torch.set_flush_denormal(False)
            torch.set_num_threads(threads)


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def compare(model: nn.Module, reference: nn.Module, x: Tensor, *, pairs: int = 20, warmup: int = 2) -> Latency:
    """The host latency of a model against a reference network, both in evaluation mode on the CPU.

    Raises:
        ValueError: There are no pairs.
    """
    if pairs < 1:
        raise ValueError(f"pairs >= 1 must hold, but got (pairs={pairs})")
    networks = (model.eval(), reference.eval())
    seconds: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad(), alone():
        for _ in range(warmup):
            for network in networks:
                network(x)
        for pair in range(pairs):
            for which in (0, 1) if pair % 2 == 0 else (1, 0):
                started = time.perf_counter()
                networks[which](x)
                seconds[which].append(time.perf_counter() - started)
    own, other = (np.array(values) for values in seconds)
    low, high = bootstrap(own / other)
    return Latency(
        ratio=float(np.median(own / other)),
        low=low,
        high=high,
        seconds=float(np.median(own)),
        reference_seconds=float(np.median(other)),
        pairs=pairs,
    )


def bootstrap(ratios: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """The 95 % interval of the median, from resampled pairs."""
    picks = np.random.default_rng(0).integers(len(ratios), size=(draws, len(ratios)))
    low, high = np.quantile(np.median(ratios[picks], axis=1), (0.025, 0.975))
    return float(low), float(high)
