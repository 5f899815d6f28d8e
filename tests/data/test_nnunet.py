"""The layout of nnU-Net, and every fault of it by its sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seg.data.cases import Case
from seg.data.readers import read_dataset
from seg.errors import DataError


def problems_of(root: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    return [problem.replace(str(root), "ROOT") for problem in caught.value.sentences]


def change(path: Path, **values: Any) -> None:
    """Changes entries of a JSON file; null removes an entry."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_nnunet(nnunet: Path) -> None:
    found = read_dataset(nnunet)
    assert (found.name, found.layout, found.licence) == ("Dataset001_Tiny", "nnunet", "not stated")
    assert found.class_names == ("background", "organ", "tumour")
    assert found.channel_names == ("T1", "T2")
    assert found.ignore_label == 3
    assert found.cases == tuple(
        Case(
            id=name,
            images=tuple(nnunet / f"imagesTr/{name}_{channel:04d}.nii.gz" for channel in range(2)),
            label=nnunet / f"labelsTr/{name}.nii.gz",
        )
        for name in ("a", "b_1")
    )


def test_nnunet_lists_what_is_missing_and_what_is_too_much(nnunet: Path) -> None:
    (nnunet / "imagesTr/a_0001.nii.gz").unlink()
    (nnunet / "labelsTr/b_1.nii.gz").unlink()
    (nnunet / "imagesTr/b_1_0002.nii.gz").touch()
    a, b = read_dataset(nnunet).cases
    assert [path.name for path in a.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert [path.name for path in b.images] == ["b_1_0000.nii.gz", "b_1_0001.nii.gz", "b_1_0002.nii.gz"]
    assert b.label is None


def test_nnunet_with_listed_files(nnunet: Path) -> None:
    entry = {"images": ["x/1.nii.gz", "x/2.nii.gz"], "label": "y/1.nii.gz"}
    change(nnunet / "dataset.json", dataset={"p": entry}, numTraining=1)
    assert read_dataset(nnunet).cases == (
        Case(id="p", images=(nnunet / "x/1.nii.gz", nnunet / "x/2.nii.gz"), label=nnunet / "y/1.nii.gz"),
    )
    change(nnunet / "dataset.json", dataset={"p": {**entry, "label": "../y.nii.gz"}, "q": 3})
    assert problems_of(nnunet) == [
        "ROOT/dataset.json: case p: paths must stay inside the data set's folder, got '../y.nii.gz'; "
        "write it relative to the folder, without '..'.",
        "ROOT/dataset.json: case q must be an object with images and label, got 3; correct the entry.",
    ]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 1}},
            "ROOT/dataset.json: label 'whole' must be one integer, got [1, 2]; "
            "regions made of several labels are not supported, declare each label by itself.",
        ),
        (
            {"file_ending": ".png"},
            "ROOT/dataset.json: file_ending must be .nii.gz or .nii, got '.png'; convert the files to NIfTI.",
        ),
        (
            {"numTraining": 3},
            "ROOT/dataset.json: numTraining must equal the number of training cases, got 3 with 2 cases; "
            "restore the missing files or correct it.",
        ),
        (
            {"labels": {"background": 0, "a": 1, "b": 1}},
            "ROOT/dataset.json: labels 'a' and 'b' share the value 1; give each its own.",
        ),
        (
            {"labels": {"background": 0, "a": 2}},
            "ROOT/dataset.json: label values must be 0 (background), 1, 2, ... without a gap and at least two, got "
            "[0, 2]; renumber the labels.",
        ),
        (
            {"labels": {"background": 0, "ignore": 1, "a": 2, "b": 1}},
            "ROOT/dataset.json: the ignore label must follow the classes and no label may exceed 255, "
            "got ignore 1 with 3 classes; renumber the labels.",
        ),
        (
            {"channel_names": {"0": "T1", "2": "T2"}},
            "ROOT/dataset.json: channel_names must name channels 0, 1, ... without a gap, got {'0': 'T1', '2': 'T2'}; "
            'write for example {"0": "T1"}.',
        ),
        (
            {"labels": [1]},
            'ROOT/dataset.json: labels must give each class its value, got [1]; write {"background": 0, ...}.',
        ),
        (
            {"schema_version": 2},
            "ROOT/dataset.json: schema_version must be an integer in [1, 1], got 2; update seg.",
        ),
    ],
)
def test_faults_of_an_nnunet_description(nnunet: Path, values: dict[str, Any], problem: str) -> None:
    change(nnunet / "dataset.json", **values)
    assert problems_of(nnunet)[0] == problem


def test_nnunet_file_names(nnunet: Path) -> None:
    (nnunet / "imagesTr/c.nii.gz").touch()
    assert problems_of(nnunet) == [
        "ROOT/imagesTr/c.nii.gz: image names must end in _0000, _0001, ... for the channel; rename the file."
    ]
    (nnunet / "imagesTr/c.nii.gz").rename(nnunet / "imagesTr/c_0000.NII.GZ")
    assert problems_of(nnunet) == [
        "ROOT/imagesTr/c_0000.NII.GZ: names must end in .nii.gz, as file_ending says, got .NII.GZ; rename the file."
    ]
    for path in (*nnunet.glob("imagesTr/*"), *nnunet.glob("labelsTr/*")):
        path.unlink()
    assert problems_of(nnunet) == ["ROOT/imagesTr: must hold files CASE_0000.nii.gz, got none; check data.root."]
