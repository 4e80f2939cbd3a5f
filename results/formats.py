"""Further formats of an export, each written and then checked against the network it came from."""

from __future__ import annotations

from results.export import Writer

FORMATS: dict[str, Writer] = {}
