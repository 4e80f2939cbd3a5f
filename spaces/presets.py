"""The named spaces and starting points, as functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spaces.config import Candidate, load_mapping
from spaces.space import Space
from spaces.tree import Choice, Number, Parameter, Scalar

Tree = dict[str, Any]


def _choice(*options: Any) -> Tree:
    return {"choice": list(options)}


def _lrf_dyn(dilations: Tree) -> Tree:
    return {
        "kind": "lrf_dyn",
        "token": _choice("v", "qkv"),
        "dendrites": _choice(1, 2, 4, 8),
        "coupling": _choice("none", "general"),
        "tau_min": _choice(0.5, 1.0, 2.0),
        "tau_max": _choice(8.0, 16.0, 64.0),
        "learnable": _choice(True, False),
        "dilations": dilations,
    }


def digits() -> Space:
    """Small Spikformers for 8×8 images, 16 tokens: trained in seconds on one core."""
    dilations = _choice([], [1], [1, 3])
    return Space(
        "digits",
        {
            "model": {
                "backbone": "spikformer",
                "pools": 1,
                "timesteps": _choice(1, 2, 4),
                "dim": _choice(16, 24, 32, 48),
                "heads": _choice(1, 2, 4),
                "mlp_ratio": _choice(1.0, 2.0, 4.0),
                "neuron": {
                    "kind": "lif",
                    "tau": _choice(1.25, 1.5, 2.0, 3.0),
                    "threshold": _choice(0.5, 0.75, 1.0),
                },
                "blocks": {
                    "repeat": {"int": [1, 2]},
                    "of": {
                        "one_of": [
                            {"kind": "ssa", "form": _choice("kv", "qk")},
                            {"kind": "lrf_ssa", "form": _choice("kv", "qk"), "dilations": _choice([1], [1, 3])},
                            _lrf_dyn(dilations),
                        ]
                    },
                },
            },
            "training": {
                "lr": {"float": [2e-3, 2e-2], "log": True},
                "weight_decay": {"float": [1e-3, 1e-1], "log": True},
            },
        },
    )


SPACES: dict[str, Callable[[], Space]] = {"digits": digits}


# What a person would try first: the defaults of the paper, or the nearest value, but two time steps: they cost half.
_DEFAULTS: dict[str, Any] = {
    "timesteps": 2,
    "tau": 2.0,
    "threshold": 1.0,
    "dendrites": 8,
    "coupling": "general",
    "tau_min": 1.0,
    "learnable": True,
    "token": "v",
    "form": "kv",
    "mlp_ratio": 4.0,
    "lr": 1e-2,
    "weight_decay": 0.02,
}


def _by_hand(name: str, parameter: Parameter, operator: str) -> Scalar:
    leaf = name.rsplit(".", 1)[-1]
    wanted = operator if leaf == "kind" else _DEFAULTS.get(leaf)
    if isinstance(parameter, Number):
        grid = parameter.grid()
        value = wanted if wanted is not None else (parameter.low + parameter.high) / 2
        if grid is None:
            return min(max(float(value), parameter.low), parameter.high)
        return min(grid, key=lambda point: abs(float(point) - float(value)))  # type: ignore[arg-type]
    if wanted in parameter.options:
        return parameter.label(wanted)
    numbers = [o for o in parameter.options if isinstance(o, int | float) and not isinstance(o, bool)]
    if isinstance(wanted, int | float) and len(numbers) == len(parameter.options):
        return parameter.label(min(numbers, key=lambda option: abs(option - wanted)))
    if leaf == "dilations":  # the largest receptive field
        return parameter.label(max(parameter.options, key=lambda d: (len(d), d)))
    return parameter.labels[len(parameter.labels) // 2]


def starting_points(space: Space) -> dict[str, Candidate]:
    """Hand-made candidates of a space, one per attention operator that it offers, by the operator's name.

    Every block gets that operator, with the paper's defaults where the space holds them; the middle of a range
    where the paper says nothing. Operators whose hand-made candidate breaks a law of the space are left out.
    """
    kinds: dict[str, None] = {}
    for name, parameter in space.parameters().items():
        if name.endswith(".kind") and ".blocks" in name and isinstance(parameter, Choice):
            kinds |= dict.fromkeys(map(str, parameter.options))
    points = {}
    for kind in kinds or {"default": None}:
        with contextlib.suppress(ValueError):
            points[kind] = space.build(lambda name, parameter, kind=kind: _by_hand(name, parameter, kind))  # type: ignore[misc]
    return points


def load_space(source: str | Tree) -> Space:
    """A space by name, from a YAML file, or from a tree.

    Raises:
        ValueError: The name is unknown, the file cannot be read, or the tree breaks a law.
    """
    if isinstance(source, dict):
        return Space(str(source.get("name", "custom")), {k: v for k, v in source.items() if k != "name"})
    if source in SPACES:
        return SPACES[source]()
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(f"a space is one of {sorted(SPACES)} or a .yaml file, but got {source!r}")
    return load_space({"name": path.stem, **load_mapping(path)})
