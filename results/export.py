"""A configuration of a run as a folder that timm and Hugging Face tools understand.

    config.json          architecture, its arguments, input size and normalisation
    model.safetensors    the weights
    candidate.yaml       network and training, for ``lrf-search train``
    README.md            the model card

and, on request, the files of results/formats.py. ``timm.create_model("local-dir:FOLDER", pretrained=True)`` gives the
trained network back, after ``import lrf_models``.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from lrf_models import SpikingBackbone, build_model
from results.card import card
from results.front import pick as choose
from search import folder as layout
from search.checkpoint import load_weights
from search.config import RunConfig
from search.data import DataSet, load
from search.objective import TrainingObjective, evaluate_test
from search.recipes import load_recipe, training_fields
from search.record import Epoch, Record
from search.study import records as read_records
from search.worker import Task, evaluate
from spaces.config import Candidate, Training

CONFIG, WEIGHTS, CANDIDATE, CARD = "config.json", "model.safetensors", "candidate.yaml", "README.md"


@dataclass
class Parcel:
    """What is written into one export folder.

    Attributes:
        run: What the network was trained by: its recipe and epochs are those of a retraining, if there was one.
        picked: The trial that was trained again, as the search left it.
        notes: Sentences for the model card: what each further file holds, and what is baked into it.
    """

    record: Record
    run: RunConfig
    model: SpikingBackbone
    data: DataSet
    picked: Record | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def candidate(self) -> Candidate:
        assert self.record.candidate is not None
        return self.record.candidate

    def sample(self, images: int = 1) -> Tensor:
        """Validation images, normalised: what formats are checked on."""
        return next(self.data.validation.batches(images))[0]


Writer = Callable[[Parcel, Path], None]


def export(
    folder: Path,
    pick: str,
    out: Path | None = None,
    formats: Sequence[str] = (),
    *,
    force: bool = False,
    retrain: bool = False,
    epochs: int | None = None,
    heard: Callable[[Epoch], None] = lambda epoch: None,
) -> Path:
    """Export the configuration that ``pick`` names (results/front.py) and return its folder.

    Args:
        out: Where to; by default ``exports/IDENTITY`` in the run folder.
        formats: Further formats, of `results.formats.FORMATS`.
        force: Replace an existing folder.
        retrain: Train the pick by the ``final`` recipe first, and export that; its test metrics are measured once.
        epochs: For so many epochs, not the recipe's; ``heard`` is called after each.

    Raises:
        ValueError: Nothing matches, the weights are gone, the folder exists or cannot be written, or a format cannot
            express the network.
    """
    run = layout.load(folder)
    record, picked = choose(read_records(folder), run, pick), None
    if retrain:
        record, run, picked = *final(run, record, epochs), record
    target = out or folder / "exports" / record.identity
    if out is None and not (force or formats) and (target / CONFIG).is_file():
        return target  # written before, as the knee is at the end of every run; its name is its content
    check(target, formats, force=force)  # before minutes of training
    if picked is not None:
        record, model = retrained(folder, run, record, heard)
    else:
        model = trained(folder, run, record)
    return write(Parcel(record, run, model, load(run.data, run.data_dir), picked), target, formats, force=force)


def trained(folder: Path, run: RunConfig, record: Record) -> SpikingBackbone:
    """The network of a finished trial with its weights, in evaluation mode."""
    if not re.fullmatch(r"[0-9a-f]{12}", record.identity):  # it becomes part of a path
        raise ValueError(
            f"an identity is twelve hexadecimal digits, but trial {record.number} has {record.identity!r}"
        )
    assert record.candidate is not None
    model = build_model(record.candidate.model)
    load_weights(f"{layout.trials_address(folder, run)}/{record.identity}", model)
    return model.eval()


def final(run: RunConfig, record: Record, epochs: int | None = None) -> tuple[Record, RunConfig]:
    """A trial and its run with the training replaced by the ``final`` recipe: what `retrained` trains.

    Raises:
        ValueError: No epoch is left.
    """
    assert record.candidate is not None
    epochs = load_recipe("final")["epochs"] if epochs is None else epochs
    if epochs < 1:
        raise ValueError(f"epochs >= 1 must hold, but got {epochs}")
    run = run.model_copy(update={"recipe": "final", "training": {}, "epochs": epochs})
    training = Training.model_validate(training_fields(run))
    candidate = record.candidate.model_copy(update={"training": training})
    return record.model_copy(update={"candidate": candidate, "identity": candidate.identity}), run


def retrained(
    folder: Path, run: RunConfig, record: Record, heard: Callable[[Epoch], None]
) -> tuple[Record, SpikingBackbone]:
    """Train a record of `final` in ``retrained/IDENTITY`` of the run folder, as a trial of a search is trained.

    After an interruption it goes on from its checkpoint; what was finished before is not trained again.

    Raises:
        ValueError: The training diverged or ran out of memory.
    """
    assert record.candidate is not None
    home = str((folder / "retrained" / record.identity).absolute())
    task = Task(number=record.number, identity=record.identity, candidate=record.candidate, folder=home)

    def send(epochs: tuple[Epoch, ...]) -> bool:
        for epoch in epochs:
            heard(epoch)
        return True

    result = evaluate(TrainingObjective(run), task, send)
    outcome = result.outcome
    if outcome.status != "complete":
        raise ValueError(f"the training of {record.identity} by the final recipe failed: {outcome.reason}")
    values = {"metrics": outcome.metrics, "errors": outcome.errors, "history": result.history}
    values |= {"test": evaluate_test(run, record.candidate, home), "violations": {}}
    model = build_model(record.candidate.model)
    load_weights(home, model)
    return record.model_copy(update=values), model.eval()


def check(target: Path, formats: Sequence[str], *, force: bool) -> None:
    """Refuse what cannot be written, as far as that is known before anything is."""
    from results.formats import FORMATS  # these import the model's other forms, and optional packages

    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"a format is one of {sorted(FORMATS)}, but got {unknown[0]!r}")
    if target.exists() and not force:
        raise ValueError(f"{target} exists; --force replaces it")
    if target.exists() and not (target / CONFIG).is_file():
        raise ValueError(f"{target} is no export (it has no {CONFIG}), so it is not replaced")


def write(parcel: Parcel, target: Path, formats: Sequence[str] = (), *, force: bool = False) -> Path:
    """Write everything beside ``target``, then rename: the old folder or the new one, never half of one.

    Raises:
        ValueError: As `export`.
    """
    from results.formats import FORMATS

    check(target, formats, force=force)
    draft = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        draft.mkdir(parents=True)
        _write_base(parcel, draft)
        _verify(parcel, draft)
        for name in formats:
            FORMATS[name](parcel, draft)
        text = card(parcel.record, parcel.run, target.name, parcel.notes, parcel.picked)
        (draft / CARD).write_text(text, encoding="utf-8")
        _swap(draft, target)
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _swap(draft: Path, target: Path) -> None:
    """Put ``draft`` in the place of ``target``, and what was there in the place of ``draft``."""
    if not target.exists():
        draft.rename(target)
    elif not _exchange(draft, target):
        # A kill between the two leaves the old folder under a name of its own beside its place, whole.
        old = target.with_name(f".{target.name}.old.{uuid.uuid4().hex[:8]}")
        target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, renameat2(2) of Linux; False where system or file system cannot."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return int(rename(here, os.fsencode(one), here, os.fsencode(other), exchange)) == 0


def _write_base(parcel: Parcel, draft: Path) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in parcel.model.state_dict().items()}
    about = {"format": "pt", "identity": parcel.record.identity, "data": parcel.run.data, "split": parcel.data.split}
    (draft / WEIGHTS).write_bytes(save(tensors, metadata=about))  # a full disk is an OSError
    (draft / CONFIG).write_text(json.dumps(timm_config(parcel), indent=2) + "\n", encoding="utf-8")
    head = f"# {parcel.record.identity}, trained on {parcel.run.data} (split {parcel.data.split})\n"
    body = yaml.safe_dump(parcel.candidate.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (draft / CANDIDATE).write_text(head + body, encoding="utf-8")


def timm_config(parcel: Parcel) -> dict[str, Any]:
    """The content of config.json: timm's own layout, with the fields of the model configuration as arguments."""
    settings = parcel.candidate.model
    part = parcel.data.validation
    fields = settings.model_dump(mode="json", exclude={"backbone"})
    return {
        "architecture": settings.backbone,
        "num_classes": settings.num_classes,
        "num_features": parcel.model.num_features,
        "model_args": fields,
        "pretrained_cfg": {
            "tag": parcel.record.identity,
            "input_size": [settings.in_chans, *settings.img_size],
            "fixed_input_size": True,
            "num_classes": settings.num_classes,
            "mean": list(getattr(part, "mean", [0.0] * settings.in_chans)),
            "std": list(getattr(part, "std", [1.0] * settings.in_chans)),
            "crop_pct": 1.0,
            "classifier": "head",
            "first_conv": "stem",
        },
    }


def _verify(parcel: Parcel, draft: Path) -> None:
    """That timm reads the folder back to bit-equal outputs; otherwise the export is a defect of ours."""
    import timm

    again = timm.create_model(f"local-dir:{draft}", pretrained=True).eval()
    x = parcel.sample(16)
    with torch.inference_mode():
        same = torch.equal(parcel.model(x), again(x))
    assert same, "the exported network differs from the trained one"
