"""A super-network: one set of weights in which every candidate is a sub-network, to guess what training would give.

As in AutoFormer (Chen et al., ICCV 2021), which Auto-Spikformer (Che et al. 2023) took to spiking networks: a
narrower layer is the first channels of the widest one, a shallower network its first blocks, and every step of the
training takes one candidate at random. What operators have in common (projections, MLP, stem, classifier) is shared,
what belongs to one is not. Time steps, thresholds and fixed time constants change no weight, so all is shared there.

A candidate is built as for any other use and lent the store's weights, so the super-network knows no architecture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lrf_models import SpikingBackbone, build_model
from lrf_models.attention import Mixer
from lrf_models.layers import BatchNorm2d, Conv2d, LocalField
from search.data.dataset import IGNORED, DataSet
from search.evaluate import evaluate
from search.train import Diverged, build_optimizer, build_schedule, seed_all
from spaces.config import Candidate, Training

CALIBRATION = 256
"""How many training images set the statistics of a candidate's BNs, which weights from a store do not have."""


class SuperNetwork:
    """The shared weights of some candidates, each as large as the largest of them needs.

    Args:
        candidates: Those that are trained; `inherit` takes any other one that needs nothing more.

    Raises:
        ValueError: There are none.
    """

    def __init__(self, candidates: Iterable[Candidate], seed: int = 0) -> None:
        self.candidates = tuple(candidates)
        if not self.candidates:
            raise ValueError("a super-network needs at least one candidate, but got none")
        self.weights: dict[str, nn.Parameter] = {}
        self._dynamics: set[str] = set()
        seed_all(seed, 0)
        for candidate in self.candidates:
            self._make_room(build_model(candidate.model))

    def _make_room(self, model: SpikingBackbone) -> None:
        """Grow the store to hold ``model``; what is new starts as in the model."""
        own, names = dict(model.named_parameters()), shared_names(model)
        for name, shared in names.items():
            fresh, stored = own[name].detach(), self.weights.get(shared)
            if stored is None:
                grown = fresh.clone()
            elif all(n <= m for n, m in zip(fresh.shape, stored.shape, strict=True)):
                continue
            else:
                grown = fresh.new_zeros([max(n, m) for n, m in zip(fresh.shape, stored.shape, strict=True)])
                grown[_leading(stored.shape)] = stored.detach()
                grown[_leading(fresh.shape)] = fresh
            self.weights[shared] = nn.Parameter(grown, requires_grad=own[name].requires_grad)
        self._dynamics |= {names[name] for name, _ in model.dynamics()}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.weights.items()

    def dynamics(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The constants of dendrites and neurons, as `SpikingBackbone.dynamics`."""
        return ((name, self.weights[name]) for name in sorted(self._dynamics))

    def lent(self, model: SpikingBackbone) -> dict[str, Tensor]:
        """The weights of a model by its own names: slices of the store, through which gradients flow.

        Raises:
            ValueError: The model needs what the store does not have.
        """
        names = shared_names(model)
        return {name: self._slice(names[name], own.shape) for name, own in model.named_parameters()}

    def _slice(self, name: str, shape: torch.Size) -> Tensor:
        stored = self.weights.get(name)
        if stored is None or any(n > m for n, m in zip(shape, stored.shape, strict=True)):
            has = "nothing" if stored is None else list(stored.shape)
            raise ValueError(f"the super-network has {has} for {name!r}, but the candidate needs {list(shape)}")
        if name.endswith("_Gk") and shape[-1] < stored.shape[-1]:
            # Time constants ascend over the dendrites: few of them must span the same range, not its fast end.
            return stored[: shape[0], torch.linspace(0, stored.shape[-1] - 1, shape[-1]).round().long()]
        return stored[_leading(shape)]

    def fit(self, data: DataSet, training: Training) -> list[float]:
        """Train with one candidate, drawn at random, in each step; the mean loss of every epoch.

        Raises:
            Diverged: The loss is not finite.
        """
        optimizer = build_optimizer(self, training)
        size = min(training.batch_size, len(data.train))
        schedule = build_schedule(optimizer, training, len(data.train) // size)
        rng, step, losses = random.Random(training.seed), 0, []
        for epoch in range(training.epochs):
            seed_all(training.seed, epoch + 1)
            found = []
            for x, y in data.train.batches(size, training, rng.getrandbits(31)):
                schedule.step_update(step)
                model = build_model(rng.choice(self.candidates).model)
                logits = functional_call(model, self.lent(model), (x,))
                loss = F.cross_entropy(logits, y, ignore_index=IGNORED, label_smoothing=training.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if training.clip_grad is not None:
                    nn.utils.clip_grad_norm_(self.weights.values(), training.clip_grad)
                optimizer.step()
                found.append(loss.item())
                step += 1
            losses.append(sum(found) / len(found))
            if not math.isfinite(losses[-1]):
                raise Diverged(f"the training loss is {losses[-1]} in epoch {epoch + 1}")
        return losses

    def inherit(self, candidate: Candidate, data: DataSet) -> SpikingBackbone:
        """A candidate with a copy of its share of the weights, its BNs calibrated; in evaluation mode.

        Raises:
            ValueError: The candidate needs what the store does not have.
        """
        model = build_model(candidate.model)
        model.load_state_dict({k: v.detach() for k, v in self.lent(model).items()}, strict=False)
        for module in model.modules():
            if isinstance(module, BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # averages over all batches alike
        with torch.no_grad():
            for x, _ in data.train.subset(range(min(CALIBRATION, len(data.train)))).batches(128):
                model(x)
        return model.eval()

    def accuracy(self, candidate: Candidate, data: DataSet) -> float:
        """On the validation part, with inherited weights."""
        return evaluate(self.inherit(candidate, data), data.validation).metrics["accuracy"]


def _leading(shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(n) for n in shape)


def shared_names(model: SpikingBackbone) -> dict[str, str]:
    """What each parameter of a model is called in the store.

    Its own name behind that of the backbone; but an operator is called by its class and a kernel of the local field
    by its dilation, so that nothing is shared that only stands in the same place.
    """
    labels = {path: path.rpartition(".")[2] for path, _ in model.named_modules()}
    for path, module in model.named_modules():
        if isinstance(module, Mixer):
            labels[path] = type(module).__name__
        elif isinstance(module, LocalField):
            for i, kernel in enumerate(module.kernels):
                assert isinstance(kernel, Conv2d)
                labels[f"{path}.kernels.{i}"] = f"dilation {kernel.dilation[0]}"

    def shared(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        path = accumulate(module.split("."), "{}.{}".format)
        return ".".join([type(model).__name__, *(labels[part] for part in path), leaf])

    return {name: shared(name) for name, _ in model.named_parameters()}
