"""The report of a run: one page without remote parts, and the front as PNG, CSV, JSON and Markdown beside it."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from results.breakdown import breakdown
from results.front import finished, front
from results.provenance import facts
from results.report.payload import embedded, gather
from results.report.picture import png
from results.report.tables import as_csv, as_json, as_markdown
from search import folder as layout
from search.config import RunConfig
from search.record import Record
from search.study import records as read_records

STYLES = ("page.css",)
SCRIPTS = ("core.js", "panels.js", "parallel.js", "table.js", "detail.js", "search.js", "page.js")


def write_report(folder: Path, refresh: float | None = None) -> Path:
    """Write report.html, front.png, front.csv, front.json and front.md into a run folder; the path of the page.

    Args:
        refresh: The page reloads itself after so many seconds, keeping what was selected.

    Raises:
        ValueError: No run is there, no trial has finished yet, or the folder cannot be written.
    """
    run = layout.load(folder)
    return write_files(folder, read_records(folder), run, refresh)


def write_files(folder: Path, records: Sequence[Record], run: RunConfig, refresh: float | None = None) -> Path:
    """`write_report` for records that are already read."""
    if not finished(records, run):
        raise ValueError(f"run {run.name!r} has no finished trial yet ({len(records)} begun), so there is no report")
    about = facts(records, run, folder)
    contents: dict[str, bytes] = {
        "front.csv": as_csv(records, run).encode(),
        "front.json": as_json(records, run, about).encode(),
        "front.md": as_markdown(records, run, about).encode(),
        "front.png": png(records, run),
        "report.html": page(records, run, folder, refresh).encode(),
    }
    for name, content in contents.items():
        _replace(folder / name, content)
    return folder / "report.html"


def page(records: Sequence[Record], run: RunConfig, folder: Path, refresh: float | None = None) -> str:
    """The HTML page as one string."""
    about = facts(records, run, folder)
    members = [record.candidate for record in front(records, run) if record.candidate]
    details = {candidate.identity: breakdown(folder, run, candidate) for candidate in members}
    data = gather(records, run, str(folder), about, details) | {"refresh": refresh}
    here = files("results.report")
    parts = {
        "title": html.escape(run.name),
        "style": "\n".join((here / name).read_text(encoding="utf-8") for name in STYLES),
        "script": "\n".join((here / name).read_text(encoding="utf-8") for name in SCRIPTS),
        "data": embedded(data),
    }
    text = (here / "page.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        head, mark, tail = text.partition("{{" + name + "}}")
        assert mark, name
        text = head + part + tail
    return text


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill, finds the old one or the new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise ValueError(f"cannot write {path}: {error.strerror}") from None
