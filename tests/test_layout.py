"""The architecture, checked: imports follow the flow, and our packages are the ones imported."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOW = ["spaces", "lrf_models", "search", "results"]


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FLOW)
def test_imports_never_point_against_the_flow(package: str) -> None:
    downstream = set(FLOW[FLOW.index(package) + 1 :])
    for path in sorted((ROOT / package).rglob("*.py")):
        if ROOT / "search" / "cli" in path.parents:  # the command line sees all of it
            continue
        assert not imported(path) & downstream, path.relative_to(ROOT)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("spaces.space", ["torch", "optuna", "ray"]),
        ("spaces.presets", ["torch", "optuna", "ray"]),
        ("search.record", ["torch", "optuna", "ray"]),
        ("search.config", ["torch", "optuna", "ray"]),
        ("search.cli", ["torch", "optuna", "ray"]),
        ("lrf_models", ["optuna", "ray", "fvcore"]),
        ("lrf_models.counters", ["optuna", "ray", "fvcore"]),
        ("search.train", ["optuna", "ray"]),
        ("search.data", ["optuna", "ray"]),
        ("search.objective", ["optuna", "ray"]),
    ],
)
def test_a_part_loads_only_what_it_needs(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", FLOW)
def test_the_imported_packages_are_ours(package: str) -> None:
    """PyPI has packages named ``spaces`` and ``results``; neither may shadow ours."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().parent == ROOT / package


def test_no_test_folder_shadows_a_package() -> None:
    assert not [p for p in (ROOT / "tests").iterdir() if p.name in FLOW]
