"""The paper's ablation at a small scale: operators, receptive fields, dendrites, neurons and time steps.

    python benchmarks/reproduction.py run --data digits --seeds 5
    python benchmarks/reproduction.py report --data digits

``run`` trains every variant with every seed, one after the other, and skips what is done; ``report`` prints the
tables of docs/reproduction.md. Results are in runs/reproduction/DATA, one file per training.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrf_models.attention import Mixer
from search.data import DataSet, load
from search.evaluate import evaluate
from search.recipes import load_recipe
from search.train import train
from spaces.config import Candidate, candidate_from

RESULTS = Path("runs/reproduction")
IMAGES = 32  # on which attention is measured

# The paper has τ = 2 and θ = 1, with which a network of this size learns slowly: few neurons fire within T = 2.
NEURON = {"kind": "lif", "tau": 1.5, "threshold": 0.5}
BASE = {"dim": 24, "heads": 4, "mlp_ratio": 2.0, "timesteps": 2, "neuron": NEURON}
# What each data set is trained with: model fields, epochs, images for training and validation (0 takes all).
SCALES: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "digits": ({**BASE, "pools": 0}, 15, 0, 0),
    "fashion-mnist": ({**BASE, "pools": 2}, 10, 5000, 2000),
}


def variants() -> dict[str, dict[str, Any]]:
    """Changes to the base model, by the name of the row."""
    fields = {"none": [], "≤1": [1], "≤3": [1, 3], "≤5": [1, 3, 5]}
    full = {"kind": "lrf_dyn", "token": "qkv", "dilations": [1, 3, 5]}
    rows: dict[str, dict[str, Any]] = {
        "SSA": {"blocks": [{"kind": "ssa"}]},
        "causal SSA": {"blocks": [{"kind": "causal_ssa"}]},
        "LRF-SSA": {"blocks": [{"kind": "lrf_ssa", "dilations": [1, 3, 5]}]},
        "LRF-Dyn": {"blocks": [full]},
        "LRF-Dyn, token v": {"blocks": [{**full, "token": "v"}]},
    }
    rows |= {
        f"LRF-Dyn, Ω {name}": {"blocks": [{**full, "dilations": d}]} for name, d in fields.items() if d != [1, 3, 5]
    }
    rows |= {f"LRF-Dyn, k = {k}": {"blocks": [{**full, "dendrites": k}]} for k in (1, 2, 4)}
    for neuron in ("alif", "dh_lif"):
        changed = {"kind": neuron, "threshold": NEURON["threshold"]}
        changed |= {"branches": 2} if neuron == "dh_lif" else {}  # the stem begins with three channels
        rows[f"LRF-Dyn, {neuron.upper().replace('_', '-')}"] = {"blocks": [full], "neuron": changed}
    rows |= {f"LRF-Dyn, T = {t}": {"blocks": [full], "timesteps": t} for t in (1, 4)}
    return rows


MAIN = ("SSA", "causal SSA", "LRF-SSA", "LRF-Dyn")


def candidate(data: DataSet, change: dict[str, Any], seed: int) -> Candidate:
    base, epochs, _, _ = SCALES[data.name]
    training = {**load_recipe("search"), "batch_size": 64, "epochs": epochs, "seed": seed}
    return candidate_from(
        {"model": {"backbone": "spikformer", **data.model_fields(), **base, **change}, "training": training}
    )


def subset(name: str, data_dir: str | None) -> DataSet:
    """The data set at the scale of the study: the first images of the (stratified, shuffled by index) parts."""
    data = load(name, data_dir)
    _, _, train_images, validation_images = SCALES[name]
    if not train_images:
        return data
    return replace(
        data,
        train=data.train.subset(range(train_images)),
        validation=data.validation.subset(range(validation_images)),
    )


@torch.no_grad()
def locality(model: nn.Module, images: Tensor, reach: int = 5) -> dict[str, float]:
    """Where attention looks: mass within Manhattan distance ``reach``, and entropy over log N, as in Figure 2.

    Given q and k, every operator is linear in v channel by channel, so its N×N weights are its answers to one-hot
    tokens. Mass is |weight| over the sum of a row; rows without any weight (no spike of q) are left out. With token
    ``qkv``, k gates the token, and with token ``v`` there is no gate: both follow from the same probe.
    """
    mixer = next(module for module in model.modules() if isinstance(module, Mixer))
    caught: list[tuple[Any, ...]] = []
    handle = mixer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs))
    model.eval()(images)
    handle.remove()
    q, k, v = caught[0]
    height, width = v.shape[-2:]
    silent = mixer(q, k, torch.zeros_like(v))
    weights = []
    for n in range(height * width):
        probe = torch.zeros_like(v)
        probe[..., n // width, n % width] = 1
        weights.append((mixer(q, k, probe) - silent).abs().mean(2).flatten(-2))
    mass = torch.stack(weights, -1)  # [T, B, N (reads), N (is read)]
    total = mass.sum(-1, keepdim=True)
    mass = mass[total[..., 0] > 1e-9] / total[total[..., 0] > 1e-9]
    readers = torch.arange(height * width).expand(v.shape[0], v.shape[1], -1)[total[..., 0] > 1e-9]
    rows, columns = torch.arange(height * width) // width, torch.arange(height * width) % width
    distance = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    near = (mass * (distance[readers] <= reach)).sum(-1).mean()
    entropy = torch.special.entr(mass).sum(-1).mean() / torch.log(torch.tensor(float(height * width)))
    return {"near": near.item(), "entropy": entropy.item()}


def run(name: str, data_dir: str | None, seeds: int, only: tuple[str, ...]) -> None:
    """Train what is not trained yet, seed by seed, so that an interrupted study is balanced."""
    data = subset(name, data_dir)
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = {row: change for row, change in variants().items() if not only or row in only}
    for seed in range(seeds):
        for row, change in rows.items():
            chosen = candidate(data, change, seed)
            path = folder / f"{chosen.identity}.json"
            if path.exists():
                continue
            started = time.process_time()
            trained = train(chosen, data, str(folder / chosen.identity), lambda _: True)
            result = {
                "row": row,
                "seed": seed,
                "validation": evaluate(trained.model, data.validation).metrics["accuracy"],
                "test": evaluate(trained.model, data.test).metrics["accuracy"],
                **locality(trained.model, next(data.validation.batches(IMAGES))[0]),
                "cpu_seconds": time.process_time() - started,
                "epochs": len(trained.history),
            }
            path.write_text(json.dumps(result), encoding="utf-8")
            print(result, flush=True)


def results(name: str) -> dict[str, list[dict[str, Any]]]:
    """The finished trainings of every row that belongs to the present settings."""
    data = subset(name, None)
    found: dict[str, list[dict[str, Any]]] = {}
    for row, change in variants().items():
        for seed in range(100):
            path = RESULTS / name / f"{candidate(data, change, seed).identity}.json"
            if path.exists():
                found.setdefault(row, []).append(json.loads(path.read_text(encoding="utf-8")))
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Mean ± standard deviation over seeds, as Markdown."""
    yield "| variant | n | test accuracy, % | validation, % | mass within 5 | entropy / log N |"
    yield "|---|---|---|---|---|---|"
    for row, runs in found.items():
        cells = []
        for key, scale, digits in (("test", 100, 2), ("validation", 100, 2), ("near", 1, 3), ("entropy", 1, 3)):
            values = [scale * run[key] for run in runs]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        yield f"| {row} | {len(runs)} | {' | '.join(cells)} |"


def order(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """The paper's order on the seeds that both have: difference of test accuracy with its standard error."""
    for better, worse in (("LRF-SSA", "LRF-Dyn"), ("LRF-Dyn", "SSA"), ("SSA", "causal SSA")):
        a, b = ({run["seed"]: run["test"] for run in found.get(row, [])} for row in (better, worse))
        differences = [100 * (a[seed] - b[seed]) for seed in sorted(a.keys() & b.keys())]
        if len(differences) > 1:
            mean, error = statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5
            yield f"* {better} − {worse}: {mean:+.2f} ± {error:.2f} points (n = {len(differences)} pairs)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--data", choices=sorted(SCALES), default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--main", action="store_true", help="the four main operators only")
    args = parser.parse_args()
    if args.command == "run":
        run(args.data, args.data_dir, args.seeds, MAIN if args.main else ())
        return
    found = results(args.data)
    print("\n".join([*table(found), "", *order(found)]))


if __name__ == "__main__":
    main()
