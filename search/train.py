"""The training loop: timm's optimisers, schedule, mixup and weight averaging around a loop of our own."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrf_models import build_model
from search import checkpoint, distributed
from search.data.dataset import IGNORED, Batch, DataSet, Part, TensorPart
from search.evaluate import evaluate
from search.record import Epoch
from spaces.config import Candidate, Training

Validate = Callable[[nn.Module, bool], dict[str, float]]
"""Metrics of a model after an epoch, and whether that was the last one."""


class Diverged(ArithmeticError):
    """The training loss is not finite any more."""


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind.

    Attributes:
        model: With the averaged weights, if the recipe averages; in evaluation mode.
        history: One entry per epoch, those before an interruption included.
        stopped: Whether ``report`` ended it early.
    """

    model: nn.Module
    history: tuple[Epoch, ...]
    stopped: bool


def train(
    candidate: Candidate,
    data: DataSet,
    folder: str,
    report: Callable[[Epoch], bool],
    validate: Validate | None = None,
    *,
    device: torch.device | None = None,
    save_every: float = 5.0,
) -> Trained:
    """Train a candidate, from its checkpoint in ``folder`` if there is one.

    Every epoch starts from generators seeded by (seed, epoch): the state of randomness is two numbers, so a resumed
    training is equal to an uninterrupted one, to the bit on a CPU.

    Args:
        validate: Accuracy on the validation part by default.
        save_every: Seconds between checkpoints.

    Raises:
        ValueError: The model does not fit the data, or the checkpoint does not fit the model.
        Diverged: The loss is not finite.
    """
    data.check(candidate.model)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = Learner(candidate, data, device)
    saver = checkpoint.Checkpointer(folder, save_every)
    if (state := saver.load()) is not None:
        learner.restore(state, f"{folder}/{checkpoint.STATE}")
    validate = validate or (lambda model, last: evaluate(model, data.validation).metrics)
    stopped = False
    while not stopped and len(learner.history) < candidate.training.epochs:
        started = time.perf_counter()
        loss = learner.epoch()
        number = len(learner.history) + 1
        metrics = {"loss": loss, **validate(learner.best, number == candidate.training.epochs)}
        epoch = Epoch(epoch=number, metrics=metrics, seconds=time.perf_counter() - started)
        learner.history.append(epoch)
        go_on = distributed.agree(not distributed.leads() or report(epoch), learner.device)
        stopped = not go_on and epoch.epoch < candidate.training.epochs
        if distributed.leads():
            saver.offer(learner.state())
    return Trained(learner.best.eval(), tuple(learner.history), stopped)


class Learner:
    """A model with everything that training changes: optimiser, averaged weights, history."""

    def __init__(self, candidate: Candidate, data: DataSet, device: torch.device) -> None:
        self.training, self.device = candidate.training, device
        self.part: Part = data.train.to(device) if isinstance(data.train, TensorPart) else data.train
        self.history: list[Epoch] = []
        self.identity = candidate.identity
        seed_all(self.training.seed, 0)
        # Channels last: one layout from the first convolution on, in which pooling and BN are fastest on a CPU too.
        self.model = build_model(candidate.model).to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = _average(self.model, self.training)
        self.optimizer = build_optimizer(self.model, self.training)
        self.parallel = distributed.parallel(self.model)
        batch = min(self.training.batch_size, len(self.part))
        if batch % distributed.world():
            raise ValueError(f"{distributed.world()} processes must divide the batch, but got (batch_size={batch})")
        self.batch = batch // distributed.world()
        self.steps = len(self.part) // batch
        self.schedule = build_schedule(self.optimizer, self.training, self.steps)
        self.mixup = _mixup(self.training, data, self.batch)

    @property
    def best(self) -> nn.Module:
        """The weights to validate and to keep."""
        averaged: nn.Module = self.model if self.average is None else self.average.module
        return averaged

    def epoch(self) -> float:
        """One pass over the training part; its mean loss."""
        epoch = len(self.history)
        seed_all(self.training.seed, epoch + 1)
        self.model.train()
        total = torch.zeros((), device=self.device)
        step = epoch * self.steps
        for x, target in self._batches():
            self.schedule.step_update(step)
            total += self._step(x, target)
            step += 1
            if self.average is not None:
                self.average.update(self.model, step=step)
        loss = distributed.mean(total).item() / self.steps
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} in epoch {epoch + 1}")
        return loss

    def _step(self, x: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.parallel(x)
        if target.is_floating_point():  # mixed labels, smoothed by the mixing
            loss = F.cross_entropy(logits.float(), target)
        else:
            smoothing = self.training.label_smoothing
            loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORED, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.training.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_grad)
        self.optimizer.step()
        return loss.detach()

    def _batches(self) -> Iterator[Batch]:
        order = int(torch.randint(2**31, ()))
        part = self.part
        if distributed.world() > 1:
            shuffled = torch.randperm(len(part), generator=torch.Generator().manual_seed(order))
            part = part.subset(
                shuffled[
                    distributed.rank() : self.steps * self.batch * distributed.world() : distributed.world()
                ].tolist()
            )
            torch.manual_seed(order + distributed.rank())  # each process augments in its own way
        for x, y in part.batches(self.batch, self.training, order):
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            yield (x, y) if self.mixup is None else mix(self.mixup, x, y)

    def state(self) -> dict[str, Any]:
        """Everything that a later process needs to go on; tensors and plain values."""
        return {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": json.dumps([epoch.model_dump() for epoch in self.history]),
        }

    def restore(self, state: dict[str, Any], source: str) -> None:
        """Take over a `state`; a ValueError names ``source`` if it belongs to another candidate."""
        checkpoint.fill(self.model, state["model"], source)
        if state["identity"] != self.identity:
            raise ValueError(f"{source} is of candidate {state['identity']}, but this is candidate {self.identity}")
        if self.average is not None:
            checkpoint.fill(self.average.module, state["average"], source)
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [Epoch.model_validate(epoch) for epoch in json.loads(state["history"])]


def seed_all(seed: int, epoch: int) -> None:
    """Seed torch, NumPy and Python, which timm's augmentations use, for one epoch (0 is the initialisation)."""
    number = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002
    random.seed(number)


class Trainable(Protocol):
    """What has weights, some of which are constants of dynamics: a network, or the store of a super-network."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def dynamics(self) -> Iterator[tuple[str, nn.Parameter]]: ...


def build_optimizer(model: Trainable, training: Training) -> torch.optim.Optimizer:
    """AdamW or LAMB over three groups: weights, what must not decay, and the constants of the dynamics.

    Biases and norms do not decay. The constants of dendrites and neurons, the model's ``dynamics()``, do not decay
    either, and learn at ``dynamics_lr`` times the rate.
    """
    from timm.optim import create_optimizer_v2

    dynamics = {name for name, _ in model.dynamics()}
    groups: dict[str, list[Tensor]] = {"weights": [], "fixed": [], "dynamics": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = "dynamics" if name in dynamics else "fixed" if parameter.ndim <= 1 else "weights"
            groups[kind].append(parameter)
    settings: dict[str, dict[str, float]] = {
        "weights": {"weight_decay": training.weight_decay},
        "fixed": {"weight_decay": 0.0},
        "dynamics": {"weight_decay": 0.0, "lr_scale": training.dynamics_lr},
    }
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        [{"params": values, **settings[kind]} for kind, values in groups.items() if values],
        opt=training.optimizer,
        lr=training.lr,
        **({"fused": True} if training.optimizer == "adamw" else {}),
    )
    return optimizer


def build_schedule(optimizer: torch.optim.Optimizer, training: Training, steps: int) -> Any:
    """Cosine from ``lr`` to ``min_lr · lr`` over all steps, after a linear warm-up."""
    from timm.scheduler.cosine_lr import CosineLRScheduler

    warmup = round(training.warmup_epochs * steps)
    return CosineLRScheduler(
        optimizer,
        t_initial=training.epochs * steps,
        lr_min=training.min_lr * training.lr,
        warmup_t=warmup,
        warmup_lr_init=training.lr / (warmup + 1),
        t_in_epochs=False,
    )


def _average(model: nn.Module, training: Training) -> Any:
    from timm.utils import ModelEmaV3

    return None if training.ema_decay is None else ModelEmaV3(model, decay=training.ema_decay, use_warmup=True)


def _mixup(training: Training, data: DataSet, batch: int) -> Any:
    if not (training.mixup or training.cutmix):
        return None
    if batch % 2:
        raise ValueError(f"mixup needs an even batch, but got (batch_size={batch})")
    from timm.data import Mixup

    return Mixup(
        mixup_alpha=training.mixup,
        cutmix_alpha=training.cutmix,
        label_smoothing=training.label_smoothing,
        num_classes=data.classes,
    )


def mix(mixup: Any, x: Tensor, y: Tensor) -> Batch:
    """timm's mixup on images [B, C, H, W] or frames [T, B, C, H, W], whose steps are mixed alike."""
    if x.ndim == 4:
        mixed: Batch = mixup(x.contiguous(), y)
        return mixed
    steps = len(x)
    folded, target = mixup(x.transpose(0, 1).flatten(1, 2).contiguous(), y)
    return folded.unflatten(1, (steps, -1)).transpose(0, 1), target
