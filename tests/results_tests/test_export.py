"""Exports: what is in the folder, that it loads to the same network, and that it is there whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors import safe_open

from lrf_models import build_model
from results import export as exporting
from results.describe import escaped
from results.export import export, trained
from results.front import front, pick
from search import folder as layout
from search.cli import main
from search.data import load
from search.data.dataset import TensorPart
from search.record import Record
from search.study import records
from spaces.config import candidate_from


def images(count: int = 32) -> torch.Tensor:
    return next(load("digits").validation.batches(count))[0]


def test_timm_loads_the_export_bit_equal(run_folder: Path, tmp_path: Path) -> None:
    record = pick(records(run_folder), layout.load(run_folder), "knee")
    out = export(run_folder, "knee", tmp_path / "knee")
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.inference_mode():
        expected = trained(run_folder, layout.load(run_folder), record)(images())
        assert torch.equal(model(images()), expected)
        fresh = timm.create_model(f"local-dir:{out}", pretrained=False).eval()
        assert not torch.equal(fresh(images()), expected)
    data = timm.data.resolve_data_config(model=model)
    assert data["input_size"] == (1, 8, 8)
    part = load("digits").validation
    assert isinstance(part, TensorPart)
    assert list(data["mean"]) == part.mean


def test_the_candidate_file_is_the_candidate(run_folder: Path, tmp_path: Path) -> None:
    out = export(run_folder, "min-energy", tmp_path / "out")
    candidate = candidate_from(yaml.safe_load((out / "candidate.yaml").read_text(encoding="utf-8")))
    record = pick(records(run_folder), layout.load(run_folder), "min-energy")
    assert candidate.identity == record.identity
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata()["identity"] == record.identity
        assert set(file.keys()) == set(build_model(candidate.model).state_dict())


def test_the_card_tells_accuracy_energy_and_its_model(run_folder: Path, tmp_path: Path) -> None:
    out = export(run_folder, "best-accuracy", tmp_path / "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    record = pick(records(run_folder), layout.load(run_folder), "best-accuracy")
    front_matter = yaml.safe_load(card.split("---")[1])
    reported = front_matter["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert reported == pytest.approx(record.metrics["accuracy"], abs=1e-6)
    for text in (record.identity, "45nm-fp32", "convention `event`", "test set was not read", "seed 0"):
        assert text in card


def test_a_pick_is_trained_again_and_the_graph_of_it_runs(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nir = pytest.importorskip("nir")
    from results.nir_run import run as run_graph

    picked = next(record for record in records(run_folder) if record.status == "complete" and expressible(record))
    out = tmp_path / "again"
    arguments = ["export", str(run_folder), "--pick", picked.identity, "--out", str(out), "--formats", "nir"]
    assert main([*arguments, "--retrain", "--epochs", "2"]) == 0
    told = [line.split()[1] for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert told == ["1/2", "2/2"]
    candidate = candidate_from(yaml.safe_load((out / "candidate.yaml").read_text(encoding="utf-8")))
    assert picked.candidate is not None
    assert candidate.model == picked.candidate.model
    assert (candidate.training.epochs, candidate.training.label_smoothing) == (2, 0.05)
    assert candidate.identity != picked.identity
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "**Trained again** by recipe `final` for 2 epochs." in card
    assert f"The search had trained this network as `{picked.identity}`" in card
    assert "* recipe: final, at most 2 epochs" in card

    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.no_grad():
        expected = model(images(64))
    assert torch.allclose(run_graph(nir.read(out / "model.nir", type_check=False), images(64)), expected, atol=1e-4)
    assert expected.std() > 0.1  # it learned something to compare

    def train(*_: object) -> None:
        raise AssertionError("what was trained once is not trained again")

    monkeypatch.setattr(exporting.TrainingObjective, "__call__", train)
    assert main([*arguments, "--retrain", "--epochs", "2", "--force"]) == 0
    assert (out / "README.md").read_text(encoding="utf-8") == card


def expressible(record: Record) -> bool:
    """Whether every block is one that NIR can say."""
    assert record.candidate is not None
    return all(getattr(block, "token", "") == "v" for block in record.candidate.model.attention_blocks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "3"], "--epochs needs --retrain, but got --epochs 3 alone"),
        (["--retrain", "--epochs", "0"], "epochs >= 1 must hold, but got 0"),
        (["--retrain", "--formats", "pickle"], "a format is one of"),
    ],
)
def test_a_retraining_that_cannot_be_is_refused_before_it_begins(
    run_folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run_folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_an_existing_folder_needs_force_and_survives_a_failure(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(run_folder, "knee", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ValueError, match="exists; --force replaces it"):
        export(run_folder, "min-energy", out)

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "card", full)
        with pytest.raises(ValueError, match="No space left on device"):
            export(run_folder, "min-energy", out, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing half written is left

    export(run_folder, "min-energy", out, force=True)
    tag = json.loads((out / "config.json").read_text())["pretrained_cfg"]["tag"]
    assert tag == pick(records(run_folder), layout.load(run_folder), "min-energy").identity
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_exported_to_its_own_place_is_not_written_again(run_folder: Path) -> None:
    out = export(run_folder, "knee")
    stamp = out.stat().st_ino
    assert export(run_folder, "knee") == out
    assert out.stat().st_ino == stamp
    shutil.rmtree(out.parent)


def test_force_does_not_replace_what_is_no_export(run_folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.tex").write_text("text")
    with pytest.raises(ValueError, match="is no export"):
        export(run_folder, "knee", precious, force=True)
    assert (precious / "chapter.tex").read_text() == "text"


@pytest.mark.parametrize("wanted", ["../../etc/passwd", "<img src=x onerror=alert(1)>", "energy_mj<1e-12"])
def test_picks_that_are_paths_or_markup_or_out_of_reach_are_bad_input(
    run_folder: Path, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run_folder), "--pick", wanted]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lrf-search export: ")
    assert said.count("\n") == 1
    assert not (run_folder / "exports").exists()


def test_an_identity_from_a_damaged_study_never_becomes_a_path(run_folder: Path) -> None:
    run = layout.load(run_folder)
    record = front(records(run_folder), run)[0].model_copy(update={"identity": "../../../x"})
    with pytest.raises(ValueError, match="twelve hexadecimal digits"):
        trained(run_folder, run, record)


def test_weights_that_are_gone_are_named(run_folder: Path, tmp_path: Path) -> None:
    run = layout.load(run_folder)
    off = next(r for r in records(run_folder) if r.status == "complete" and r not in front(records(run_folder), run))
    with pytest.raises(ValueError, match=r"model\.safetensors does not exist"):
        export(run_folder, off.identity, tmp_path / "out")


def test_an_unknown_format_is_named(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a format is one of"):
        export(run_folder, "knee", tmp_path / "out", ["pickle"])
    assert list(tmp_path.iterdir()) == []


def test_several_picks_from_the_command_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "exports"
    arguments = ["--pick", "knee", "min-energy", "--out", str(out), "--format", "json"]
    assert main(["export", str(run_folder), *arguments]) == 0
    paths = json.loads(capsys.readouterr().out)
    assert set(paths) == {"knee", "min-energy"}
    assert all((Path(path) / "config.json").is_file() for path in paths.values())
    assert {Path(path).parent for path in paths.values()} == {out}


def test_text_in_cards_is_never_markup() -> None:
    assert escaped("a|b <b>*x*</b>\n[l](u)") == "a\\|b &lt;b>\\*x\\*&lt;/b> \\[l\\](u)"
