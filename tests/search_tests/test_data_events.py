"""Event recordings: the formats of the originals, frames, and a toy that needs the order of time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from search.data import load
from search.data.convert import Events, convert, read_aedat2, read_aedat3, read_npy

# (microseconds, column, row, polarity), as a camera might see them
EVENTS = np.array([[5, 0, 0, 1], [7, 127, 3, 0], [9, 64, 127, 1], [9, 1, 2, 0], [20, 90, 45, 1], [31, 6, 77, 1]])


def table(events: Events) -> list[list[int]]:
    return np.stack([events.t, events.x, events.y, events.p], 1).tolist()


def aedat2(path: Path) -> Path:
    """As jAER writes it: address = row << 8 | mirrored column << 1 | darker, big-endian."""
    t, x, y, p = EVENTS.T
    words = np.stack([y << 8 | (127 - x) << 1 | (1 - p), t], 1).astype(">u4")
    path.write_bytes(b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + words.tobytes())
    return path


def aedat3(path: Path) -> Path:
    """As cAER writes it: two packets of polarity events, the second after one timer overflow, and a frame packet."""
    content = b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"

    def packet(kind: int, overflow: int, payload: np.ndarray) -> bytes:
        n = len(payload)
        return (
            np.array([kind, 1], "<u2").tobytes()
            + np.array([8, 4, overflow, n, n, n], "<u4").tobytes()
            + payload.tobytes()
        )

    t, x, y, p = EVENTS.T
    words = np.stack([x << 17 | y << 2 | p << 1 | 1, t], 1).astype("<u4")
    invalid = np.array([[0, 12]], "<u4")
    content += packet(1, 0, np.concatenate([words[:3], invalid])) + packet(2, 0, words[:1]) + packet(1, 1, words[3:])
    path.write_bytes(content)
    return path


def test_aedat2_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert table(read_aedat2(aedat2(tmp_path / "a.aedat"))) == EVENTS.tolist()


def test_aedat3_skips_other_packets_and_counts_overflows(tmp_path: Path) -> None:
    late = EVENTS.copy()
    late[3:, 0] += 2**31
    assert table(read_aedat3(aedat3(tmp_path / "a.aedat"))) == late.tolist()


def test_npy_counts_milliseconds(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", EVENTS[:, [1, 2, 3, 0]])
    wanted = EVENTS.copy()
    wanted[:, 0] *= 1000
    assert table(read_npy(tmp_path / "a.npy")) == wanted.tolist()


@pytest.mark.parametrize(("read", "write"), [(read_aedat2, aedat2), (read_aedat3, aedat3)])
@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_recording_cut_short_names_itself(tmp_path: Path, read: object, write: object, cut: int) -> None:
    path = write(tmp_path / "broken.aedat")  # type: ignore[operator]
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"broken\.aedat"):
        read(path)  # type: ignore[operator]


def test_an_event_off_the_sensor_names_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "off.npy", np.array([[128, 0, 1, 3]]))
    with pytest.raises(ValueError, match=r"x must lie in 0\.\.127, but .*off\.npy holds 128\.\.128"):
        read_npy(tmp_path / "off.npy")


@pytest.mark.parametrize("steps", [1, 2, 4, 5])
def test_frames_hold_every_event_once(steps: int) -> None:
    events = Events(*EVENTS.T)
    frames = events.frames(steps)
    assert frames.shape == (steps, 2, 128, 128)
    assert frames.sum() == len(EVENTS)
    each = len(EVENTS) // steps
    assert frames.sum((1, 2, 3)).tolist() == [each] * (steps - 1) + [len(EVENTS) - each * (steps - 1)]
    assert frames[0, 1, 0, 0] == 1  # the first event: brighter, row 0, column 0


def test_converted_recordings_load(tmp_path: Path) -> None:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for name in names:
        (tmp_path / "source" / name).mkdir(parents=True)
        for i in range(10):
            aedat2(tmp_path / "source" / name / f"cifar10_{name}_{i}.aedat")
    assert convert("cifar10-dvs", tmp_path / "source", tmp_path / "frames", steps=2) == 100
    data = load("cifar10-dvs", str(tmp_path / "frames"))
    assert (data.frames, data.in_chans, data.img_size) == (2, 2, (128, 128))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [80, 10, 10]
    assert next(data.train.batches(1))[0].sum() == len(EVENTS)


def test_gestures_go_to_their_official_part(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for user in (23, 24):
        aedat3(source / f"user{user}_led.aedat")
        labels = "class,startTime_usec,endTime_usec\n1,5,9\n11,9,2147483700\n"
        (source / f"user{user}_led_labels.csv").write_text(labels)
    assert convert("dvs-gesture", source, tmp_path / "out", steps=1) == 4
    found = {
        str(path.relative_to(tmp_path / "out")): np.load(path)["frames"].sum() for path in tmp_path.glob("out/*/*/*")
    }
    assert found == {
        "train/00/user23_led_0.npz": 2,
        "train/10/user23_led_1.npz": 4,
        "test/00/user24_led_0.npz": 2,
        "test/10/user24_led_1.npz": 4,
    }


def test_moving_edges_cannot_be_told_apart_without_time() -> None:
    """A recording and its reverse have the same bars, so a bag of frames says nothing about the direction."""
    x, y = next(load("moving-edges").train.batches(2000))
    bars = x.sum(2) > 0  # [T, B, H, W], polarity is random
    lines = torch.stack([bars.float().mean(-2), bars.float().mean(-1)]).gt(0.9)  # full columns, full rows
    for label in range(4):
        places = lines[label // 2][:, y == label].float().argmax(-1)  # [T, B]
        assert torch.equal(places[0], places[3])
        step = (places[1] - places[0]) % 12
        assert step.eq(4 if label % 2 == 0 else 8).all()
        assert torch.equal(places[:3].sort(0).values % 4, (places[:1] % 4).expand(3, -1))
