"""The front as CSV, JSON and Markdown, and where the cost of a member goes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from results.breakdown import breakdown
from results.front import front
from results.provenance import facts
from results.report import write_report
from results.report.tables import as_csv, as_json, as_markdown
from search import folder as layout
from search.config import RunConfig
from search.record import Record
from search.storage import open_storage
from search.study import open_study, records
from spaces.config import Candidate

Made = tuple[list[Record], RunConfig]


def test_the_csv_has_one_row_per_member_with_its_numbers(made: Made) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(*made))))
    members = front(*made)
    assert [row["identity"] for row in rows] == [record.identity for record in members]
    for row, record in zip(rows, members, strict=True):
        assert {name: float(row[name]) for name in made[1].objectives} == record.metrics
        assert float(row["accuracy_se"]) == record.errors["accuracy"]
    assert list(csv.DictReader(io.StringIO(as_csv([], made[1])))) == []


def test_the_json_holds_configurations_that_can_be_built_again(made: Made) -> None:
    found = json.loads(as_json(*made, {"command": "x"}))
    assert found["provenance"] == {"command": "x"}
    assert 0 < found["hypervolume"] < 1
    again = [Candidate.model_validate(row["candidate"]).identity for row in found["front"]]
    assert again == [record.identity for record in front(*made)]


def test_the_summary_tells_members_reasons_and_provenance_and_holds_no_markup(made: Made) -> None:
    records, run = made
    spoiled = [r.model_copy(update={"reason": "<b>|x|"}) if r.status == "stopped" else r for r in records]
    text = as_markdown(spoiled, run, {"data set": "digits|<i>"})
    assert all(record.identity in text for record in front(*made))
    assert "&lt;b>\\|x\\|" in text
    assert "* data set: digits\\|&lt;i>" in text
    assert "<b>" not in text


def test_the_energy_of_the_parts_is_counted_or_an_upper_bound(run_folder: Path, tmp_path: Path) -> None:
    run = layout.load(run_folder)
    candidate = front(records(run_folder), run)[0].candidate
    assert candidate is not None
    counted, bound = breakdown(run_folder, run, candidate), breakdown(tmp_path, run, candidate)
    assert counted["source"].startswith("counted on 64 ")
    assert bound["source"].startswith("upper bound")
    assert [part[0] for part in counted["parts"]] == [part[0] for part in bound["parts"]]
    assert all(0 < few[1] <= most[1] for few, most in zip(counted["parts"], bound["parts"], strict=True))
    assert sum(part[1] for part in counted["parts"]) < sum(part[1] for part in bound["parts"])


def test_a_report_tells_what_the_run_began_with(run_folder: Path) -> None:
    page = write_report(run_folder)
    assert {path.name for path in run_folder.glob("front.*")} == {"front.csv", "front.json", "front.md", "front.png"}
    run, found = layout.load(run_folder), records(run_folder)
    (run_folder / layout.HOST).write_text("versions: torch 0.0.1\nmachine: abacus\n", encoding="utf-8")
    assert facts(found, run, run_folder)["machine"] == "abacus"
    assert "versions of this report" in facts(found, run, run_folder / "elsewhere")
    text = page.read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_a_run_that_went_on_elsewhere_tells_both_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = layout.create(RunConfig(name="moved"), tmp_path)
    run = layout.load(folder)
    first = facts([], run, folder)["machine"]
    layout.note_session(folder)  # resumed where it began
    assert facts([], run, folder)["machine"] == first
    monkeypatch.setattr(layout, "machine", lambda: "abacus")
    layout.note_session(folder)
    told = facts([], run, folder)
    assert [told["machine (1 of 2)"], told["machine (2 of 2)"]] == [first, "abacus"]


def test_without_a_finished_trial_there_is_no_report(tmp_path: Path) -> None:
    run = RunConfig(name="empty")
    folder = layout.create(run, tmp_path)
    open_study(run, open_storage(layout.storage_address(folder, run), alone=True))
    with pytest.raises(ValueError, match="no finished trial yet"):
        write_report(folder)
