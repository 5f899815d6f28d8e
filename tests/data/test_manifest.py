"""Manifests, and every fault of one by its sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seg.data.cases import Case
from seg.data.checks import check_dataset
from seg.data.readers import read_dataset
from seg.errors import DataError

Writer = Callable[..., Path]


def problems_of(root: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    return [problem.replace(str(root), "ROOT") for problem in caught.value.sentences]


@pytest.mark.parametrize("root", ["file", "folder"])
def test_a_csv_manifest(tmp_path: Path, write_json: Writer, root: str) -> None:
    text = "id,image,label,patient,fold\nx,t1/a.nii.gz; t2/a.nii.gz,m/a.nii.gz,p1,0\n,b.nii;c.nii,,,1\n"
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8-sig")
    names = {"labels": {"background": 0, "liver": 1, "ignore": 255}, "channel_names": ["T1", "T2"], "name": "Livers"}
    write_json(tmp_path / "manifest.json", names)
    found = read_dataset(tmp_path / "manifest.csv" if root == "file" else tmp_path)
    assert (found.name, found.layout, found.root) == ("Livers", "manifest", tmp_path)
    assert (found.class_names, found.channel_names, found.ignore_label) == (("background", "liver"), ("T1", "T2"), 255)
    assert found.cases == (
        Case(
            id="x",
            images=(tmp_path / "t1/a.nii.gz", tmp_path / "t2/a.nii.gz"),
            label=tmp_path / "m/a.nii.gz",
            patient="p1",
            fold=0,
        ),
        Case(id="b", images=(tmp_path / "b.nii", tmp_path / "c.nii"), fold=1),
    )


def test_a_json_manifest_says_the_same_as_a_csv(tmp_path: Path, write_json: Writer) -> None:
    names = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "T1", "1": "T2"}, "name": "Livers"}
    entry = {"id": "x", "image": ["a.nii", "b.nii"], "label": "m.nii", "patient": "p", "fold": 2}
    write_json(tmp_path / "j/manifest.json", {**names, "schema_version": 1, "cases": [entry]})
    write_json(tmp_path / "c/manifest.json", names)
    (tmp_path / "c/manifest.csv").write_text("image_1,image_0,id,label,fold,patient\nb.nii,a.nii,x,m.nii,2,p\n")
    one, other = (read_dataset(tmp_path / name) for name in "jc")
    assert one.cases == tuple(
        Case(
            id=case.id,
            images=tuple(tmp_path / "j" / path.name for path in case.images),
            label=tmp_path / "j/m.nii",
            patient=case.patient,
            fold=case.fold,
        )
        for case in other.cases
    )
    assert (one.class_names, one.channel_names) == (other.class_names, other.channel_names)


def test_classes_and_channels_are_read_from_the_files(
    tmp_path: Path,
    write_nifti: Writer,
    image_array: np.ndarray,
    label_array: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("m1", "broken", "m2"):
        write_nifti(tmp_path / f"a_{name}.nii.gz", np.stack([image_array] * 3, axis=-1))
    write_nifti(tmp_path / "m1.nii.gz", label_array)
    write_nifti(tmp_path / "m2.nii.gz", np.where(label_array == 2, 3.00002, label_array * 4.0))
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    rows = ["image,label,id", *(f"a_{name}.nii.gz,{name}.nii.gz,{name}" for name in ("m1", "broken", "m2"))]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    found = read_dataset(tmp_path)
    assert found.class_names == ("background", "class_1", "class_2", "class_3", "class_4")
    assert found.channel_names == ("channel_0", "channel_1", "channel_2")
    assert (found.name, found.licence) == (tmp_path.name, "not stated")
    assert caplog.messages == ["classes: 0 to 4, found in the label maps; declare labels in manifest.json"]


def test_a_stray_value_makes_no_classes(tmp_path: Path, write_nifti: Writer, label_array: np.ndarray) -> None:
    label_array[0, 0, 0] = 200
    write_nifti(tmp_path / "m.nii.gz", label_array)
    (tmp_path / "manifest.csv").write_text("image,label\na.nii.gz,m.nii.gz\n")
    assert problems_of(tmp_path) == [
        "ROOT: labels must be 0, 1, 2 and on without a gap where the manifest declares none, got 1, 2, 200; "
        "declare labels in manifest.json, or correct the label maps."
    ]


def test_a_missing_first_image_hides_no_other_problem(
    tmp_path: Path, write_nifti: Writer, image_array: np.ndarray, label_array: np.ndarray
) -> None:
    for name in "abc":
        write_nifti(tmp_path / f"{name}.nii.gz", np.stack([image_array] * 2, axis=-1))
        write_nifti(tmp_path / f"{name}_m.nii.gz", label_array)
    (tmp_path / "a.nii.gz").unlink()
    (tmp_path / "c_m.nii.gz").unlink()
    rows = ["id,image,label", *(f"{name},{name}.nii.gz,{name}_m.nii.gz" for name in "abc")]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    found = read_dataset(tmp_path)
    assert len(found.channel_names) == 2
    assert [report.case_id for report in check_dataset(found)] == ["a", "c"]
    for name in "bc":
        (tmp_path / f"{name}.nii.gz").unlink()
    assert [report.case_id for report in check_dataset(read_dataset(tmp_path))] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "",
            "columns must be image (or image_0, image_1, ...), label, id, patient, fold, each at most once, got none;",
        ),
        (
            "img,label\n",
            "columns must be image (or image_0, image_1, ...), label, id, patient, fold, each at most once, ",
        ),
        ("image,image_0\n", "columns must be image (or image_0, image_1, ...), label, id, patient, fold, each at most"),
        (
            "image,label,label\n",
            "columns must be image (or image_0, image_1, ...), label, id, patient, fold, each at mo",
        ),
        ("image,label\n", "must list at least one case, got none; add a line per case."),
        ("image,label\na.nii\n", "line 2 must have as many fields as the header; correct the line."),
        ("image,label\na.nii,b.nii,c\n", "line 2 must have as many fields as the header; correct the line."),
        ("image,fold\na.nii,1.5\n", "line 2: fold must be an integer >= 0, got '1.5'; correct it or leave it out."),
        ("image\n;a.nii\n", "line 2: a file must be named by a relative path, got ''; write one such as a.nii.gz."),
        (
            "image\n/a.nii\n",
            "line 2: paths must stay inside the data set's folder, got '/a.nii'; write it relative to the folder, ",
        ),
        ('image\n"a', "must be comma-separated text in UTF-8, got 'unexpected end of data'; export it again."),
    ],
)
def test_faults_of_a_csv_manifest(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    (found,) = problems_of(tmp_path)
    assert found.startswith(f"ROOT/manifest.csv: {problem}")


def test_faults_of_a_json_manifest(tmp_path: Path, write_json: Writer) -> None:
    write_json(tmp_path / "manifest.json", {"cases": [{"image": "a.nii", "lable": "b.nii"}, "c.nii"]})
    assert problems_of(tmp_path) == [
        "ROOT/manifest.json: cases[0] may hold fold, id, image, label, patient, got lable; remove them.",
        "ROOT/manifest.json: cases[1] must be an object with image and label, got 'c.nii'; correct the entry.",
    ]
    (tmp_path / "manifest.csv").write_text("image\na.nii\n")
    assert problems_of(tmp_path) == ["ROOT: manifest.csv and manifest.json both list cases; drop one list."]
