"""Train every candidate of a discrete space and keep what came out, so that searches can be replayed in seconds.

    python -m benchmarks.tables.build benchmarks/tables/digits.yaml benchmarks/tables/digits.parquet
    python -m benchmarks.tables.build … --shard 0/2       # in one shell, and 1/2 in another: two processes
    python -m benchmarks.tables.build … --pack            # only write the Parquet file from what is there

The first argument is a run file with a discrete space. Every finished training is one line of ``….jsonl`` beside the
Parquet file; a killed build goes on where it stopped. One row per candidate, seed and epoch.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.config import RunConfig, load_run_config
from search.metrics import priced_metrics
from search.objective import TrainingObjective
from search.record import Epoch
from spaces.config import Candidate
from spaces.presets import load_space
from spaces.space import Space


def bound_space(run: RunConfig) -> Space:
    """The space of a run file with its data set's and its training's values filled in."""
    from search.data import load
    from search.recipes import training_fields

    return load_space(run.space).bound(load(run.data, run.data_dir).model_fields(), training_fields(run))


def plan(space: Space, repeats: int, seeds: int) -> list[Candidate]:
    """All candidates with seed 0, then ``repeats`` of them, drawn at random, with the seeds 1 to ``seeds``."""
    candidates = list(space.enumerate())
    again = random.Random(0).sample(candidates, min(repeats, len(candidates)))
    return candidates + [reseeded(candidate, seed) for candidate in again for seed in range(1, seeds + 1)]


def reseeded(candidate: Candidate, seed: int) -> Candidate:
    return candidate.model_copy(update={"training": candidate.training.model_copy(update={"seed": seed})})


def train_one(run: RunConfig, candidate: Candidate) -> dict[str, Any]:
    """Train a candidate in full, as a trial of the run does; a row of the journal.

    A training that diverges leaves a shorter history.
    """
    from lrf_models.counters import price

    history: list[dict[str, float]] = []
    started = time.process_time()

    def note(epoch: Epoch) -> bool:
        history.append({**epoch.metrics, "seconds": epoch.seconds})
        return True

    with tempfile.TemporaryDirectory(prefix="table-") as folder:
        outcome = TrainingObjective(run)(candidate, folder, note)
    if outcome.status != "complete":
        print(f"{candidate.identity}: {outcome.reason}", file=sys.stderr)
    return {
        "identity": reseeded(candidate, 0).identity,
        "seed": candidate.training.seed,
        "candidate": candidate.model_dump(mode="json"),
        "cost": price(candidate, run.profile, run.convention).model_dump(mode="json"),
        "history": history,
        "seconds": time.process_time() - started,
    }


def journal_lines(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Every finished training in the journals; a line that a killed process left unfinished is skipped."""
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def journals(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f"{out.stem}*.jsonl"))


def build(run: RunConfig, out: Path, todo: list[Candidate], shard: int, shards: int) -> None:
    """Train what no journal has yet, this process's share of it."""
    done = {(line["identity"], line["seed"]) for line in journal_lines(journals(out))}
    mine = [c for i, c in enumerate(todo) if i % shards == shard]
    left = [c for c in mine if (reseeded(c, 0).identity, c.training.seed) not in done]
    path = out.with_name(f"{out.stem}.{shard}-{shards}.jsonl" if shards > 1 else f"{out.stem}.jsonl")
    with open(path, "a", encoding="utf-8") as journal:
        journal.write("\n" if path.stat().st_size else "")  # a torn line stays alone
        for i, candidate in enumerate(left):
            row = train_one(run, candidate)
            journal.write(json.dumps(row) + "\n")
            journal.flush()
            last = row["history"][-1] if row["history"] else {}
            print(
                f"{i + 1}/{len(left)} {row['identity']} seed {row['seed']}: accuracy {last.get('accuracy', 0):.3f}, "
                f"{last.get('energy_mj', 0):.4g} mJ, {row['seconds']:.1f} s",
                flush=True,
            )


def pack(out: Path, epochs: int, space: Space) -> int:
    """Write the Parquet file; the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from spaces.config import Candidate as Value
    from spaces.cost import Cost

    rows: dict[tuple[str, int, int], dict[str, Any]] = {}
    for line in journal_lines(journals(out)):
        cost = Cost.model_validate(line["cost"])
        candidate = reseeded(Value.model_validate(line["candidate"]), 0)
        shared = {
            "identity": line["identity"],
            "seed": line["seed"],
            "parameters": json.dumps(space.values_of(candidate), sort_keys=True),
            "epochs": epochs,
            **priced_metrics(cost),
            "energy_mj_low": cost.energy_mj_low,
            "energy_mj_high": cost.energy_mj_high,
        }
        for epoch, metrics in enumerate(line["history"], start=1):
            rows[line["identity"], line["seed"], epoch] = {**shared, "epoch": epoch, **metrics}
    table = pa.Table.from_pylist([rows[key] for key in sorted(rows)])
    pq.write_table(table, out, compression="zstd", compression_level=19)
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run file with a discrete space")
    parser.add_argument("out", type=Path, help="Parquet file to write")
    parser.add_argument("--repeats", type=int, default=100, help="candidates that get further seeds")
    parser.add_argument("--seeds", type=int, default=3, help="how many further seeds")
    parser.add_argument("--shard", default="0/1", help="which share of the work, as I/N")
    parser.add_argument("--pack", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    run = load_run_config(arguments.run)
    space = bound_space(run)
    todo = plan(space, arguments.repeats, arguments.seeds)
    if not arguments.pack:
        import torch

        torch.set_num_threads(1)
        shard, shards = (int(part) for part in arguments.shard.split("/"))
        build(run, arguments.out, todo, shard, shards)
    done = len({(line["identity"], line["seed"]) for line in journal_lines(journals(arguments.out))})
    print(f"{done} of {len(todo)} trainings, {pack(arguments.out, run.epochs, space)} rows in {arguments.out}")


if __name__ == "__main__":
    main()
