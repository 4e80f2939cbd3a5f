"""Contestants of other projects; each needs its own package (docs/search-benchmark.md says how it was installed)."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.race.simulator import Contestant, Problem

PEERS: dict[str, Callable[[Problem, int], Contestant]] = {}
