from __future__ import annotations

import io
import logging
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.config import CtConfig, DataConfig
from seg.data import prepared
from seg.data.prepared import PreparedDataset, case_digest, check_cache_dir, choose_cache
from seg.data.readers import read_dataset
from seg.errors import RunError

CT = CtConfig(lower=(80.0,), upper=(120.0,), mean=(100.0,), std=(8.0,))


@pytest.fixture
def dataset(msd):
    return read_dataset(msd)


def prepare(dataset, tmp_path, kind, **fields):
    return PreparedDataset(dataset, dataset.cases, DataConfig(cache=kind, **fields), tmp_path / "cache")


def remove_sources(dataset):
    for case in dataset.cases:
        for path in (*case.images, case.label):
            path.unlink()


@pytest.mark.parametrize("kind", ["memory", "disk", "none"])
def test_every_cache_gives_the_normalised_volume(dataset, tmp_path, kind, image_array, label_array):
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
            affine = nib.load(dataset.cases[index].images[0]).affine
            np.testing.assert_allclose(item["affine"], affine)


def test_a_terminal_sees_how_far_the_preparation_is(dataset, tmp_path, monkeypatch):
    for on_terminal, progress, shown in ((True, True, True), (False, True, False), (True, False, False)):
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda answer=on_terminal: answer, raising=False)
        monkeypatch.setattr(sys, "stderr", screen)
        config = DataConfig(cache="memory")
        PreparedDataset(dataset, dataset.cases, config, tmp_path, progress=progress)
        assert ("3/3" in screen.getvalue()) == shown


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "cache")
    with pytest.raises(RunError) as caught:
        check_cache_dir(DataConfig(cache_dir=folder))
    assert str(caught.value) == (
        f"data.cache_dir must be a folder that can be written, got '{folder}' (Not a directory); choose another or "
        "null."
    )
    check_cache_dir(DataConfig(cache_dir=str(tmp_path / "new")))
    assert list((tmp_path / "new").iterdir()) == []


def test_memory_needs_the_files_no_longer(dataset, tmp_path):
    cases = prepare(dataset, tmp_path, "memory")
    remove_sources(dataset)
    assert cases[2]["image"].shape == (1, 6, 5, 4)


def test_the_disk_cache_needs_the_files_no_longer(dataset, tmp_path):
    cases = prepare(dataset, tmp_path, "disk")
    first = cases[1]["image"]
    remove_sources(dataset)
    assert torch.equal(cases[1]["image"], first)


def test_nothing_is_kept_without_a_cache(dataset, tmp_path):
    cases = prepare(dataset, tmp_path, "none")
    cases[0]
    remove_sources(dataset)
    with pytest.raises(RunError, match=r"^case a: must be prepared .*; correct these or the files of the case\.$"):
        cases[0]
    assert not (tmp_path / "cache").exists()


def mark_cache_files(folder):
    """Writes 42 into every cached image, so that one can tell a volume read from the cache."""
    for path in folder.iterdir():
        content = torch.load(path, weights_only=True)
        content["image"][:] = 42
        torch.save(content, path)


def test_a_second_construction_reads_what_the_first_wrote(dataset, tmp_path):
    first = prepare(dataset, tmp_path, "disk")
    assert [float(first[i]["image"].max()) < 10 for i in range(3)] == [True] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 1  # three cases of equal content
    mark_cache_files(tmp_path / "cache")
    second = prepare(dataset, tmp_path, "disk")
    assert [float(second[i]["image"].min()) for i in range(3)] == [42] * 3


@pytest.mark.parametrize("part", ["image", "label"])
def test_a_changed_voxel_is_prepared_anew(dataset, tmp_path, part):
    prepare(dataset, tmp_path, "disk")[0]
    mark_cache_files(tmp_path / "cache")
    path = dataset.cases[0].images[0] if part == "image" else dataset.cases[0].label
    image = nib.load(path)
    array = np.array(image.dataobj)
    array[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(array, image.affine), path)
    cases = prepare(dataset, tmp_path, "disk")
    assert float(cases[0]["image"].max()) < 10
    assert float(cases[1]["image"].max()) == 42


@pytest.mark.parametrize(
    "fields",
    [
        {"spacing_mm": (1.0, 2.0, 4.0)},
        {"normalization": ("none",)},
        {"normalization": ("ct",), "ct": CT},
        {"normalization": ("ct",), "ct": replace(CT, lower=(90.0,))},
    ],
)
def test_another_recipe_is_prepared_anew(dataset, tmp_path, fields):
    prepare(dataset, tmp_path, "disk")[0]
    prepare(dataset, tmp_path, "disk", normalization=("ct",), ct=CT)[0]
    mark_cache_files(tmp_path / "cache")
    known = fields.get("ct") == CT
    assert (float(prepare(dataset, tmp_path, "disk", **fields)[0]["image"].max()) == 42) == known


def test_what_does_not_change_a_volume_does_not_change_its_key(dataset, tmp_path):
    prepare(dataset, tmp_path, "disk")[0]
    mark_cache_files(tmp_path / "cache")
    other = prepare(dataset, tmp_path, "disk", workers=2, folds=3, root="elsewhere", cache_dir=str(tmp_path / "cache"))
    assert float(other[0]["image"].max()) == 42


def test_the_folder_of_the_config_comes_before_the_default(dataset, tmp_path):
    prepare(dataset, tmp_path, "disk", cache_dir=str(tmp_path / "named"))[0]
    assert len(list((tmp_path / "named").iterdir())) == 1
    assert not (tmp_path / "cache").exists()


def test_digests_tell_files_and_recipes_apart(dataset):
    a, b, c = dataset.cases
    assert case_digest(a) == case_digest(b)  # equal content under another name
    assert case_digest(a) != case_digest(a, "recipe")
    assert case_digest(a) != case_digest(replace(c, label=None))
    assert case_digest(replace(a, images=(a.images[0], a.label))) != case_digest(
        replace(a, images=(a.label, a.images[0]))
    )
    assert len(case_digest(a)) == 64


VOLUMES = 3 * 6 * 5 * 4 * (4 + 1)  # cases x voxels x bytes


@pytest.mark.parametrize(
    ("memory", "fields", "kind"),
    [
        (4 * VOLUMES, {}, "memory"),
        (4 * VOLUMES - 1, {}, "disk"),
        # The files have voxels of 1.5 x 2 x 4 mm.
        (32 * VOLUMES, {"spacing_mm": (0.75, 1.0, 2.0)}, "memory"),
        (32 * VOLUMES - 1, {"spacing_mm": (0.75, 1.0, 2.0)}, "disk"),
    ],
)
def test_the_choice_of_a_cache_follows_size_and_is_announced(dataset, monkeypatch, caplog, memory, fields, kind):
    monkeypatch.setattr(prepared, "available_bytes", lambda: memory)
    with caplog.at_level(logging.INFO, prepared.__name__):
        assert choose_cache(dataset.cases, DataConfig(cache="auto", **fields)) == kind
    assert caplog.messages == [f"cache: {kind} (3 cases, 0.00 GiB prepared, memory available: 0.0 GiB)"]


def test_an_unknown_memory_takes_the_disk(dataset, monkeypatch, caplog):
    monkeypatch.setattr(prepared, "available_bytes", lambda: None)
    with caplog.at_level(logging.INFO, prepared.__name__):
        assert choose_cache(dataset.cases, DataConfig()) == "disk"
    assert caplog.messages == ["cache: disk (3 cases, 0.00 GiB prepared, memory available: unknown)"]


def test_channels_count_in_the_size(dataset, monkeypatch):
    memory = 4 * 6 * 5 * 4 * (2 * 4 + 1)
    case = replace(dataset.cases[0], images=dataset.cases[0].images * 2)
    for pages, kind in ((memory, "memory"), (memory - 1, "disk")):
        monkeypatch.setattr(prepared, "available_bytes", lambda pages=pages: pages)
        assert choose_cache([case], DataConfig()) == kind


@pytest.mark.parametrize("kind", ["memory", "disk", "none"])
def test_a_chosen_cache_is_followed_silently(dataset, caplog, kind):
    with caplog.at_level(logging.INFO):
        assert choose_cache(dataset.cases, DataConfig(cache=kind)) == kind
    assert caplog.messages == []
