"""Prepared cases in memory, on disk or made anew: the same voxels, and nothing stale, incomplete or harmful."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.config import CtConfig, DataConfig
from seg.data import cache
from seg.data.cache import PreparedDataset, case_digest, check_cache_dir, choose_cache
from seg.data.datasets import read_dataset
from seg.errors import RunError
from tests.data.builders import problems_of, save

CT = CtConfig(lower=(80.0,), upper=(120.0,), mean=(100.0,), std=(8.0,))
KINDS = pytest.mark.parametrize("kind", ["memory", "disk", "none"])


@pytest.fixture
def dataset(msd):
    return read_dataset(msd)


def prepare(dataset, tmp_path, kind, **fields):
    return PreparedDataset(dataset, dataset.cases, DataConfig(cache=kind, **fields), tmp_path / "cache")


@KINDS
def test_every_cache_keeps_the_normalised_volume(dataset, tmp_path, kind, image_array, label_array):
    cases = prepare(dataset, tmp_path, kind)
    assert len(cases) == 3
    for _ in range(2):
        for index, case_id in enumerate("abc"):
            item = cases[index]
            assert item["case_id"] == case_id
            expected = (image_array - image_array.mean()) / image_array.std(ddof=1)
            np.testing.assert_allclose(item["image"][0], expected, atol=1e-5)
            np.testing.assert_array_equal(item["label"][0], label_array)
            assert item["label"].dtype == torch.uint8
            assert type(item["image"]) is torch.Tensor
            for value in (1, 2):
                np.testing.assert_array_equal(item["foreground"][value], np.argwhere(label_array == value))
    for path in (path for case in dataset.cases for path in case.files):
        path.unlink()
    if kind == "none":
        ((path, found, _),) = problems_of(lambda: cases[1], error=RunError)
        assert (path, found, (tmp_path / "cache").exists()) == ("case b", "preparation", False)
    else:
        np.testing.assert_allclose(cases[1]["image"][0], expected, atol=1e-5)


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    wrong, right = (DataConfig(cache_dir=str(tmp_path / name)) for name in ("file/cache", "new"))
    assert [found[:2] for found in problems_of(check_cache_dir, wrong, error=RunError)] == [
        ("data.cache_dir", "writable")
    ]
    check_cache_dir(right)
    assert list((tmp_path / "new").iterdir()) == []


def mark_cache_files(folder):
    """Writes 42 into every cached image, so that a volume read from the cache can be told from a new one."""
    for path in folder.iterdir():
        content = torch.load(path, weights_only=True)
        content["image"][:] = 42
        torch.save(content, path)


def from_cache(cases, index=0):
    return float(cases[index]["image"].max()) == 42


def test_a_second_construction_reads_what_the_first_wrote(dataset, tmp_path):
    first = prepare(dataset, tmp_path, "disk")
    assert not any(from_cache(first, index) for index in range(3))
    assert len(list((tmp_path / "cache").iterdir())) == 1  # three cases of equal content
    mark_cache_files(tmp_path / "cache")
    second = prepare(dataset, tmp_path, "disk", workers=2, folds=3, root="elsewhere", cache_dir=str(tmp_path / "cache"))
    assert all(from_cache(second, index) for index in range(3))


@pytest.mark.parametrize("part", ["image", "label"])
def test_a_changed_voxel_is_prepared_anew(dataset, tmp_path, part):
    prepare(dataset, tmp_path, "disk")[0]
    mark_cache_files(tmp_path / "cache")
    path = dataset.cases[0].images[0] if part == "image" else dataset.cases[0].label
    image = nib.load(path)
    array = np.array(image.dataobj)
    array[0, 0, 0] += 1
    save(path, array, image.affine)
    cases = prepare(dataset, tmp_path, "disk")
    assert [from_cache(cases, index) for index in range(2)] == [False, True]


@pytest.mark.parametrize(
    "fields",
    [
        {"spacing_mm": (1.0, 2.0, 4.0)},
        {"normalization": ("none",)},
        {"normalization": ("ct",), "ct": CT},
        {"normalization": ("ct",), "ct": replace(CT, lower=(90.0,))},
    ],
)
def test_another_recipe_or_version_is_prepared_anew(dataset, tmp_path, monkeypatch, fields):
    prepare(dataset, tmp_path, "disk")[0]
    prepare(dataset, tmp_path, "disk", normalization=("ct",), ct=CT)[0]
    mark_cache_files(tmp_path / "cache")
    assert from_cache(prepare(dataset, tmp_path, "disk", **fields)) == (fields.get("ct") == CT)
    monkeypatch.setattr(cache, "CACHE_VERSION", cache.CACHE_VERSION + 1)
    assert not from_cache(prepare(dataset, tmp_path, "disk", normalization=("ct",), ct=CT))


def test_digests_tell_files_and_recipes_apart(dataset):
    a, b, c = dataset.cases
    assert case_digest(a) == case_digest(b)  # equal content under another name
    assert case_digest(a) != case_digest(a, "recipe")
    assert case_digest(a) != case_digest(replace(c, label=None))
    pair = replace(a, images=(a.images[0], a.label))
    assert case_digest(pair) != case_digest(replace(a, images=(a.label, a.images[0])))
    assert len(case_digest(a)) == 64


VOLUMES = 3 * 6 * 5 * 4 * (4 + 1)  # cases x voxels x bytes
FINER = 3 * 11 * 9 * 7 * (4 + 1)


@pytest.mark.parametrize(
    ("memory", "fields", "kind"),
    [
        (4 * VOLUMES, {}, "memory"),
        (4 * 6 * 5 * 4 * (2 * 4 + 1) - 1, {}, "disk"),
        (4 * VOLUMES - 1, {}, "disk"),
        (None, {}, "disk"),
        # The files have voxels of 1.5 x 2 x 4 mm.
        (4 * FINER, {"spacing_mm": (0.75, 1.0, 2.0)}, "memory"),
        (4 * FINER - 1, {"spacing_mm": (0.75, 1.0, 2.0)}, "disk"),
    ],
)
def test_the_choice_of_a_cache_follows_size_and_is_announced(dataset, monkeypatch, caplog, memory, fields, kind):
    monkeypatch.setattr(cache, "available_bytes", lambda: memory)
    with caplog.at_level(logging.INFO, cache.__name__):
        assert choose_cache(dataset.cases, DataConfig(cache="auto", **fields)) == kind
        assert len(caplog.messages) == 1
        twice = replace(dataset.cases[0], images=dataset.cases[0].images * 2)
        fits = memory is not None and memory >= 4 * 6 * 5 * 4 * (2 * 4 + 1)  # channels count
        assert (choose_cache([twice], DataConfig()) == "memory") == fits
        caplog.clear()
        for chosen in ("memory", "disk", "none"):
            assert choose_cache(dataset.cases, DataConfig(cache=chosen)) == chosen
    assert caplog.messages == []


@pytest.mark.parametrize("content", ["half", "empty", "text", "removed", "a bit", "other"])
def test_a_damaged_cache_file_is_written_again(dataset, tmp_path, monkeypatch, caplog, content):
    expected = prepare(dataset, tmp_path, "disk")[0]["image"]
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(expected.numpy().tobytes()) + 5] ^= 1
    damaged = {"half": whole[: len(whole) // 2], "text": b"not a tensor", "a bit": flipped}
    path.write_bytes(damaged.get(content, b""))
    if content == "other":
        torch.save({"image": torch.zeros(3), "label": expected}, path)
    cases = prepare(dataset, tmp_path, "disk")
    load = torch.load

    def removed_meanwhile(file, *args, **kwargs):
        path.unlink(missing_ok=True)  # as another process does that met the same file
        return load(file, *args, **kwargs)

    if content == "removed":
        path.write_bytes(whole)
        monkeypatch.setattr(torch, "load", removed_meanwhile)
    assert torch.equal(cases[0]["image"], expected)
    assert [str(path) in message for message in caplog.messages] == [True] * (content != "removed")
    assert list(path.parent.iterdir()) == [path]
    if content != "removed":
        assert torch.equal(torch.load(path, weights_only=True)["image"], expected)


class Trap:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_the_cache_folder_is_not_run_but_prepared_anew(dataset, tmp_path):
    expected = prepare(dataset, tmp_path, "disk")[0]["image"]
    (path,) = (tmp_path / "cache").iterdir()
    torch.save({"image": Trap(tmp_path / "ran")}, path)
    assert torch.equal(prepare(dataset, tmp_path, "disk")[0]["image"], expected)
    assert not (tmp_path / "ran").exists()


@KINDS
@pytest.mark.parametrize("edge", [0.001, 1e-200])
def test_cases_that_would_not_fit_are_named_before_any_is_prepared(dataset, tmp_path, monkeypatch, kind, edge):
    monkeypatch.setattr(cache, "available_bytes", lambda: 1 << 30)
    monkeypatch.setattr(cache, "prepare_case", None)
    found = problems_of(prepare, dataset, tmp_path, kind, spacing_mm=(edge,) * 3, error=RunError)
    assert [(path, kind) for path, kind, _ in found] == [(f"case {name}", "memory") for name in "abc"]


@KINDS
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "'no memory left'"),
        (RuntimeError("DefaultCPUAllocator: can't allocate\nframes"), "'DefaultCPUAllocator: can't allocate'"),
        (np.exceptions.AxisError(3), None),  # a fault of the program keeps its traceback
    ],
)
def test_a_case_that_cannot_be_prepared_is_named(dataset, tmp_path, monkeypatch, kind, error, reason):
    def fails(*_):
        raise error

    monkeypatch.setattr(cache, "prepare_case", fails)
    with pytest.raises(type(error) if reason is None else RunError) as caught:
        prepare(dataset, tmp_path, kind)[0]
    if reason is not None:
        (problem,) = caught.value.problems
        assert (problem.path, problem.kind, problem.value) == ("case a", "preparation", reason)
