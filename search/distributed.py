"""Several GPUs for one training: torch's DistributedDataParallel, one process each, started by ``torchrun``.

    torchrun --nproc-per-node 4 -m search train CONFIG

Every process draws the same shuffle and takes its share of every batch; gradients are averaged; batch statistics stay
per process, as is usual. The first process reports, saves and decides.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn


def start() -> None:
    """Join the processes that ``torchrun`` has started; nothing happens without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def rank() -> int:
    """Number of this process among those that train one network together; 0 if it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train one network together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Whether this process is the one that reports and saves."""
    return rank() == 0


def parallel(model: nn.Module) -> nn.Module:
    """The model whose backward pass averages gradients over all processes."""
    return nn.parallel.DistributedDataParallel(model) if world() > 1 else model


def mean(value: torch.Tensor) -> torch.Tensor:
    """The mean of a number over all processes, in all."""
    if world() > 1:
        dist.all_reduce(value)
    return value / world()


def agree(answer: bool, device: torch.device) -> bool:
    """The first process's answer, in all."""
    if world() == 1:
        return answer
    flag = torch.tensor(int(answer), device=device)
    dist.broadcast(flag, 0)
    return bool(flag.item())
