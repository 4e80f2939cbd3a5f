"""Runs a search on Ray Tune: one machine or a cluster. Tune places, starts, watches and replaces the workers.

Everything that Tune writes is scratch in the run folder. Nothing is read from it: the study is the truth, and a run
that is resumed is a new Tuner on the same study.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search import folder as layout
from search.config import Resources, RunConfig
from search.engine import Search
from search.objective import Objective
from search.worker import Result, Task

JOIN_S = 60.0
"""How long a cluster that is just starting may have no node that holds a trial."""
RETRIES = 2
"""How often Ray replaces a lost worker before the search hears of it."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # snapshots of all trials grow without bound, and nobody reads them
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
    "RAY_worker_niceness": "0",  # Ray's 15 starves the workers of a machine that does anything else
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative data_dir means the same in every worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def check(address: str | None) -> None:
    """Refuse what cannot be safe or cannot work, before anything is written or started.

    Ray's ports run code for whoever reaches them, hence the token. Ray Client (``ray://``) would move Tune's loop,
    with the searcher in it, into an actor of the cluster, away from the study and the lock of the run folder.

    Raises:
        ValueError: The environment turns Ray's authentication off, or the address is a client's.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise ValueError(
            f"RAY_AUTH_MODE=token must hold, or anyone on this network can run code here, but got {mode!r}"
        )
    if address is not None and address.startswith("ray://"):
        raise ValueError(
            "the driver must run inside the cluster, where its study is, but got the client address "
            f"{address}; use `ray job submit -- lrf-search … --address auto`, or HOST:PORT on one of its nodes"
        )


def worker_environment(resources: Resources) -> dict[str, str]:
    """Environment variables of every worker."""
    threads = str(max(1, int(resources.cpu)))
    return {**_QUIET, "OMP_NUM_THREADS": threads, "RAY_AUTH_MODE": "token"}


@contextlib.contextmanager
def connected(
    resources: Resources,
    address: str | None = None,
    processors: float | None = None,
    runtime_env: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """A Ray session: a private one on this machine, or one of a cluster.

    Args:
        resources: What a trial gets.
        address: ``auto`` or HOST:PORT of a cluster; None for a private Ray.
        processors: Of a private Ray; None takes all.
        runtime_env: Ray's description of what the workers need and do not have (``py_modules``, ``env_vars``).

    Raises:
        ValueError: `check` refuses.
        ConnectionError: Ray cannot start, or the cluster cannot be reached.
    """
    check(address)
    environment = worker_environment(resources)
    runtime = dict(runtime_env or {})
    os.environ.update(environment)
    import ray

    ray._raylet.Config.initialize("")  # Ray reads its environment when it is imported, which may have been earlier
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    try:
        if address is None:
            _start(
                num_cpus=processors,
                include_dashboard=False,
                object_store_memory=200 * 2**20,
                runtime_env=runtime,
                **common,
            )
        else:
            runtime["env_vars"] = {**runtime.get("env_vars", {}), **environment}
            ray.init(address=address, runtime_env=runtime, **common)
    except Exception as error:  # Ray raises what it likes, plain Exception included
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConnectionError(f"Ray must start or be reached at {address or 'this machine'}, but: {reason}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _start(**arguments: Any) -> None:
    """Start Ray here. Its own patience is 30 s, which a busy machine can exceed."""
    import ray

    for attempt in range(3):
        try:
            ray.init(address="local", **arguments)
            return
        except Exception as error:
            if attempt == 2 or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def capacity(resources: Resources, patience_s: float = 0.0) -> int:
    """How many trials the connected cluster holds at once.

    Args:
        resources: What a trial gets; all of it on one node.
        patience_s: How long to wait for a node that holds one.

    Raises:
        ValueError: Not even one fits.
    """
    import ray

    wanted = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom}
    until = time.monotonic() + patience_s
    while True:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        fitting = [node["Resources"] for node in nodes if resources.labels.items() <= node["Labels"].items()]
        fits = sum(
            min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount > 0)
            for node in fitting
        )
        if fits >= 1:
            return fits
        if time.monotonic() > until:
            break
        time.sleep(1.0)
    held = [{name: node["Resources"].get(name, 0.0) for name in wanted} for node in nodes]
    where = f" on a node labelled {resources.labels}" if resources.labels else ""
    raise ValueError(f"one trial must fit a node, but it asks for {wanted}{where} and the nodes hold {held}")


def trainable(objective: Objective, time_limit_s: float | None) -> Callable[[dict[str, Any]], None]:
    """The function that Tune runs in a worker."""

    def train(config: dict[str, Any]) -> None:
        from ray import tune

        from search.searcher import EPOCHS, RESULT, Epochs, task_of
        from search.worker import evaluate

        def send(epochs: Any) -> bool:
            shown = {"timesteps_total": epochs[-1].epoch, **epochs[-1].metrics}  # what loggers show
            tune.report({**shown, EPOCHS: Epochs.dump_json(epochs).decode()})  # ends this thread to stop the trial
            return True

        result = evaluate(objective, task_of(config), send, time_limit_s)
        shown = {"timesteps_total": len(result.history), **result.outcome.metrics}
        tune.report({**shown, RESULT: result.model_dump_json(), "done": True})

    return train


def run(search: Search, objective: Objective, folder: Path, config: RunConfig, *, cluster: bool = False) -> bool:
    """Work on a search until it is finished or interrupted; True if it is finished. Needs `connected`."""
    from ray import tune

    from search.loggers import callbacks
    from search.searcher import TuneScheduler, TuneSearcher, TuneTicker

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    resources = config.resources
    fits = capacity(resources, patience_s=JOIN_S if cluster else 0.0)
    # On a cluster that may grow, one trial always waits for resources, which is what makes an autoscaler act.
    concurrent = resources.concurrent or (None if cluster else fits)
    bundle = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom}
    request = tune.PlacementGroupFactory([bundle], bundle_label_selector=[resources.labels])
    searcher = TuneSearcher(search)
    scratch = folder.absolute() / layout.RAY
    if config.storage_path is None:
        shutil.rmtree(scratch, ignore_errors=True)
    storage = str(scratch) if config.storage_path is None else f"{config.storage_path}/{config.name}/{layout.RAY}"
    tuner = tune.Tuner(
        tune.with_resources(trainable(objective, resources.time_limit_s), request),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=TuneScheduler(searcher),
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=storage,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            callbacks=[TuneTicker(searcher), *callbacks(config, folder)],
            verbose=0,
        ),
    )
    with _sigterm_as_interrupt(), _memory_kill_as_lost_worker():
        tuner.fit()
    return search.finished


def train_all(tasks: Sequence[Task], objective: Objective, resources: Resources) -> Iterator[tuple[Task, Result]]:
    """Train all tasks in full on the connected cluster, each as it ends; no search is involved. Needs `connected`.

    Raises:
        ConnectionError: A worker was lost, and those that replaced it.
    """
    import ray

    def one(task: Task) -> Result:
        from search.worker import evaluate

        return evaluate(objective, task, lambda epochs: True, resources.time_limit_s)

    remote = ray.remote(
        num_cpus=resources.cpu,
        num_gpus=resources.gpu,
        resources=resources.custom,
        label_selector=resources.labels,
        max_retries=RETRIES,
    )(one)
    waiting = {remote.remote(task): task for task in tasks}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        task = waiting.pop(done)
        try:
            yield task, ray.get(done)
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise ConnectionError(f"the training of {task.identity} was lost: {reason}") from None


@contextlib.contextmanager
def _memory_kill_as_lost_worker() -> Iterator[None]:
    """Let a run outlive a worker that Ray's memory monitor kills.

    That error is none of an actor for Ray 2.60, so Tune takes it for a defect of its own and ends the whole run.
    """
    from ray.air.execution._internal import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    original = RayActorManager._actor_task_failed

    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception).partition(". ")[0])  # then follow all processes
        original(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Schedulers of clusters send SIGTERM before they kill: end as with Ctrl-C."""
    earlier = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
