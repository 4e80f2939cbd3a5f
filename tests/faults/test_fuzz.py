"""Damaged and hostile input of every kind: one clear sentence each, no traceback, no hang, no file out of place."""

from __future__ import annotations

import contextlib
import copy
import pickle
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "search_tests"))
import toys

from lrf_models import build_model
from search import checkpoint, runner
from search import folder as layout
from search.cli import main, show
from search.engine import Search
from spaces.presets import SPACES, load_space, starting_points

MANY = [12, pytest.param(250, marks=pytest.mark.slow)]
"""Examples per kind of input: a few always, a thousand in all with ``-m slow``."""
PATIENCE_S = 30
ROOM = 6 * 2**30

TEXTS = ["", "../../up", "/etc/passwd", "a" * 5000, "ünï\u202e", "1e9", "<script>", "a\nb", "\x00", "~", ".", "{}"]
NUMBERS = [-1, 0, 1, 3, 10**6, 10**12, 2**63, 10**400, float("nan"), float("inf"), -0.0, 1e308, 1e-320]
plain = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.integers(-9, 99))
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["kind", "choice", "int", "float", "one_of", "repeat", "of", "step", "log", "x", "min"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def mutate(draw: Callable[[Any], Any], tree: Any) -> Any:
    """A copy of a tree of plain values in which up to three places are damaged."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        places = [
            (node, key)
            for node in _containers(tree)
            for key in (node if isinstance(node, dict) else range(len(node)))
        ]
        if not places:
            break
        node, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "delete", "add"])):
            case "replace":
                node[key] = draw(values)
            case "delete":
                del node[key]
            case _ if isinstance(node, dict):
                node[draw(st.sampled_from(["x", "model", "kind", "choice"]))] = draw(values)
            case _:
                node.append(draw(values))
    return tree


def _containers(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        yield tree
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _containers(value)


@st.composite
def texts(draw: Callable[[Any], Any], tree: Any) -> bytes:
    """A YAML file: damaged in what it says, or in how it is written."""
    text = yaml.safe_dump(mutate(draw, tree), sort_keys=False, allow_unicode=True)
    match draw(st.sampled_from(["as it is"] * 6 + ["cut", "noise", "deep", "tag"])):
        case "cut":
            return text[: draw(st.integers(0, len(text)))].encode()
        case "noise":
            return text.encode() + draw(st.binary(max_size=20))
        case "deep":
            return b"x: " + b"[" * 500
        case "tag":
            return b"x: !!python/object/apply:os.system ['touch hacked']\n" + text.encode()
    return text.encode()


class Hang(BaseException):
    """A command that did not come back."""


class Sandbox:
    """Runs commands in a folder of their own and judges how they end."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = root, capsys
        self.codes: dict[int, int] = {}

    def file(self, content: bytes) -> Path:
        path = self.root / "in" / "file.yaml"
        path.write_bytes(content)
        return path

    def command(self, *words: object) -> None:
        with _guarded():
            code = main([str(word) for word in words])
        said = self._capsys.readouterr()
        self.codes[code] = self.codes.get(code, 0) + 1
        assert code in (0, 1, 2)
        assert "Traceback" not in said.err
        if code == 2:
            *before, sentence = said.err.splitlines()
            assert sentence.startswith(f"lrf-search {words[0]}: "), said.err
            assert [line[:11] for line in before] in ([], ["run folder "]), said.err
            assert len(said.err) < 2000, said.err
        assert sorted(path.name for path in self.root.iterdir()) == ["cwd", "in", "runs"]
        assert not list((self.root / "cwd").iterdir())
        shutil.rmtree(self.root / "runs")
        (self.root / "runs").mkdir()


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """No more than half a minute of the processor, ten of the clock, and 6 GiB of address space."""

    def end(*_: object) -> None:
        raise Hang

    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    timers = {signal.ITIMER_PROF: (signal.SIGPROF, PATIENCE_S), signal.ITIMER_REAL: (signal.SIGALRM, 20 * PATIENCE_S)}
    earlier = {number: signal.signal(number, end) for number, _ in timers.values()}
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in earlier.items():
            signal.signal(number, handler)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sandbox:
    for name in ("cwd", "in", "runs"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return Sandbox(tmp_path, capsys)


def repeat(examples: int, strategy: Any, check: Callable[[Any], None]) -> None:
    """Check so many examples, the same ones every time."""
    rules = settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    rules(given(strategy)(check))()


@pytest.mark.parametrize("examples", MANY)
def test_run_files(examples: int, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to where Ray would start."""

    @contextlib.contextmanager
    def connected(*_: object, **__: object) -> Iterator[None]:
        yield

    def run(search: Search, *_: object, **__: object) -> bool:
        search.next()
        return False

    monkeypatch.setattr(runner, "connected", connected)
    monkeypatch.setattr(runner, "run", run)
    tree = {
        "name": "fuzz",
        "space": {"name": "toy", **toys.tree()},
        "objectives": ["accuracy", "memory_kib"],
        "budgets": {"memory_kib": {"max": 60.0}, "accuracy": {"min": 0.1}},
        "sampler": {"name": "random", "options": {}},
        "schedule": {"grace": 3, "reduction": 3},
        "resources": {"cpu": 1, "custom": {}, "labels": {}, "time_limit_s": 5.0},
        "start": [{"model.dim": 16, "model.timesteps": 2}],
        "training": {"lr": 0.01},
        "trials": 4,
        "epochs": 9,
    }
    space = {key: value for key, value in toys.tree().items() if key != "name"}
    tree["space"] = {"name": "toy", "model": {**space["model"], "img_size": [8, 8]}, "training": {}}

    def check(content: bytes) -> None:
        sandbox.command("run", sandbox.file(content), "--run-dir", sandbox.root / "runs")

    repeat(examples, texts(tree), check)
    assert sandbox.codes.get(2, 0) > examples / 4


@pytest.mark.parametrize("examples", MANY)
def test_spaces(examples: int, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "DRAWS", 20)
    tree = load_space("digits").raw

    def check(content: bytes) -> None:
        sandbox.command("show", sandbox.file(content))

    repeat(examples, texts(tree), check)
    assert sandbox.codes.get(2, 0) > examples / 4


@pytest.mark.parametrize("examples", MANY)
def test_candidates(examples: int, sandbox: Sandbox) -> None:
    tree = starting_points(bound())["lrf_dyn"].model_dump(mode="json")

    def check(content: bytes) -> None:
        sandbox.command("count", sandbox.file(content), "--format", "json")

    repeat(examples, texts(tree), check)
    assert sandbox.codes.get(2, 0) > examples / 4


def bound() -> Any:
    return SPACES["digits"]().bound({"img_size": [8, 8], "in_chans": 1, "num_classes": 10}, {})


class Bomb:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> Any:
        return open, ("hacked", "w")


@st.composite
def damage(draw: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Something that happens to one file of a folder."""
    kind = draw(st.sampled_from(["cut", "flip", "noise", "gone", "folder", "pickle", "fine"]))
    place, noise = draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=40))

    def happen(path: Path) -> None:
        content = path.read_bytes()
        at = int(place * len(content))
        match kind:
            case "cut":
                path.write_bytes(content[:at])
            case "flip":
                path.write_bytes(content[:at] + noise + content[at + len(noise) :])
            case "noise":
                path.write_bytes(noise)
            case "gone" | "folder":
                path.unlink()
                if kind == "folder":
                    path.mkdir()
            case "pickle":
                path.write_bytes(pickle.dumps(Bomb()))

    return happen


@pytest.mark.parametrize("examples", MANY)
def test_exports_and_run_folders(examples: int, sandbox: Sandbox) -> None:
    sound = sandbox.root / "in" / "sound"
    candidate = starting_points(bound())["lrf_dyn"]
    checkpoint.save_weights(str(sound / "export"), build_model(candidate.model), {})
    (sound / "export" / "candidate.yaml").write_text(yaml.safe_dump(candidate.model_dump(mode="json")))
    toys.drive(toys.opened(toys.config(trials=4), sound / "toy", price=toys.price))
    targets = [
        (sound / "export" / "candidate.yaml", ["evaluate"]),
        (sound / "export" / "model.safetensors", ["evaluate"]),
        (sound / "toy" / layout.RUN_FILE, ["status", "export"]),
        (sound / "toy" / layout.JOURNAL, ["status", "export"]),
    ]
    cases = st.tuples(st.sampled_from(targets), damage())

    def check(case: Any) -> None:
        (target, commands), happen = case
        work = sandbox.root / "in" / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(target.parent, work)
        happen(work / target.name)
        for command in commands:
            sandbox.command(command, work)

    repeat(examples, cases, check)
    assert sandbox.codes.get(2, 0) > examples / 4
