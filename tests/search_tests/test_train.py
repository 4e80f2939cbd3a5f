"""The training loop on a tiny network: resume, determinism, groups, failures."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lrf_models import build_model
from search import checkpoint
from search.data import DataSet, load
from search.data.dataset import TensorPart
from search.evaluate import evaluate, mean_iou
from search.record import Epoch
from search.train import Diverged, Learner, build_optimizer, mix, train
from spaces.config import Candidate, candidate_from

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> DataSet:
    """A slice of digits, small enough for many trainings."""
    digits = load("digits")
    return replace(digits, train=digits.train.subset(range(96)), validation=digits.validation.subset(range(64)))


def tiny(data: DataSet, **training: object) -> Candidate:
    model = {
        "backbone": "spikformer",
        "pools": 1,
        "timesteps": 2,
        "neuron": {"kind": "lif", "tau": 1.5, "threshold": 0.5},
        "dim": 16,
        "heads": 2,
        "mlp_ratio": 1.0,
        "blocks": [{"kind": "lrf_dyn", "dilations": [1], "dendrites": 2}],
        **data.model_fields(),
    }
    return candidate_from(
        {"model": model, "training": {"epochs": 4, "warmup_epochs": 0.5, "batch_size": 32, **training}}
    )


def run(
    candidate: Candidate, data: DataSet, folder: Path, report: Callable[[Epoch], bool] = lambda _: True
) -> nn.Module:
    return train(candidate, data, str(folder), report, device=CPU, save_every=0).model


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


class Killed(BaseException):
    """What SIGKILL is to a training: nothing after it runs."""


RECIPES = {
    "plain": {},
    "everything": {
        "shift": 1,
        "flip": True,
        "erasing": 0.5,
        "rand_augment": "rand-m5-n1",
        "mixup": 0.5,
        "cutmix": 0.5,
        "ema_decay": 0.9,
        "dynamics_lr": 0.5,
    },
    "lamb": {"optimizer": "lamb", "clip_grad": None},
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_killed_training_resumes_to_the_bit(recipe: str, killed_after: int, data: DataSet, tmp_path: Path) -> None:
    candidate = tiny(data, **RECIPES[recipe])
    whole = run(candidate, data, tmp_path / "whole")

    def kill(epoch: Epoch) -> bool:
        if epoch.epoch == killed_after + 1:
            raise Killed  # after this epoch was trained, before it was saved
        return True

    with pytest.raises(Killed):
        run(candidate, data, tmp_path / "resumed", kill)
    torch.manual_seed(123)  # whatever another trial left in this process
    seen: list[int] = []
    resumed = run(candidate, data, tmp_path / "resumed", lambda epoch: seen.append(epoch.epoch) is None)
    assert seen == list(range(killed_after + 1, 5))
    assert same(whole, resumed)


def test_equal_seeds_train_equally_and_others_do_not(data: DataSet, tmp_path: Path) -> None:
    first, second = (run(tiny(data, seed=1, epochs=1, warmup_epochs=0), data, tmp_path / name) for name in "ab")
    other = run(tiny(data, seed=2, epochs=1, warmup_epochs=0), data, tmp_path / "c")
    assert same(first, second)
    assert not same(first, other)


def test_it_learns(tmp_path: Path) -> None:
    """Six times better than guessing after four epochs; a network with dead gradients stays at 10 %."""
    digits = load("digits")
    candidate = tiny(digits, epochs=4, lr=2e-2)
    model = train(candidate, digits, str(tmp_path), lambda _: True, device=CPU).model
    assert evaluate(model, digits.validation).metrics["accuracy"] > 0.6


def test_the_searcher_can_stop_it(data: DataSet, tmp_path: Path) -> None:
    trained = train(tiny(data), data, str(tmp_path), lambda epoch: epoch.epoch < 2, device=CPU)
    assert trained.stopped
    assert [epoch.epoch for epoch in trained.history] == [1, 2]


def test_a_refusal_after_the_last_epoch_stops_nothing(data: DataSet, tmp_path: Path) -> None:
    trained = train(tiny(data, epochs=1, warmup_epochs=0), data, str(tmp_path), lambda _: False, device=CPU)
    assert not trained.stopped


def test_a_loss_that_is_no_number_ends_the_training(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"loss is (nan|inf) in epoch 1"):
        run(tiny(data, lr=1e30, clip_grad=None, warmup_epochs=0), data, tmp_path)


def test_dynamics_do_not_decay_and_learn_at_their_own_rate(data: DataSet) -> None:
    candidate = tiny(data, weight_decay=0.1, dynamics_lr=0.25, lr=1e-2, warmup_epochs=0)
    learner = Learner(candidate, data, CPU)
    learner.schedule.step_update(0)
    groups = {id(p): group for group in learner.optimizer.param_groups for p in group["params"]}
    dynamics = {name for name, _ in learner.model.dynamics()}
    assert dynamics
    for name, parameter in learner.model.named_parameters():
        group = groups[id(parameter)]
        assert group["weight_decay"] == (0.1 if parameter.ndim > 1 and name not in dynamics else 0.0), name
        assert group["lr"] == pytest.approx(2.5e-3 if name in dynamics else 1e-2), name


def test_frozen_constants_are_no_business_of_the_optimiser(data: DataSet) -> None:
    candidate = tiny(data)
    block = candidate.model.blocks[0].model_copy(update={"learnable": False})
    model = build_model(candidate.model.model_copy(update={"blocks": (block,)}))
    known = {id(p) for group in build_optimizer(model, candidate.training).param_groups for p in group["params"]}
    assert {id(p) for p in model.parameters() if p.requires_grad} == known


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(data: DataSet) -> None:
    learner = Learner(tiny(data, lr=0.01, epochs=10, warmup_epochs=2, min_lr=0.1), data, CPU)
    assert learner.steps == 3
    rates = []
    for step in range(30):
        learner.schedule.step_update(step)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates[:6] == sorted(rates[:6])
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[15] == pytest.approx(0.001 + 0.009 / 2)  # half way down
    assert rates[-1] == pytest.approx(0.001, rel=0.05)


def test_averaged_weights_are_the_ones_that_count(data: DataSet) -> None:
    learner = Learner(tiny(data, ema_decay=0.5), data, CPU)
    learner.epoch()
    assert learner.best is not learner.model
    assert not same(learner.best, learner.model)


def test_a_checkpoint_is_read_without_running_code(data: DataSet, tmp_path: Path) -> None:
    run(tiny(data, ema_decay=0.9), data, tmp_path)
    state = torch.load(tmp_path / checkpoint.STATE, weights_only=True)
    assert state["identity"] == tiny(data, ema_decay=0.9).identity
    torch.save({"model": _Evil()}, tmp_path / checkpoint.STATE)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged"):
        run(tiny(data, ema_decay=0.9), data, tmp_path)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise AssertionError('it ran')",)


def test_a_checkpoint_of_another_candidate_or_cut_short_names_itself(data: DataSet, tmp_path: Path) -> None:
    run(tiny(data), data, tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is of candidate"):
        run(tiny(data, lr=1e-4), data, tmp_path)
    wider = tiny(data).model_copy(update={"model": tiny(data).model.model_copy(update={"dim": 24})})
    with pytest.raises(
        ValueError, match=r"checkpoint\.pt is of another architecture: '.*' is \(.*\) here and \(.*\) there"
    ):
        run(wider, data, tmp_path)
    path = tmp_path / checkpoint.STATE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged or cut short"):
        run(tiny(data), data, tmp_path)


def test_a_model_that_does_not_fit_the_data_is_refused(data: DataSet, tmp_path: Path) -> None:
    candidate = tiny(data)
    wrong = candidate.model_copy(update={"model": candidate.model.model_copy(update={"num_classes": 7})})
    with pytest.raises(ValueError, match="num_classes must be that of data set 'digits', 10, but got 7"):
        run(wrong, data, tmp_path)


def test_mixup_needs_an_even_batch(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"even batch, but got \(batch_size=31\)"):
        run(tiny(data, mixup=0.5, batch_size=31), data, tmp_path)


def test_mixup_mixes_all_frames_of_a_recording_alike() -> None:
    def blend(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return 0.25 * x + 0.75 * x.flip(0), y

    x = torch.randn(3, 4, 2, 5, 5)
    mixed, _ = mix(blend, x, torch.arange(4))
    assert torch.allclose(mixed, 0.25 * x + 0.75 * x.flip(1))


def test_events_are_learned_from_their_order(tmp_path: Path) -> None:
    """Opposite directions have the same frames, so more than half right needs time."""
    data = load("moving-edges")
    model = {
        "backbone": "spikformer",
        "pools": 1,
        "dim": 16,
        "heads": 1,
        "mlp_ratio": 1.0,
        "blocks": [{"kind": "ssa"}],
    }
    candidate = candidate_from(
        {
            "model": {**model, **data.model_fields()},
            "training": {"epochs": 6, "lr": 1e-2, "batch_size": 32, "warmup_epochs": 0},
        }
    )
    trained = train(candidate, data, str(tmp_path), lambda _: True, device=CPU)
    accuracy = evaluate(trained.model, data.test).metrics["accuracy"]
    assert accuracy > 0.6
    turned = TensorPart(data.test.x.flip(1), data.test.y ^ 1, [0.0, 0.0], [1.0, 1.0], mirror=False)
    assert (
        abs(evaluate(trained.model, turned).metrics["accuracy"] - accuracy) < 0.1
    )  # the reverse is the other direction


# --- evaluation -----------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Answers with the logits that stand in the input."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_accuracy_and_its_error() -> None:
    answers = torch.arange(10) % 2
    x = nn.functional.one_hot(answers, 2).float()[:, :, None, None]
    part = TensorPart(x, torch.cat([answers[:8], 1 - answers[8:]]), [0.0], [1.0], mirror=False)
    found = evaluate(Fixed(), part, batch_size=3)
    assert found.metrics == {"accuracy": pytest.approx(0.8)}
    shrunk = (8 + 2) / (10 + 4)
    assert found.errors["accuracy"] == pytest.approx((shrunk * (1 - shrunk) / 14) ** 0.5)


def test_mean_iou_of_a_hand_made_confusion() -> None:
    confusion = torch.tensor([[3, 1, 0], [1, 5, 0], [0, 0, 0]])  # the last class never occurs
    assert mean_iou(confusion) == pytest.approx((3 / 5 + 5 / 7) / 2)


# --- files ----------------------------------------------------------------------------------------------------------


def test_weights_come_back_as_they_were(data: DataSet, tmp_path: Path) -> None:
    model, other = build_model(tiny(data).model), build_model(tiny(data).model)
    checkpoint.save_weights(str(tmp_path), model, {"data": "digits"})
    checkpoint.load_weights(str(tmp_path), other)
    assert same(model, other)


@pytest.mark.parametrize("address", ["memory://weights/a", "PATH"])
def test_files_are_written_whole(address: str, tmp_path: Path) -> None:
    folder = address.replace("PATH", str(tmp_path / "new"))
    assert checkpoint.read(folder, "x") is None
    for content in (b"one", b"two"):
        checkpoint.write(folder, "x", content)
        assert checkpoint.read(folder, "x") == content
    checkpoint.remove(folder, "x")
    assert checkpoint.read(folder, "x") is None


def test_damaged_weights_name_their_file(data: DataSet, tmp_path: Path) -> None:
    model = build_model(tiny(data).model)
    with pytest.raises(ValueError, match=r"model\.safetensors does not exist"):
        checkpoint.load_weights(str(tmp_path), model)
    checkpoint.save_weights(str(tmp_path), model, {})
    path = tmp_path / checkpoint.MODEL
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        checkpoint.load_weights(str(tmp_path), model)
    path.write_bytes(pickle.dumps(io.BytesIO))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        checkpoint.load_weights(str(tmp_path), model)


def test_saving_waits_for_its_turn(tmp_path: Path) -> None:
    rare = checkpoint.Checkpointer(str(tmp_path), every=1e6)
    rare.offer({"epoch": 1})
    assert rare.load() is None
    always = checkpoint.Checkpointer(str(tmp_path), every=0)
    always.offer({"epoch": 1})
    always.offer({"epoch": 2})
    assert always.load() == {"epoch": 2}
