"""The trials of a run in TensorBoard, MLflow and W&B: Ray's own callbacks, by the names in the run file.

They write what nobody here reads again: the study stays the truth. Addresses, projects and keys of MLflow and W&B
come from their own environment variables (MLFLOW_TRACKING_URI, WANDB_API_KEY, WANDB_MODE, …).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from search.config import RunConfig

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
FOLDER = "tensorboard"
PROJECT = "lrf-search"


def check(names: Sequence[str]) -> None:
    """Refuse loggers whose packages are missing.

    Raises:
        ValueError: One is; what to install.
    """
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise ValueError(f"the logger {name!r} needs one more package: pip install {PACKAGES[name]}")


def callbacks(config: RunConfig, folder: Path) -> list[Any]:
    """Ray Tune's callbacks for the loggers of a run.

    Raises:
        ValueError: As `check`.
    """
    check(config.loggers)
    return [MAKERS[name](config, folder) for name in config.loggers]


def _tensorboard(config: RunConfig, folder: Path) -> Any:
    from ray.tune.logger import TBXLoggerCallback

    from search.searcher import task_of

    class TensorBoard(TBXLoggerCallback):  # type: ignore[misc]
        """Beside the study and under the identity: Tune's own folder is scratch, and its names mean nothing."""

        def log_trial_start(self, trial: Any) -> None:
            if trial in self._trial_writer:
                self._trial_writer[trial].close()
            where = folder / FOLDER / task_of(trial.config).identity
            self._trial_writer[trial] = self._summary_writer_cls(str(where), flush_secs=30)
            self._trial_result[trial] = {}

    return TensorBoard()


def _mlflow(config: RunConfig, folder: Path) -> Any:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(experiment_name=config.name)


def _wandb(config: RunConfig, folder: Path) -> Any:
    from ray.air.integrations.wandb import WandbLoggerCallback

    from search.searcher import EPOCHS, RESULT, TASK

    return WandbLoggerCallback(project=PROJECT, group=config.name, excludes=[TASK, EPOCHS, RESULT])


MAKERS: dict[str, Callable[[RunConfig, Path], Any]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
