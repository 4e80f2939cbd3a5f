"""Image data sets: the contract that all keep, and the files in their true formats."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search.data import DATA_SETS, DataSet, load
from search.data.augment import augment, translate
from search.data.cifar import cifar10, cifar100
from search.data.dataset import TensorPart, stratified
from search.data.idx import fashion_mnist, read_idx
from search.train import seed_all
from spaces.config import Training

RNG = np.random.default_rng(0)


# --- tiny copies in the true formats ------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray, compress: bool = True) -> None:
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


def make_fashion(root: Path) -> DataSet:
    for part, n in (("train", 100), ("t10k", 30)):
        write_idx(root / f"{part}-images-idx3-ubyte.gz", RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        write_idx(root / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10, compress=False)
    return fashion_mnist(root)


def make_cifar10(root: Path) -> DataSet:
    inside = root / "cifar-10-batches-py"
    inside.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        batch = {b"data": RNG.integers(0, 256, (20, 3072), dtype=np.uint8), b"labels": [i % 10 for i in range(20)]}
        (inside / name).write_bytes(pickle.dumps(batch, protocol=2))
    return cifar10(root)


def make_cifar100(root: Path) -> DataSet:
    inside = root / "cifar-100-python"
    inside.mkdir()
    for name in ("train", "test"):
        batch = {b"data": RNG.integers(0, 256, (1000, 3072), dtype=np.uint8), b"fine_labels": list(range(100)) * 10}
        (inside / name).write_bytes(pickle.dumps(batch, protocol=2))
    return cifar100(root)


def make_folder(root: Path, name: str = "image-folder") -> DataSet:
    for part, n in (("train", 20), ("val", 3)):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for i in range(n):
                pixels = RNG.integers(0, 256, (10, 14, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{i}.png")
    return load(name, str(root))


def make_scenes(root: Path) -> DataSet:
    for part, n in (("training", 11), ("validation", 2)):
        for folder, suffix, shape, top in (("images", "jpg", (12, 9, 3), 256), ("annotations", "png", (12, 9), 151)):
            (root / folder / part).mkdir(parents=True)
            for i in range(n):
                pixels = RNG.integers(0, top, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / part / f"{i}.{suffix}")
    return load("ade20k", str(root))


def make_recordings(root: Path, name: str, classes: int) -> DataSet:
    for label in range(classes):
        (root / f"{label:02d}").mkdir()
        for i in range(10):
            np.savez_compressed(root / f"{label:02d}" / f"{i}.npz", frames=RNG.poisson(0.1, (3, 2, 8, 8)))
    return load(name, str(root))


MAKERS = {
    "digits": lambda root: load("digits"),
    "fashion-mnist": make_fashion,
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "image-folder": make_folder,
    "imagenet": lambda root: make_folder(root, "imagenet"),
    "cifar10-dvs": lambda root: make_recordings(root, "cifar10-dvs", 10),
    "dvs-gesture": lambda root: make_recordings(root, "dvs-gesture", 11),
    "moving-edges": lambda root: load("moving-edges"),
    "ade20k": make_scenes,
}
CHOSEN = Training(shift=1, flip=True, erasing=0.5, epochs=3)


@pytest.fixture(params=DATA_SETS)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> DataSet:
    return MAKERS[request.param](tmp_path)


class TestContract:
    """What every registered data set keeps; a new one needs a maker above and nothing else."""

    def test_shapes_and_labels(self, data: DataSet) -> None:
        for part in (data.train, data.validation, data.test):
            x, y = next(part.batches(4))
            images = (4, data.in_chans, *data.img_size)
            assert x.dtype == torch.float32
            assert torch.isfinite(x).all()
            if data.kind == "events":
                assert x.shape == (data.frames, *images)
            else:
                assert data.frames is None
                assert x.shape[1:] == images[1:]
            labelled = y if data.kind != "segmentation" else y[y != 255]
            assert y.shape == (x.shape[-4],) if data.kind != "segmentation" else (x.shape[0], *data.img_size)
            assert labelled.min() >= 0
            assert labelled.max() < data.classes

    def test_an_epoch_is_a_shuffle_that_its_seed_decides(self, data: DataSet) -> None:
        plain = Training(epochs=3)

        def labels(seed: int) -> list[int]:
            seed_all(0, 0)
            return torch.cat([y for _, y in data.train.batches(4, plain, seed)]).flatten().tolist()

        assert labels(1) == labels(1)
        assert labels(1) != labels(2)

    def test_augmentation_keeps_the_shape_and_changes_the_values(self, data: DataSet) -> None:
        seed_all(0, 0)
        x, _ = next(data.train.batches(4, CHOSEN, 1))
        assert torch.isfinite(x).all()
        seed_all(0, 1)
        other, _ = next(data.train.batches(4, CHOSEN, 1))
        assert x.shape == other.shape
        assert not torch.equal(x, other)

    def test_the_split_is_the_same_every_time(self, data: DataSet, tmp_path: Path) -> None:
        load.cache_clear()
        again = load(data.name, str(tmp_path))
        assert again.split == data.split
        assert len(again.train) == len(data.train)

    def test_the_model_fields_are_those_of_a_batch(self, data: DataSet) -> None:
        if data.kind == "segmentation":
            with pytest.raises(ValueError, match="has one label per pixel, but a candidate is a classifier"):
                data.model_fields()
            return
        fields = data.model_fields()
        assert fields["num_classes"] == data.classes
        assert fields["input"] == ("events" if data.kind == "events" else "image")
        assert ("timesteps" in fields) == (data.kind == "events")


def test_a_missing_data_set_says_what_to_do(tmp_path: Path) -> None:
    needs_files = set(DATA_SETS) - {"digits", "moving-edges"}
    for name in needs_files:
        with pytest.raises(ValueError, match=name) as error:
            load(name, str(tmp_path / "nowhere"))
        assert len(str(error.value).splitlines()) == 1


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"must be one of .*'digits'"):
        load("mnist")


# --- digits ---------------------------------------------------------------------------------------------------------


def test_digits_are_split_by_class_without_overlap() -> None:
    data = load("digits")
    parts = [data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [1079, 359, 359]
    images = torch.cat([x.flatten(1) for part in parts for x, _ in part.batches(2000)])
    assert len(torch.unique(images, dim=0)) == len(images)  # the set has no duplicates, so parts share nothing
    for part in parts:
        counts = torch.bincount(next(part.batches(2000))[1], minlength=10)
        assert counts.max() - counts.min() <= 0.1 * counts.float().mean()
    assert data.split == "da6508421c40b6ba"


def test_digits_are_normalised_by_the_training_part() -> None:
    x, _ = next(load("digits").train.batches(2000))
    assert x.mean().item() == pytest.approx(0, abs=1e-4)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_the_test_part_is_opened_on_demand_only(tmp_path: Path) -> None:
    data = make_fashion(tmp_path)
    for file in tmp_path.glob("t10k*"):
        file.unlink()
    data = fashion_mnist(tmp_path)
    assert len(data.train) == 90
    with pytest.raises(ValueError, match="t10k"):
        data.test  # noqa: B018


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_stratified_takes_the_share_of_every_class(share: float) -> None:
    labels = np.repeat(np.arange(4), [40, 80, 20, 100])
    rest, held = stratified(labels, share)
    assert sorted([*rest, *held]) == list(range(240))
    assert np.bincount(labels[held]).tolist() == [round(share * n) for n in (40, 80, 20, 100)]


# --- augmentation ---------------------------------------------------------------------------------------------------


def test_translate_moves_each_sample_within_reach() -> None:
    torch.manual_seed(0)
    x = torch.zeros(64, 3, 2, 9, 9)
    x[..., 4, 4] = 1
    moved = translate(x, 2)
    assert moved.shape == x.shape
    assert moved.sum((-1, -2)).eq(1).all()  # a pixel in the middle cannot leave
    places = moved[:, 0, 0].flatten(1).argmax(1)
    assert (moved.flatten(3).argmax(3) == places[:, None, None]).all()  # all frames of a sample move together
    rows, columns = places // 9 - 4, places % 9 - 4
    assert {*rows.tolist()} == {*columns.tolist()} == {-2, -1, 0, 1, 2}


def test_mirroring_needs_the_consent_of_the_data() -> None:
    x = torch.arange(8.0).view(1, 1, 1, 8).repeat(64, 1, 1, 1)
    flip = Training(flip=True)
    assert torch.equal(augment(x, lambda x: x, flip, mirror=False), x)
    torch.manual_seed(0)
    mirrored = augment(x, lambda x: x, flip, mirror=True)
    assert {tuple(row.flatten().tolist()) for row in mirrored} == {tuple(range(8)), tuple(range(7, -1, -1))}


def test_erasing_takes_the_same_rectangle_from_all_frames() -> None:
    part = TensorPart(torch.full((8, 3, 1, 16, 16), 5.0), torch.arange(8) % 2, [0.0], [1.0], mirror=False)
    x, _ = next(part.batches(8, Training(erasing=1.0), 0))
    erased = x != 5
    assert erased.any()
    assert (erased == erased[:1]).all()


def test_rand_augment_is_timms() -> None:
    x = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    part = TensorPart(x, torch.arange(6), [0.5] * 3, [0.5] * 3, mirror=True)
    plain, _ = next(part.batches(6, Training(), 0))
    changed, _ = next(part.batches(6, Training(rand_augment="rand-m9-mstd0.5-inc1"), 0))
    assert changed.shape == plain.shape
    assert not torch.equal(changed, plain)
    with pytest.raises(ValueError, match="rand_augment"):
        next(part.batches(6, Training(rand_augment="autumn"), 0))


# --- damaged files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 3, 10, 100, -1])
@pytest.mark.parametrize("compress", [True, False])
def test_an_idx_file_cut_short_names_itself(tmp_path: Path, keep: int, compress: bool) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(path, RNG.integers(0, 256, (5, 28, 28), dtype=np.uint8), compress)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="train-images"):
        read_idx(path)


def test_a_label_outside_the_classes_names_its_file(tmp_path: Path) -> None:
    make_fashion(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.full(100, 10, np.uint8), compress=False)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.9, but .*train-labels.* holds 10"):
        fashion_mnist(tmp_path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    make_cifar10(tmp_path)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"data_batch_3 .*builtins\.exec"):
        cifar10(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_cut_cifar_file_names_itself(tmp_path: Path) -> None:
    make_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="data_batch_2"):
        cifar10(tmp_path)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_corrupt_image_names_itself(tmp_path: Path, threads: int) -> None:
    """Also from a worker process, which is there where a trial has more than one thread."""
    data = make_folder(tmp_path)
    for path in tmp_path.glob("train/*/*.png"):
        path.write_bytes(path.read_bytes()[:60])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(ValueError, match=r"^cannot read the image .*\.png: .*$"):
            next(data.train.batches(2))
    finally:
        torch.set_num_threads(before)


def test_frames_of_another_length_name_their_file(tmp_path: Path) -> None:
    data = make_recordings(tmp_path, "cifar10-dvs", 10)
    for path in sorted(tmp_path.glob("*/*.npz"))[1:]:
        np.savez_compressed(path, frames=np.zeros((4, 2, 8, 8)))
    with pytest.raises(ValueError, match=r"\[3, 2, 8, 8\], but .*\.npz holds \[4, 2, 8, 8\]"):
        list(data.train.batches(8))
