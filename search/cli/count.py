"""``lrf-search count MODEL|CONFIG|FOLDER``."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lrf_models import SpikingBackbone, build_model
from lrf_models.counters import CONVENTIONS, Measurement, Policy, counting, load_profile, measurement, price
from lrf_models.counters import profile_names as profiles
from lrf_models.counters.energy import Estimate, bound_events, check, estimate
from lrf_models.counters.events import Events
from lrf_models.counters.memory import attention_blocks
from lrf_models.counters.price import image_shape, mean_and_error
from lrf_models.counters.trace import Trace, shell, trace
from search import checkpoint
from search.cli import count_output as output
from spaces.config import Candidate, Model, explain, load_mapping
from spaces.cost import Cost

IMAGES = 256


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", help="a registered model, a candidate's YAML file, or a folder with model.safetensors"
    )
    parser.add_argument("--compare", metavar="OTHER", help="a second one, side by side")
    parser.add_argument(
        "--data", help="count events on this data set's validation part; without it, bounds are given"
    )
    parser.add_argument("--data-dir", help="where the files of the data set are")
    parser.add_argument("--images", type=int, help=f"count at most so many images (default {IMAGES})")
    parser.add_argument(
        "--target-error", metavar="2%", help="stop when the energy's relative standard error is as low"
    )
    parser.add_argument(
        "--profile", default="45nm-fp32", help=f"one of {', '.join(profiles())}, or a YAML file of yours"
    )
    parser.add_argument("--convention", default="event", choices=list(CONVENTIONS))
    parser.add_argument(
        "--decay", default="multiply", choices=["multiply", "shift"], help="what a decay constant costs"
    )
    parser.add_argument(
        "--integers",
        default="accumulate",
        choices=["accumulate", "multiply"],
        help="what an integer on a synapse costs",
    )
    parser.add_argument("--strict", action="store_true", help="fail if anything was not counted")
    parser.add_argument("--format", choices=["text", "json", "csv"], default="text")
    parser.add_argument("--png", type=Path, help="write a bar chart of where energy and memory go")
    parser.add_argument("--html", type=Path, help="the same as a page")


@dataclass(frozen=True)
class Count:
    """Everything that is known about one model.

    Attributes:
        trained: Whether its weights come from a file; others are random.
        events: Measured, or empty where only bounds are known.
    """

    name: str
    trained: bool
    cost: Cost
    trace: Trace
    events: dict[str, Events]
    estimate: Estimate
    measured: Measurement | None

    def rows(self) -> list[dict[str, Any]]:
        """The per-module table; without events, as if every neuron fired."""
        return [
            output.row(name, row, self.events.get(name), self.estimate.works[name], self.measured is not None)
            for name, row in self.trace.rows.items()
        ]

    def summary(self) -> dict[str, Any]:
        """The totals."""
        found: dict[str, Any] = {
            "name": self.name,
            "weights": "trained" if self.trained else "random",
            **self.cost.model_dump(),
            "memory_bytes": self.cost.memory_bytes,
            "attention_blocks": attention_blocks(self.trace.facts),
            "training_macs_of_scans": sum(facts.training for facts in self.trace.facts.values()),
            "not_counted": list(self.trace.ledger),
            "not_priced": list(self.estimate.unpriced),
        }
        if self.measured is not None:
            found["measured"] = self.measured.model_dump(mode="json")
        return found


def execute(args: argparse.Namespace) -> int:
    if args.data is None and (args.images is not None or args.target_error is not None):
        raise ValueError("--images and --target-error need --data: without it nothing is measured")
    targets = [args.target, *([args.compare] if args.compare else [])]
    check(load_profile(args.profile), args.convention)
    counts = [_count(target, args) for target in targets]
    if args.format == "json":
        found = [{**count.summary(), "modules": count.rows()} for count in counts]
        print(json.dumps(found if args.compare else found[0], indent=2))
    elif args.format == "csv":
        print(output.csv([{"model": count.name, **row} for count in counts for row in count.rows()]), end="")
    elif args.compare:
        print(output.side_by_side([count.summary() for count in counts]))
    else:
        print(output.table(counts[0].rows()))
        print()
        print(output.totals(counts[0].summary(), args.profile, args.convention))
    named = [(count.name, count.rows()) for count in counts]
    if args.png:
        output.write(args.png, output.png(named))
    if args.html:
        output.write(args.html, output.html(named).encode())
    return 0


def _count(target: str, args: argparse.Namespace) -> Count:
    settings, folder = resolve(target)
    policy = Policy(decay=args.decay, integers=args.integers)
    profile = load_profile(args.profile)
    traced = trace(shell(lambda: build_model(settings)), image_shape(settings), strict=args.strict)
    measured, events = (None, {}) if args.data is None else _measure(settings, folder, args, policy)
    known = events or {name: bound_events(row, True) for name, row in traced.rows.items() if row.facts.gated}
    found = estimate(traced.rows, known, profile, args.convention, policy, settings.timesteps)
    cost = price(settings, args.profile, args.convention)
    return Count(target, folder is not None, cost, traced, known, found, measured)


def _measure(
    settings: Model, folder: Path | None, args: argparse.Namespace, policy: Policy
) -> tuple[Measurement, dict[str, Events]]:
    import torch

    from search.data import load

    images = IMAGES if args.images is None else args.images
    if images < 2:
        raise ValueError(f"images >= 2 must hold, but got (images={images})")
    data = load(args.data, args.data_dir)
    data.check(settings)
    torch.manual_seed(0)
    model: SpikingBackbone = build_model(settings).eval()
    if folder is not None:
        checkpoint.load_weights(str(folder), model)
    wanted = _share(args.target_error) if args.target_error else 0.0
    with torch.no_grad(), counting(model) as counter:
        for x, _ in data.validation.batches(32):
            room = images - counter.images
            model(x[:room] if x.ndim == 4 else x[:, :room])
            if counter.images >= images:
                break
            if wanted and counter.images >= 30:
                mean, error = mean_and_error(
                    estimate(
                        trace(model, counter.shape).rows,
                        counter.events(),
                        load_profile(args.profile),
                        args.convention,
                        policy,
                        settings.timesteps,
                    ).energy_mj
                )
                if error <= wanted * mean:
                    break
    return measurement(counter, args.profile, args.convention, policy), counter.events()


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"a target error lies between 0 and 100 %, but got {text!r}")
    return share


def resolve(target: str) -> tuple[Model, Path | None]:
    """The network that a target names, and the folder of its weights if it has some.

    Raises:
        ValueError: It is neither a registered model, nor a configuration, nor a folder with weights.
    """
    path = Path(target)
    if path.is_dir():
        return _of_folder(path), path
    if path.suffix in (".yaml", ".yml"):
        return _of_yaml(path), None
    import timm

    if not timm.is_model(target):
        raise ValueError(
            f"a target is a registered model, a .yaml file or a folder with {checkpoint.MODEL}, but got {target!r}"
        )
    if not timm.model_entrypoint(target).__module__.startswith("lrf_models"):
        raise ValueError(f"{target} is one of timm's own models, which have no spikes")
    settings: Any = shell(lambda: timm.create_model(target)).settings
    return settings, None


def _of_yaml(path: Path) -> Model:
    try:
        raw = load_mapping(path)
        if "model" in raw:
            return Candidate.model_validate(raw).model
        model: Model = TypeAdapter(Model).validate_python(raw)
        return model
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


def _of_folder(folder: Path) -> Model:
    """The candidate that is named in an export's YAML, or in the header of the weights."""
    if (folder / "candidate.yaml").exists():
        return _of_yaml(folder / "candidate.yaml")
    weights = folder / checkpoint.MODEL
    if not weights.exists():
        raise ValueError(f"{folder} has no {checkpoint.MODEL}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(weights), framework="pt") as file:
            return Candidate.model_validate_json((file.metadata() or {})["candidate"]).model
    except (SafetensorError, KeyError, ValidationError):
        raise ValueError(f"{weights} does not say which network its weights belong to") from None
