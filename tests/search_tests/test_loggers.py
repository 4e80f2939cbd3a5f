"""Trials in other tools: Ray's callbacks by name, and TensorBoard for real."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
import toys

from search import loggers, runner
from search.cli.run import prepared
from search.config import Resources
from search.loggers import callbacks, check

ray.cloudpickle.register_pickle_by_value(toys)  # workers do not find the folder of the tests


def test_names_are_rays_callbacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.air.integrations import mlflow, wandb

    monkeypatch.setattr(loggers, "find_spec", lambda name: object())
    monkeypatch.setattr(mlflow, "_MLflowLoggerUtil", object)  # imports the package
    monkeypatch.setattr(wandb, "wandb", object())
    made = callbacks(toys.config(loggers=["wandb", "mlflow", "tensorboard"]), tmp_path)
    kinds = [{kind.__name__ for kind in type(one).__mro__} for one in made]
    for kind, name in zip(kinds, ("WandbLoggerCallback", "MLflowLoggerCallback", "TBXLoggerCallback"), strict=True):
        assert name in kind
    assert made[0].group == made[1].experiment_name == toys.config().name
    assert callbacks(toys.config(), tmp_path) == []


@pytest.mark.parametrize("name", list(loggers.PACKAGES))
def test_a_missing_package_is_one_sentence_before_anything_starts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=f"{name!r} needs one more package: pip install {loggers.PACKAGES[name]}$"):
        prepared(toys.config(loggers=[name]))


@pytest.mark.parametrize("name", [n for n, p in loggers.PACKAGES.items() if importlib.util.find_spec(p)])
def test_an_installed_package_passes(name: str) -> None:
    check([name])


def test_an_unknown_logger_is_refused() -> None:
    with pytest.raises(ValueError, match="'tensorboard', 'mlflow' or 'wandb'"):
        toys.config(loggers=["paper"])


def test_tensorboard_holds_every_epoch_under_the_identity(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    run = toys.config(trials=3, loggers=["tensorboard"], schedule={"enabled": False})
    search = toys.opened(run, tmp_path / "toy", price=toys.price)
    with runner.connected(Resources(), processors=2):
        assert runner.run(search, toys.learn, tmp_path / "toy", run)
    from search.study import records

    trained = [record for record in records(tmp_path / "toy") if record.status == "complete"]
    assert len(trained) == 3
    for record in trained:
        found = scalars(tmp_path / "toy" / loggers.FOLDER / record.identity)["ray/tune/accuracy"]
        assert found == pytest.approx({e.epoch: e.metrics["accuracy"] for e in record.history})


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag → step → value of the event files in a folder, read without TensorFlow."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for path in folder.glob("events.out.tfevents.*"):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(data[at : at + 8], "little")
            event: Any = Event.FromString(data[at + 12 : at + 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            at += 16 + size
    return found
