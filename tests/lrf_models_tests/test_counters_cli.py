"""`lrf-search count`: what it accepts, what it says, what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
import yaml

from lrf_models import build_model
from lrf_models.counters import measure, price
from search import checkpoint
from search.cli import main
from search.data import load
from spaces import config

SETTINGS = config.SpikformerConfig.model_validate(
    {"img_size": 8, "in_chans": 1, "num_classes": 10, "dim": 16, "pools": 1, "heads": 2, "blocks": ({"kind": "ssa"},)}
)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A trial's folder: weights that say which candidate they belong to."""
    torch.manual_seed(3)
    model = build_model(SETTINGS)
    candidate = config.Candidate(model=SETTINGS)
    checkpoint.save_weights(str(tmp_path / "trial"), model, {"candidate": candidate.model_dump_json()})
    return tmp_path / "trial"


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "candidate.yaml"
    path.write_text(yaml.safe_dump(config.Candidate(model=SETTINGS).model_dump(mode="json")))
    return path


def test_events_of_trained_weights_on_real_images(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", str(trained), "--data", "digits", "--images", "40", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = build_model(SETTINGS)
    checkpoint.load_weights(str(trained), model)
    x = next(iter(load("digits").validation.batches(40)))[0]
    expected = measure(model, [x])
    assert found["measured"]["n"] == 40
    assert found["measured"]["sops"] == pytest.approx(expected.sops)
    assert found["measured"]["energy_mj"] == pytest.approx(expected.energy_mj)
    assert found["weights"] == "trained"
    assert found["not_counted"] == []
    assert sum(row["energy_uj"] for row in found["modules"]) == pytest.approx(1e3 * expected.energy_mj)


def test_table_and_csv_of_a_configuration(yaml_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", str(yaml_file)]) == 0
    text = capsys.readouterr().out
    assert f"{price(SETTINGS).parameters:,} parameters" in text
    assert "not counted: nothing" in text
    assert main(["count", str(yaml_file), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sum(int(row["dense_macs"]) for row in rows) == price(SETTINGS).dense_macs


def test_two_side_by_side_with_pictures(yaml_file: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png, page = yaml_file.with_suffix(".png"), yaml_file.with_suffix(".html")
    options = ["--compare", str(trained), "--png", str(png), "--html", str(page)]
    assert main(["count", str(yaml_file), *options]) == 0
    assert "dense_macs" in capsys.readouterr().out
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "blocks.0.attention" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        (["nothing_of_that_name"], "a target is a registered model"),
        (["resnet18"], "no spikes"),
        (["{folder}"], "has no model.safetensors"),
        (["{yaml}", "--profile", "truenorth", "--convention", "memory"], "truenorth lacks"),
        (["{yaml}", "--profile", "speck"], "a profile is one of"),
        (["{yaml}", "--data", "digits", "--images", "1"], "images >= 2"),
        (["{yaml}", "--images", "5"], "--images and --target-error need --data"),
        (["{yaml}", "--data", "digits", "--target-error", "0%"], "target error"),
        (["{yaml}", "--png", "{folder}/no/where.png"], "cannot write"),
    ],
)
def test_bad_input(
    arguments: list[str], law: str, yaml_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"yaml": str(yaml_file), "folder": str(tmp_path / "empty")}
    assert main(["count", *(argument.format(**places) for argument in arguments)]) == 2
    assert law in capsys.readouterr().err
