"""How large the report of a long run is, and how soon a browser shows it.

    python -m benchmarks.report runs/first-front --trials 5000

The trials are those of a real run, again and again with other numbers. Needs Chromium, chromium-driver and selenium.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from results.report import page
from search import folder as layout
from search.host import machine
from search.record import Record
from search.study import records

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def repeated(real: Sequence[Record], trials: int) -> list[Record]:
    """``trials`` records like the real ones, each with an identity and with metrics of its own."""
    rng = random.Random(0)

    def another(number: int, record: Record) -> Record:
        metrics = {name: value * rng.lognormvariate(0, 0.05) for name, value in record.metrics.items()}
        metrics["accuracy"] = min(metrics.get("accuracy", 0.0), 1.0)
        values = {"number": number, "identity": f"{number:012x}", "metrics": metrics, "started": 6.0 * number}
        return record.model_copy(update=values | {"origin": record.origin if number < len(real) else "sampler"})

    return [another(number, record) for number, record in enumerate(islice(cycle(real), trials))]


def painted(driver: Any, path: Path) -> tuple[float, float]:
    """Seconds from opening a page to its first paint, and to the end of its scripts."""
    driver.get(path.as_uri())
    found = """const paint = performance.getEntriesByName("first-contentful-paint")[0];
        return paint ? [paint.startTime, performance.getEntriesByType("navigation")[0].loadEventEnd] : null"""
    while (times := driver.execute_script(found)) is None:
        time.sleep(0.1)
    return times[0] / 1e3, times[1] / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, or the name of a run in runs/")
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    from selenium import webdriver

    folder = layout.find(args.run)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "report.html"
        path.write_text(page(repeated(records(folder), args.trials), layout.load(folder), folder), encoding="utf-8")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for flag in (*FLAGS, "--window-size=1280,1600", f"--user-data-dir={scratch}/profile"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        times = [painted(driver, path) for _ in range(args.repeats)]
        driver.quit()
        size = path.stat().st_size / 1e6
    print(f"{args.trials} trials, {size:.2f} MB, {machine()}, n = {args.repeats}")
    for what, seconds in zip(("first paint", "scripts done"), zip(*times, strict=True), strict=True):
        print(f"{what:<12}  median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
