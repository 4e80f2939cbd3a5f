"""``lrf-search train`` and ``evaluate``, as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from search.cli import main

MODEL = {
    "backbone": "spikformer",
    "pools": 1,
    "timesteps": 1,
    "dim": 16,
    "heads": 2,
    "mlp_ratio": 1.0,
    "neuron": {"kind": "lif", "tau": 1.5, "threshold": 0.5},
    "blocks": [{"kind": "ssa"}],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"model": MODEL, "training": {"lr": 0.02, "epochs": 2, "warmup_epochs": 0}}))
    return path


def test_what_was_trained_is_what_is_measured(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["train", str(config), "--out", str(out), "--format", "json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} == {
        "candidate.yaml",
        "epochs.jsonl",
        "model.safetensors",
        "result.json",
    }
    lines = [json.loads(line) for line in (out / "epochs.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]

    assert main(["evaluate", str(out), "--format", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["images"] == trained["test"]["images"] == 359
    assert measured["metrics"]["accuracy"] == trained["test"]["accuracy"]
    assert measured["metrics"]["energy_mj"] == pytest.approx(trained["test"]["energy_mj"])

    assert main(["train", str(config), "--out", str(out)]) == 2
    assert "holds a finished training" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--data", "moving-edges"]) == 2
    assert "data set 'moving-edges'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "law"),
    [
        ("[1, 2]", "must hold a mapping, but holds list"),
        ("a: 1", "must hold a mapping with `model`"),
        (yaml.safe_dump({"model": MODEL, "training": [1, 2]}), "`training` must be one"),
        ("model: " + 5000 * "[", "is not YAML"),
        ("a: [", "is not YAML"),
        (
            yaml.safe_dump({"model": {**MODEL, "heads": 3}}),
            "heads must divide the width, but got (width=16, heads=3)",
        ),
        (yaml.safe_dump({"model": {**MODEL, "colour": "red"}}), "colour"),
        (yaml.safe_dump({"model": {**MODEL, "num_classes": 3}}), "num_classes"),
        (yaml.safe_dump({"model": MODEL, "training": {"epochs": 0}}), "epochs"),
    ],
)
def test_a_bad_file_is_one_sentence(
    content: str, law: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    assert main(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert law in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        (["--data", "mnist"], "data must be one of"),
        (["--recipe", "soup"], "recipe must be one of"),
        (["--threads", "0"], "resources.cpu: "),
        (["--recipe", "final", "--epochs", "0"], "epochs: "),
        (["--data", "cifar10", "--data-dir", "nowhere"], "cifar10 is not in nowhere"),
    ],
)
def test_bad_options(arguments: list[str], law: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), *arguments]) == 2
    error = capsys.readouterr().err
    assert law in error
    assert len(error.splitlines()) == 1


def test_evaluating_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "candidate.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_one_network(config: Path, tmp_path: Path) -> None:
    """Under torchrun the weights agree in both processes, and one of them writes."""
    script = tmp_path / "both.py"
    script.write_text(
        "import sys, torch\n"
        "import torch.distributed as dist\n"
        "from search import distributed\n"
        "from search.data import load\n"
        "from search.cli.train import read_candidate\n"
        "from search.train import train\n"
        "from pathlib import Path\n"
        "distributed.start()\n"
        "data = load('digits')\n"
        "candidate = read_candidate(Path(sys.argv[1]), None, None, None, data.model_fields())\n"
        "model = train(candidate, data, sys.argv[2], lambda _: True, save_every=0).model\n"
        "torch.save(dict(model.named_parameters()), f'{sys.argv[2]}/rank{distributed.rank()}.pt')\n"
    )
    out = tmp_path / "out"
    out.mkdir()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        str(script),
        str(config),
        str(out),
    ]
    root = Path(__file__).parents[2]
    subprocess.run(command, check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, timeout=300)
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (out / "checkpoint.pt").exists()
