"""``lrf-search train CONFIG``: one configuration in full, outside any search."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from search import distributed
from search.config import RunConfig
from search.data import DATA_SETS, load
from search.objective import TrainingObjective, evaluate_test
from search.recipes import recipes, training_fields
from search.record import Epoch
from spaces.config import Candidate, candidate_from, load_mapping

RESULT = "result.json"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="a YAML file with `model` and, if it says how, `training`")
    add_data(parser)
    parser.add_argument("--recipe", help=f"train by this recipe, not as the file says: {', '.join(recipes())}")
    parser.add_argument("--epochs", type=int, help="train for so many epochs")
    parser.add_argument("--seed", type=int, help="another seed")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default 1)")
    parser.add_argument("--out", type=Path, help="folder of the weights (default runs/trained/IDENTITY)")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="digits", help=f"one of {', '.join(DATA_SETS)} (default digits)")
    parser.add_argument("--data-dir", help="where its files are (docs/data.md)")
    parser.add_argument("--download", action="store_true", help="fetch the files, for the sets that can")


def execute(args: argparse.Namespace) -> int:
    distributed.start()
    data = load(args.data, args.data_dir, args.download)
    candidate = read_candidate(args.config, args.recipe, args.epochs, args.seed, data.model_fields())
    out: Path = args.out or Path("runs/trained") / candidate.identity
    if (out / RESULT).exists():
        raise ValueError(f"{out} holds a finished training; give another --out")
    run = RunConfig.model_validate(
        {"name": "train", "data": args.data, "data_dir": args.data_dir, "resources": {"cpu": args.threads}}
    )
    if distributed.leads():
        prepare(out, candidate)
    outcome = TrainingObjective(run)(candidate, str(out), Progress(out, candidate.training.epochs))
    if not distributed.leads():
        return 0
    if outcome.status != "complete":
        print(f"lrf-search train: {outcome.reason}", file=sys.stderr)
        return 1
    result = {
        **outcome.model_dump(exclude={"reason"}),
        "test": evaluate_test(run, candidate, str(out)),
        "folder": str(out),
    }
    (out / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if args.format == "json":
        print(json.dumps(result, indent=2))
    else:
        test = result["test"]
        print(f"validation  accuracy {outcome.metrics['accuracy']:.2%} (se {outcome.errors['accuracy']:.2%})")
        print(
            f"test        accuracy {test['accuracy']:.2%} (se {test['accuracy_se']:.2%}), {test['energy_mj']:.4g} mJ"
        )
        print(f"weights     {out}")
    return 0


def read_candidate(
    path: Path, recipe: str | None, epochs: int | None, seed: int | None, model_fields: dict[str, Any]
) -> Candidate:
    """The configuration of a file, with what the data and the options decide.

    Without ``training`` in the file and without ``recipe``, the recipe is ``final``.

    Raises:
        ValueError: The file cannot be read or breaks a law; the message names it.
    """
    raw = load_mapping(path)
    training = raw.get("training") or {}
    if not isinstance(raw.get("model"), dict) or not isinstance(training, dict):
        raise ValueError(f"{path} must hold a mapping with `model`, and `training` must be one")
    if recipe is not None or not training:
        training = training_fields(
            RunConfig(name="train", recipe=recipe or "final", epochs=60 if epochs is None else epochs)
        )
    training |= {key: value for key, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    try:
        return candidate_from({**raw, "model": {**model_fields, **raw["model"]}, "training": training})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def prepare(out: Path, candidate: Candidate) -> None:
    """Make the folder and put the configuration into it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(candidate.model_dump(mode="json"), sort_keys=False)
        (out / "candidate.yaml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write to {out}: {error.strerror}") from None


class Progress:
    """One line per epoch, on the terminal and in ``epochs.jsonl``."""

    def __init__(self, out: Path, epochs: int) -> None:
        self.path, self.epochs = out / "epochs.jsonl", epochs

    def __call__(self, epoch: Epoch) -> bool:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(epoch.model_dump_json() + "\n")
        show_epoch(epoch, self.epochs)
        return True


def show_epoch(epoch: Epoch, epochs: int) -> None:
    """One line on standard error."""
    loss, accuracy = epoch.metrics["loss"], epoch.metrics["accuracy"]
    text = f"epoch {epoch.epoch}/{epochs}  loss {loss:.4f}  accuracy {accuracy:.2%}  {epoch.seconds:.1f} s"
    print(text, file=sys.stderr)
