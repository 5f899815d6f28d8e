"""The layout of the decathlon, how layouts are told apart, and every fault of a description by its sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seg.data.cases import Case
from seg.data.readers import read_dataset
from seg.errors import ConfigError, DataError

Writer = Callable[..., Path]


def problems_of(root: Path, **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_dataset(root, **options)
    return [problem.replace(str(root), "ROOT") for problem in caught.value.sentences]


def change(path: Path, **values: Any) -> None:
    """Changes entries of a JSON file; null removes an entry."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_msd(msd: Path) -> None:
    found = read_dataset(msd)
    assert found == read_dataset(msd, layout="msd")
    assert (found.name, found.layout, found.licence, found.root) == ("Tiny", "msd", "CC0", msd)
    assert found.class_names == ("background", "organ", "tumour")
    assert found.channel_names == ("MRI",)
    assert found.ignore_label is None
    assert found.cases == tuple(
        Case(id=name, images=(msd / f"imagesTr/{name}.nii.gz",), label=msd / f"labelsTr/{name}.nii.gz")
        for name in "abc"
    )


def outside(name: str) -> str:
    return f"paths must stay inside the data set's folder, got '{name}'; write it relative to the folder, without '..'."


def test_all_faults_of_an_msd_description_are_named(msd: Path) -> None:
    training = [
        {"image": "/etc/a.nii.gz", "label": "labelsTr/../../b.nii.gz"},
        {"image": "C:\\a.nii.gz"},
        {"image": "x\\..\\..\\a.nii.gz"},
        {"label": "labelsTr/a.nii.gz"},
        7,
        {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"},
        {"image": "other/a.nii.gz", "label": "labelsTr/b.nii.gz"},
        {"image": "imagesTr/b.nii.gz", "fold": -1},
    ]
    change(msd / "dataset.json", training=training, modality=None, labels={"0": "background", "2": "organ"})
    assert problems_of(msd) == [
        "ROOT/dataset.json: training[0]: " + outside("/etc/a.nii.gz"),
        "ROOT/dataset.json: training[0]: " + outside("labelsTr/../../b.nii.gz"),
        "ROOT/dataset.json: training[1]: " + outside("C:\\a.nii.gz"),
        "ROOT/dataset.json: training[2]: " + outside("x\\..\\..\\a.nii.gz"),
        "ROOT/dataset.json: training[3]: a file must be named by a relative path, got None; "
        "write one such as a.nii.gz.",
        "ROOT/dataset.json: training[4] must be an object with image and label, got 7; correct the entry.",
        "ROOT/dataset.json: training[7]: fold must be an integer >= 0, got -1; correct it or leave it out.",
        "ROOT/dataset.json: label values must be 0 (background), 1, 2, ... without a gap and at least two, got [0, 2]; "
        "renumber the labels.",
        "ROOT/dataset.json: channel_names must name channels 0, 1, ... without a gap, got None; "
        'write for example {"0": "T1"}.',
        "case a: ids must be unique, got 2 cases of this id in ROOT/dataset.json; "
        "rename files or give each case an id of its own.",
    ]


def test_names_that_would_tear_a_table(msd: Path) -> None:
    change(msd / "dataset.json", labels={"0": "background", "1": "or\ngan"}, modality={"0": "M\tR"})
    assert problems_of(msd)[:2] == [
        "ROOT/dataset.json: names of classes and channels must be printable on one line, got 'or\\ngan'; rename it.",
        "ROOT/dataset.json: names of classes and channels must be printable on one line, got 'M\\tR'; rename it.",
    ]


def test_fewer_cases_than_declared(msd: Path) -> None:
    change(msd / "dataset.json", numTraining=9)
    assert problems_of(msd) == [
        "ROOT/dataset.json: numTraining must equal the number of training cases, got 9 with 3 cases; "
        "restore the missing files or correct it."
    ]


def test_two_msd_classes_of_one_name(msd: Path) -> None:
    change(msd / "dataset.json", labels={"0": "background", "1": "organ", "2": "organ"})
    assert problems_of(msd)[0] == (
        "ROOT/dataset.json: class names must be unique, got ['background', 'organ', 'organ']; rename one."
    )


def test_a_file_of_two_cases(msd: Path) -> None:
    training = [{"id": name, "image": "a.nii", "label": f"{name}_label.nii"} for name in "ab"]
    change(msd / "dataset.json", training=training)
    assert problems_of(msd) == [
        "case b: a file must belong to one case, got ROOT/a.nii of case a too in ROOT/dataset.json; correct one of the "
        "two."
    ]


def test_ids_that_are_no_file_names(msd: Path) -> None:
    names = ["a/b", ".hidden", "ok 1-+._", "n\n"]
    change(msd / "dataset.json", training=[{"id": name, "image": f"{at}.nii"} for at, name in enumerate(names)])
    assert [problem.split(":")[0] for problem in problems_of(msd)] == ["case 'a/b'", "case '.hidden'", "case 'n\\n'"]


def test_layouts_that_cannot_be_told(tmp_path: Path, msd: Path, write_json: Writer) -> None:
    assert problems_of(tmp_path / "absent") == [
        "ROOT: data.root must be the folder of a data set, got no such folder; check the path."
    ]
    assert problems_of(tmp_path) == [
        "ROOT: data.root must hold dataset.json (MSD or nnU-Net) or manifest.csv or manifest.json, got none of them; "
        "check the path."
    ]
    write_json(tmp_path / "x/dataset.json", {"name": "x"})
    assert problems_of(tmp_path / "x") == [
        "ROOT/dataset.json: must hold training (MSD) or file_ending (nnU-Net v2), got ['name']; "
        "convert the data set to one of these layouts."
    ]
    (msd / "manifest.csv").write_text("image,label\n")
    assert problems_of(msd) == ["ROOT: holds dataset.json and manifest.csv; say which to read by data.layout."]
    assert len(read_dataset(msd, layout="msd").cases) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1]", "ROOT/dataset.json: must hold a JSON object, got list; see docs/conventions."),
        ("{", "ROOT/dataset.json: must be JSON text in UTF-8, got 'Expecting property name"),
        (
            '{"training": []}',
            "ROOT/dataset.json: training must be a list of at least one case, got []; see data.layout.",
        ),
    ],
)
def test_descriptions_that_cannot_be_read(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    assert problems_of(tmp_path)[0].startswith(problem)


def test_patients_from_the_ids(nnunet: Path) -> None:
    assert [case.patient for case in read_dataset(nnunet, patient_pattern="^([ab])").cases] == ["a", "b"]
    assert problems_of(nnunet, patient_pattern="(b)_") == [
        "case a must have an id that holds a patient as data.patient_pattern '(b)_' finds it; "
        "correct the pattern or the id."
    ]
    with pytest.raises(ConfigError, match=r"^data\.patient_pattern must have a group \(\.\.\.\) around the patient"):
        read_dataset(nnunet, patient_pattern="a")
