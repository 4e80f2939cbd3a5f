"""A driver process for the tests to kill: works on the toy run in the folder given, until it is finished."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "search_tests"))
import ray.cloudpickle
import toys

from search import folder as layout
from search import runner
from search.config import RunConfig
from search.objective import Outcome, Report
from search.record import Epoch
from spaces.config import Candidate

ray.cloudpickle.register_pickle_by_value(toys)


def slowly(candidate: Candidate, folder: str, report: Report, seconds: float = 0.05) -> Outcome:
    """Train with a checkpoint after every epoch, and note every epoch and its node in a log that only grows."""
    done = Path(folder) / "checkpoint"
    start = int(done.read_text() or 0) if done.exists() else 0
    for epoch in range(start + 1, toys.EPOCHS + 1):
        time.sleep(seconds)
        done.parent.mkdir(parents=True, exist_ok=True)
        with open(done.with_name("log"), "a", encoding="utf-8") as log:
            log.write(f"{epoch} {ray.get_runtime_context().get_node_id()}\n")
        report(Epoch(epoch=epoch, metrics=toys.metrics_of(candidate, epoch), seconds=seconds))
        layout.write_text(str(done), str(epoch))
    return Outcome(status="complete", metrics=toys.metrics_of(candidate))


def logged(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """What `slowly` noted of every candidate: epochs and the nodes that trained them."""
    logs = {path.parent.name: path.read_text(encoding="utf-8") for path in folder.glob("trials/*/log")}
    return {
        identity: [(int(epoch), node) for epoch, node in map(str.split, text.splitlines())]
        for identity, text in logs.items()
    }


def config(trials: int) -> RunConfig:
    """A space of 480 networks."""
    return toys.config(trials=trials, space=toys.tree(dims=tuple(range(16, 976, 8))))


def main() -> None:
    folder, trials, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    run = config(trials)
    search = toys.opened(run, folder, price=toys.price)
    with runner.connected(run.resources, processors=2):
        print("working", flush=True)
        finished = runner.run(search, functools.partial(slowly, seconds=seconds), folder, run)
    print("finished" if finished else "interrupted", flush=True)


if __name__ == "__main__":
    main()
