"""A cluster of several nodes (processes on this machine): placement, what workers are sent, and nodes that die."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "search_tests"))
import driver
import ray.cloudpickle
import toys
from ray.cluster_utils import Cluster

from search import runner
from search import study as book
from search.config import Resources, RunConfig
from search.objective import Objective, Outcome, Report
from search.worker import DONE
from spaces.config import Candidate

ray.cloudpickle.register_pickle_by_value(driver)

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that takes no trials and three nodes with one processor each, all asking for the token."""
    for name, value in runner.worker_environment(Resources()).items():
        monkeypatch.setenv(name, value)
    ray._raylet.Config.initialize("")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for index in range(3):
        made.add_node(num_cpus=1, labels={"site": "abc"[index]}, resources={"licence": 1} if index == 2 else {})
    yield made
    made.shutdown()


def work(cluster: Cluster, folder: Path, run: RunConfig, objective: Objective, **options: Any) -> list[book.Record]:
    search = toys.opened(run, folder, price=toys.price)
    with runner.connected(run.resources, cluster.address, **options):
        assert runner.run(search, objective, folder, run, cluster=True)
    return book.records(folder)


def kill_nodes(cluster: Cluster, folder: Path, times: int) -> list[str]:
    """Kill the node of a trial in mid-training, so many times; returns the trials hit."""
    hit: list[str] = []
    while len(hit) < times:
        time.sleep(0.1)
        for identity, lines in driver.logged(folder).items():
            done = (folder / "trials" / identity / DONE).exists()
            if done or identity in hit or not 3 <= lines[-1][0] <= 6:
                continue
            node = next((n for n in cluster.worker_nodes if n.node_id == lines[-1][1]), None)
            if node is not None:
                hit.append(identity)
                cluster.remove_node(node, allow_graceful=False)
                break
    return hit


def test_trials_of_a_killed_node_go_on_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    folder, hit = tmp_path / "toy", []
    killer = threading.Thread(target=lambda: hit.extend(kill_nodes(cluster, folder, 2)), daemon=True)
    killer.start()
    run = toys.config(trials=12, schedule={"enabled": False}, resources={"concurrent": 3})
    records = work(cluster, folder, run, functools.partial(driver.slowly, seconds=0.5))
    killer.join(1)
    assert len(hit) == 2
    over = [r for r in records if r.status == "complete"]
    assert Counter(r.identity for r in over).most_common(1)[0][1] == 1
    assert len(over) == 12
    assert all([e.epoch for e in r.history] == list(range(1, toys.EPOCHS + 1)) for r in over)
    logs = driver.logged(folder)
    assert all(len({node for _, node in logs[identity]}) > 1 for identity in hit)  # it really moved
    trained = [epoch for lines in logs.values() for epoch, _ in lines]
    repeated = len(trained) - 12 * toys.EPOCHS
    assert repeated <= len(hit)  # from the checkpoint: at most the epoch that was under way
    print(f"\n2 nodes killed, 12 trials, {12 * toys.EPOCHS} epochs needed, {repeated} trained again")


def test_trials_go_where_the_run_file_says_and_workers_get_what_they_are_sent(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Three runs: by label, by a resource that one node has, and one that fits nowhere."""
    package = tmp_path / "sent" / "packed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("ANSWER = 42\n")

    def learn(candidate: Candidate, folder: str, report: Report) -> Outcome:
        import packed  # type: ignore[import-not-found]

        context = ray.get_runtime_context()
        site = float("abc".index(context.get_node_labels()["site"]))
        outcome = toys.learn(candidate, folder, report)
        return outcome.model_copy(update={"errors": {"accuracy": site, "energy_mj": float(packed.ANSWER)}})

    sent = {"runtime_env": {"py_modules": [str(package)]}}
    places = {"label": ({"labels": {"site": "b"}}, 1.0), "own": ({"custom": {"licence": 1}}, 2.0)}
    for name, (resources, site) in places.items():
        run = toys.config(name=name, trials=3, schedule={"enabled": False}, resources=resources)
        records = work(cluster, tmp_path / name, run, learn, **sent)
        assert {(r.errors["accuracy"], r.errors["energy_mj"]) for r in records if r.status == "complete"} == {
            (site, 42.0)
        }
    nowhere = Resources(cpu=2)
    with (
        runner.connected(nowhere, cluster.address),
        pytest.raises(ValueError, match=r"one trial must fit a node, but it asks for \{'CPU': 2"),
    ):
        runner.capacity(nowhere)
