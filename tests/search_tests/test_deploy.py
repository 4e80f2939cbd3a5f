"""The files in deploy/ parse, name commands and options that exist, and leave Ray's authentication on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from search.cli import COMMANDS

DEPLOY = Path(__file__).parents[2] / "deploy"


def nodes_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_every_command_line_is_one_of_ours_with_authentication_on() -> None:
    for path in DEPLOY.iterdir():
        text = path.read_text(encoding="utf-8")
        commands = re.findall(r"lrf-search (run|resume|\w+) ", text)
        assert set(commands) <= set(COMMANDS)
        assert "RAY_AUTH_MODE" in text
        assert "disabled" not in text
        assert "0.0.0.0" not in text


def test_the_cluster_launcher_accepts_its_file(monkeypatch: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    raw = yaml.safe_load((DEPLOY / "cluster.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(raw))


def test_the_job_mounts_what_it_uses() -> None:
    job = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["lrf-search", "run"]
    assert words[-2:] == ["--address", "auto"]
    for node in nodes_of(job):
        volumes = {volume["name"] for volume in node["volumes"]}
        for container in node["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert set(mounts) <= volumes
            assert any(words[2].startswith(path) for path in mounts.values())
            assert words[words.index("--run-dir") + 1] in mounts.values()


def test_the_slurm_script_is_a_shell_script() -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / "search.slurm")], check=True)
