"""From the original recordings of event cameras to frames: ``python -m search.data.convert NAME SOURCE TARGET``.

Formats: AEDAT 2.0 (jAER; CIFAR10-DVS), AEDAT 3.1 (cAER; DvsGesture) and arrays of (x, y, polarity, milliseconds).
Written against iniVation's description of the file formats.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

SIDE = 128
"""Pixels of the cameras of both data sets."""


@dataclass(frozen=True)
class Events:
    """Events in the order of time: microseconds, column, row, polarity (1 is brighter), each [n]."""

    t: npt.NDArray[np.int64]
    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    p: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.t)

    def between(self, start: int, end: int) -> Events:
        """Those with start ≤ t < end."""
        chosen = (self.t >= start) & (self.t < end)
        return Events(self.t[chosen], self.x[chosen], self.y[chosen], self.p[chosen])

    def frames(self, steps: int) -> npt.NDArray[np.uint16]:
        """Counts [steps, 2, 128, 128]; every frame holds the same number of events, the last one the rest too.

        Equal numbers, not equal times, as is usual for both data sets (Fang et al. 2021).
        """
        step = np.minimum(np.arange(len(self)) // max(1, len(self) // steps), steps - 1)
        counts = np.zeros((steps, 2, SIDE, SIDE), dtype=np.uint16)
        np.add.at(counts, (step, self.p, self.y, self.x), 1)
        return counts


def read_aedat2(path: Path) -> Events:
    """AEDAT 2.0: lines that start with #, then pairs of big-endian 32-bit address and microseconds.

    A DVS128 address holds the polarity in bit 0 (1 is darker), the column, mirrored, in bits 1-7, the row in 8-14.

    Raises:
        ValueError: The file is cut short, or is no AEDAT 2.0.
    """
    content = path.read_bytes()
    start = 0
    while content[start : start + 1] == b"#":
        start = content.index(b"\n", start) + 1 if b"\n" in content[start:] else len(content)
    if not content.startswith(b"#!AER-DAT2") or (len(content) - start) % 8:
        raise ValueError(f"{path} is no AEDAT 2.0 file, or is cut short")
    address, time = np.frombuffer(content, ">u4", offset=start).reshape(-1, 2).astype(np.int64).T
    return _checked(Events(time, 127 - (address >> 1 & 0x7F), address >> 8 & 0x7F, 1 - (address & 1)), path)


def read_aedat3(path: Path) -> Events:
    """AEDAT 3.1: a text header, then packets of 28 bytes of header and events; polarity events are type 1.

    Raises:
        ValueError: The file is cut short, or is no AEDAT 3.1.
    """
    content = path.read_bytes()
    end = content.find(b"#!END-HEADER\r\n")
    if not content.startswith(b"#!AER-DAT3.1") or end < 0:
        raise ValueError(f"{path} is no AEDAT 3.1 file")
    at = end + len(b"#!END-HEADER\r\n")
    found = []
    while at < len(content):
        if len(content) - at < 28:
            raise ValueError(f"{path} is cut short: a packet header starts {len(content) - at} bytes before its end")
        kind = int.from_bytes(content[at : at + 2], "little")
        size, _, overflow, _, number, _ = np.frombuffer(content, "<u4", 6, offset=at + 4).tolist()
        at += 28
        if len(content) - at < size * number:
            raise ValueError(f"{path} is cut short: a packet of {number} events is not whole")
        if kind == 1 and number:
            data, low = np.frombuffer(content, "<u4", 2 * number, offset=at).reshape(-1, 2).astype(np.int64).T
            valid = (data & 1).astype(bool)
            found.append(
                (np.stack([low | overflow << 31, data >> 17 & 0x7FFF, data >> 2 & 0x7FFF, data >> 1 & 1]))[:, valid]
            )
        at += size * number
    if not found:
        raise ValueError(f"{path} holds no events")
    return _checked(Events(*np.concatenate(found, axis=1)), path)


def read_npy(path: Path) -> Events:
    """An array [n, 4] of column, row, polarity and milliseconds.

    Raises:
        ValueError: It is no such array.
    """
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy file, or is cut short: {error}") from None
    if table.ndim != 2 or table.shape[1] != 4:
        raise ValueError(f"{path} must hold [events, 4], but holds {list(table.shape)}")
    x, y, p = table[:, :3].T.astype(np.int64)
    return _checked(Events((table[:, 3] * 1000).astype(np.int64), x, y, p), path)


def _checked(events: Events, path: Path) -> Events:
    for name, values, top in (("x", events.x, SIDE), ("y", events.y, SIDE), ("polarity", events.p, 2)):
        if len(events) and not (values.min() >= 0 and values.max() < top):
            raise ValueError(f"{name} must lie in 0..{top - 1}, but {path} holds {values.min()}..{values.max()}")
    return events


def cifar10_dvs(source: Path) -> Iterator[tuple[str, Events]]:
    """``CLASS/*.aedat`` (or ``.npy``): one recording per file, under the name it goes by."""
    for path in sorted(source.glob("*/*")):
        if path.suffix in (".aedat", ".npy"):
            yield f"{path.parent.name}/{path.stem}", (read_npy if path.suffix == ".npy" else read_aedat2)(path)


def dvs_gesture(source: Path) -> Iterator[tuple[str, Events]]:
    """``userNN_LIGHT.aedat`` with ``userNN_LIGHT_labels.csv``, in the official parts: users 24-29 are the test set.

    Also ``userNN_LIGHT/CLASS.npy``, classes from 0.
    """
    for path in sorted(source.rglob("user*.aedat")):
        table = path.with_name(f"{path.stem}_labels.csv")
        if not table.is_file():
            raise ValueError(f"{path} has no {table.name} beside it")
        events = read_aedat3(path)
        for i, row in enumerate(csv.DictReader(table.read_text(encoding="utf-8").splitlines())):
            label, start, end = (int(row[key]) for key in ("class", "startTime_usec", "endTime_usec"))
            yield f"{_gesture_part(path.stem)}/{label - 1:02d}/{path.stem}_{i}", events.between(start, end)
    for path in sorted(source.rglob("user*/*.npy")):
        name = path.parent.name
        yield f"{_gesture_part(name)}/{int(path.stem):02d}/{name}_{path.stem}", read_npy(path)


def _gesture_part(name: str) -> str:
    return "test" if int(name[4:6]) >= 24 else "train"


CONVERTERS = {"cifar10-dvs": cifar10_dvs, "dvs-gesture": dvs_gesture}


def convert(name: str, source: Path, target: Path, steps: int) -> int:
    """Write one ``.npz`` per recording below ``target``; the number of recordings.

    Raises:
        ValueError: A recording is damaged, or there is none.
    """
    count = 0
    for count, (recording, events) in enumerate(CONVERTERS[name](source), start=1):  # noqa: B007
        path = target / f"{recording}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, frames=events.frames(steps))
    if not count:
        raise ValueError(f"{source} holds no recordings of {name}")
    return count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m search.data.convert", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=sorted(CONVERTERS))
    parser.add_argument("source", type=Path, help="folder with the original files")
    parser.add_argument("target", type=Path, help="folder for the frames")
    parser.add_argument("--frames", type=int, default=16, help="time steps per recording (default 16)")
    args = parser.parse_args()
    try:
        print(f"{convert(args.name, args.source, args.target, args.frames)} recordings in {args.target}")
    except ValueError as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
