"""The phantom's folder: layout, folds, repetition, refusals."""

import dataclasses
import json

import nibabel
import numpy as np
import pytest

from seg.data.phantom import files as phantom
from seg.data.phantom.files import write_dataset
from seg.data.phantom.scan import PhantomConfig, make_case
from seg.data.phantom.shapes import CLASS_NAMES
from seg.errors import DataError, RunError

TINY = PhantomConfig(cases=5, spacing_mm=(4.0, 4.0, 4.0))


def test_written_folder_is_a_readable_decathlon_data_set(tmp_path):
    config = PhantomConfig(cases=7, spacing_mm=(4.0, 4.0, 8.0), channels=2)
    assert write_dataset(tmp_path / "phantom", config, seed=5) == tmp_path / "phantom"
    root = tmp_path / "phantom"
    description = json.loads((root / "dataset.json").read_text())
    assert description["labels"] == {str(index): name for index, name in enumerate(CLASS_NAMES)}
    assert description["modality"] == {"0": "MRI", "1": "MRI"}
    assert description["numTraining"] == len(description["training"]) == 7
    for index, item in enumerate(description["training"]):
        image, label = nibabel.load(root / item["image"]), nibabel.load(root / item["label"])
        expected_image, expected_label = make_case(config, seed=5, index=index)
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header.get_zooms()[:3] == label.header.get_zooms() == (4.0, 4.0, 8.0)
        assert np.array_equal(image.affine, label.affine)
        assert label.get_data_dtype() == np.uint8
        assert np.array_equal(np.moveaxis(image.get_fdata(dtype=np.float32), -1, 0), expected_image)
        assert np.array_equal(np.asarray(label.dataobj), expected_label)


def test_five_folds_hold_out_every_case_once(tmp_path):
    write_dataset(tmp_path, dataclasses.replace(TINY, cases=12), seed=0)
    splits = json.loads((tmp_path / "splits_final.json").read_text())
    names = {path.name.removesuffix(".nii.gz") for path in (tmp_path / "imagesTr").iterdir()}
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == sorted(names)
    for split in splits:
        assert set(split["train"]) == names - set(split["val"])


def _bytes(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_equal_arguments_give_equal_files(tmp_path):
    first, second = (write_dataset(tmp_path / name, TINY, seed=2) for name in "ab")
    assert _bytes(first) == _bytes(second)


def test_an_identical_set_is_kept_and_only_gaps_are_filled(tmp_path, monkeypatch):
    before = _bytes(write_dataset(tmp_path, TINY, seed=2))
    (tmp_path / "labelsTr" / "phantom_003.nii.gz").unlink()
    made: list[int] = []

    def counted(config, *, seed, index):
        made.append(index)
        return make_case(config, seed=seed, index=index)

    monkeypatch.setattr(phantom, "make_case", counted)
    assert _bytes(write_dataset(tmp_path, TINY, seed=2)) == before
    assert made == [3]


def test_an_interrupted_write_leaves_no_description_and_can_be_repeated(tmp_path, monkeypatch):
    def interrupted(config, *, seed, index):
        if index == 2:
            raise KeyboardInterrupt
        return make_case(config, seed=seed, index=index)

    with monkeypatch.context() as patch:
        patch.setattr(phantom, "make_case", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(tmp_path / "cut", TINY, seed=0)
    assert not (tmp_path / "cut" / "dataset.json").exists()
    # Files left by other settings are not taken for this set's.
    assert _bytes(write_dataset(tmp_path / "cut", TINY, seed=1)) == _bytes(
        write_dataset(tmp_path / "whole", TINY, seed=1)
    )


def test_another_phantom_in_the_folder_is_refused_by_name_and_value(tmp_path):
    before = _bytes(write_dataset(tmp_path, TINY, seed=0))
    with pytest.raises(DataError) as caught:
        write_dataset(tmp_path, dataclasses.replace(TINY, noise=0.1), seed=1)
    assert str(caught.value) == (
        f"{tmp_path}/dataset.json: a phantom must have the settings it was made with, but differs (seed 0 there, 1 "
        "asked for, noise 0.04 there, 0.1 asked for); name another folder or delete this one."
    )
    assert _bytes(tmp_path) == before


@pytest.mark.parametrize("content", ['{"name": "Hippocampus"}', "not JSON", "[]"])
def test_a_foreign_data_set_is_refused(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"a phantom never replaces another data set; name another folder\."):
        write_dataset(tmp_path, TINY, seed=0)
    assert (tmp_path / "dataset.json").read_text() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/phantom/imagesTr/phantom_000\.nii\.gz must be writable"):
        write_dataset(tmp_path / "file" / "phantom", TINY, seed=0)
