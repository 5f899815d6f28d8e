"""The three layouts: what each holds, and every fault of a description as a problem."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg.config import DataConfig
from seg.data.cases import Case
from seg.data.checks import check_dataset
from seg.data.datasets import check_ids, read_configured, read_dataset, read_folds
from seg.data.splits import make_splits
from seg.errors import ConfigError, DataError, SegError
from seg.planning.plan import plan_dataset
from tests.data.builders import problems_of, save

Writer = Callable[..., Path]
MUTANTS = 200


def faults(root, **options):
    """Reads a faulty data set; gives where and which rule each problem is of."""
    return [
        (path.replace(f"{root}/", "").replace(str(root), "ROOT"), kind)
        for path, kind, _ in problems_of(read_dataset, root, **options)
    ]


def change(path, **values):
    """Changes entries of a JSON file; null removes an entry."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_msd(msd):
    found = read_dataset(msd)
    assert found == read_dataset(msd, layout="msd")
    assert (found.name, found.layout, found.licence, found.root) == ("Tiny", "msd", "CC0", msd)
    assert found.class_names == ("background", "organ", "tumour")
    assert (found.channel_names, found.ignore_label) == (("MRI",), None)
    assert found.cases == tuple(
        Case(id=name, images=(msd / f"imagesTr/{name}.nii.gz",), label=msd / f"labelsTr/{name}.nii.gz")
        for name in "abc"
    )


def test_nnunet(nnunet):
    found = read_dataset(nnunet)
    assert (found.name, found.layout, found.licence) == ("Dataset001_Tiny", "nnunet", "not stated")
    assert found.class_names == ("background", "organ", "tumour")
    assert (found.channel_names, found.ignore_label) == (("T1", "T2"), 3)
    assert found.cases == tuple(
        Case(
            id=name,
            images=tuple(nnunet / f"imagesTr/{name}_{channel:04d}.nii.gz" for channel in range(2)),
            label=nnunet / f"labelsTr/{name}.nii.gz",
        )
        for name in ("a", "b_1")
    )
    # What is missing and what is too much is listed, so that checks name it.
    (nnunet / "imagesTr/a_0001.nii.gz").unlink()
    (nnunet / "labelsTr/b_1.nii.gz").unlink()
    (nnunet / "imagesTr/b_1_0002.nii.gz").touch()
    a, b = read_dataset(nnunet).cases
    assert [path.name for path in a.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert [path.name for path in b.images] == ["b_1_0000.nii.gz", "b_1_0001.nii.gz", "b_1_0002.nii.gz"]
    assert b.label is None


def test_nnunet_with_listed_files(nnunet):
    entry = {"images": ["x/1.nii.gz", "x/2.nii.gz"], "label": "y/1.nii.gz"}
    change(nnunet / "dataset.json", dataset={"p": entry}, numTraining=1)
    assert read_dataset(nnunet).cases == (
        Case(id="p", images=(nnunet / "x/1.nii.gz", nnunet / "x/2.nii.gz"), label=nnunet / "y/1.nii.gz"),
    )
    change(nnunet / "dataset.json", dataset={"p": {**entry, "label": "../y.nii.gz"}})
    assert faults(nnunet) == [("dataset.json: case p", "path")]
    change(nnunet / "dataset.json", dataset={"p": entry, "q": 3})
    assert [where for where, _ in faults(nnunet)] == ["dataset.json: dataset.q"]


@pytest.mark.parametrize("root", ["file", "folder"])
def test_a_csv_manifest(tmp_path, write_json, root):
    text = "id,image,label,patient,fold\nx,t1/a.nii.gz; t2/a.nii.gz,m/a.nii.gz,p1,0\n,b.nii;c.nii,,,1\n"
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8-sig")
    names = {"labels": {"background": 0, "liver": 1, "ignore": 255}, "channel_names": ["T1", "T2"], "name": "Livers"}
    write_json(tmp_path / "manifest.json", names)
    found = read_dataset(tmp_path / "manifest.csv" if root == "file" else tmp_path)
    assert (found.name, found.layout, found.root) == ("Livers", "manifest", tmp_path)
    assert (found.class_names, found.channel_names, found.ignore_label) == (("background", "liver"), ("T1", "T2"), 255)
    images = (tmp_path / "t1/a.nii.gz", tmp_path / "t2/a.nii.gz")
    assert found.cases == (
        Case(id="x", images=images, label=tmp_path / "m/a.nii.gz", patient="p1", fold=0),
        Case(id="b", images=(tmp_path / "b.nii", tmp_path / "c.nii"), fold=1),
    )


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_columns_of_a_manifest_are_apart_by_commas_semicolons_or_tabs(tmp_path, write_json, mark):
    write_json(tmp_path / "manifest.json", {"labels": {"background": 0, "liver": 1}, "channel_names": ["T1", "T2"]})
    rows = (("id", "image", "label"), ("x", '"a.nii;b, c.nii"', "m.nii"))
    (tmp_path / "manifest.csv").write_text("".join(f"{mark.join(row)}\r\n" for row in rows))
    images = (tmp_path / "a.nii", tmp_path / "b, c.nii")
    assert read_dataset(tmp_path).cases == (Case(id="x", images=images, label=tmp_path / "m.nii"),)


def test_a_json_manifest_says_the_same_as_a_csv(tmp_path, write_json):
    names = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "T1", "1": "T2"}, "name": "Livers"}
    entry = {"id": "x", "image": ["a.nii", "b.nii"], "label": "m.nii", "patient": "p", "fold": 2}
    write_json(tmp_path / "j/manifest.json", {**names, "schema_version": 1, "cases": [entry]})
    write_json(tmp_path / "c/manifest.json", names)
    (tmp_path / "c/manifest.csv").write_text("image_1,image_0,id,label,fold,patient\nb.nii,a.nii,x,m.nii,2,p\n")
    one, other = (read_dataset(tmp_path / name) for name in "jc")
    images = tuple(tmp_path / "j" / path.name for path in other.cases[0].images)
    assert one.cases == (replace(other.cases[0], images=images, label=tmp_path / "j/m.nii"),)
    assert (one.class_names, one.channel_names) == (other.class_names, other.channel_names)


def test_zero_is_an_id_and_a_patient(tmp_path, write_json):
    cases = [{"id": number, "image": f"{number}.nii", "label": f"m{number}.nii", "patient": 0} for number in (0, 1)]
    cases += [{"image": "2.nii", "label": "n.nii"}, {"id": "", "image": "3.nii", "label": "o.nii"}]
    content = {"labels": {"background": 0, "a": 1}, "channel_names": ["CT"], "cases": cases}
    write_json(tmp_path / "manifest.json", content)
    write_json(tmp_path / "dataset.json", {"labels": {"0": "bg", "1": "a"}, "modality": ["CT"], "training": cases[:1]})
    found = read_dataset(tmp_path, layout="manifest").cases
    assert [(case.id, case.patient) for case in found] == [("0", "0"), ("1", "0"), ("2", None), ("3", None)]
    (case,) = read_dataset(tmp_path, layout="msd").cases
    assert (case.id, case.images) == ("0", (tmp_path / "0.nii",))


def test_classes_and_channels_are_read_from_the_files(tmp_path, image_array, label_array, caplog):
    caplog.set_level(logging.INFO)
    for name in ("m1", "broken", "m2"):
        save(tmp_path / f"a_{name}.nii.gz", np.stack([image_array] * 3, axis=-1))
    save(tmp_path / "m1.nii.gz", label_array)
    save(tmp_path / "m2.nii.gz", np.where(label_array == 2, 3.00002, label_array * 4.0))
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    rows = ["image,label,id", *(f"a_{name}.nii.gz,{name}.nii.gz,{name}" for name in ("m1", "broken", "m2"))]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    found = read_dataset(tmp_path)
    assert found.class_names == ("background", "class_1", "class_2", "class_3", "class_4")
    assert found.channel_names == ("channel_0", "channel_1", "channel_2")
    assert (found.name, found.licence, len(caplog.messages)) == (tmp_path.name, "not stated", 1)
    (tmp_path / "a_m1.nii.gz").unlink()
    assert (len(read_dataset(tmp_path).channel_names), read_dataset(tmp_path).class_names) == (3, found.class_names)
    label_array[0, 0, 0] = 200
    save(tmp_path / "m1.nii.gz", label_array)
    assert faults(tmp_path) == [("ROOT", "labels")]  # a stray value makes no classes


def test_all_faults_of_a_list_are_named(msd):
    training: list[Any] = [
        {"image": "/etc/a.nii.gz", "label": "labelsTr/../../b.nii.gz"},
        {"image": "C:\\a.nii.gz"},
        {"image": "x\\..\\..\\a.nii.gz"},
        {"image": []},
        {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"},
        {"image": "other/a.nii.gz", "label": "labelsTr/b.nii.gz"},
        {"image": "b\0.nii.gz"},
        {"image": " "},
    ]
    change(msd / "dataset.json", training=training, modality=None, labels={"1": "tumour", "2": "organ"})
    assert faults(msd) == [
        *((f"dataset.json: training[{number}]", "path") for number in (0, 0, 1, 2)),
        ("dataset.json: training[3]", "missing"),
        *((f"dataset.json: training[{number}]", "path") for number in (6, 7)),
        ("dataset.json", "labels"),
        ("dataset.json", "channels"),
        ("case a", "unique"),
    ]
    change(msd / "dataset.json", labels={"0": "background", "1": "organ", "2": "organ"})
    assert ("dataset.json", "labels") in faults(msd)
    change(msd / "dataset.json", training=[{"label": "a.nii"}, 7, {"image": "b.nii", "fold": -1}])
    places = [path.split(": ")[1] for path, _ in faults(msd)]
    assert places == ["training[0].image", "training[1]", "training[2].fold"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"labels": {"background": 0, "whole": [1, 2.5], "core": 1}}, "labels"),
        ({"labels": {"background": 0, "whole": []}}, "labels"),
        ({"labels": {"background": 0, "whole": [0, 1]}}, "labels"),
        ({"labels": {"background": 0, "whole": [1, 2], "all": [2, 1]}}, "labels"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2, 3]}}, "labels"),
        ({"labels": {"background": 0, "whole": [1, 2], "label_1": 2}}, "labels"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "labels"),
        ({"labels": {"background": 0}}, "labels"),
        ({"labels": {"background": 1, "a": 2}}, "labels"),
        ({"labels": {"background": 0, "a": 65536}}, "labels"),
        ({"labels": {"background": 0, "ignore": 1, "a": 2, "b": 1}}, "labels"),
        ({"labels": {"background": 0, "a": 10**400}}, "labels"),
        ({"labels": {"background": 0, "or\ngan": 1}}, "name"),
        ({"labels": [1]}, "dict_type"),
        ({"channel_names": {"0": "T1", "1": "M\tR"}}, "name"),
        ({"channel_names": {"0": "T1", "2": "T2"}}, "channels"),
        ({"file_ending": ".png"}, "format"),
        ({"file_ending": ".dcm"}, "format"),
        ({"file_ending": 5}, "string_type"),
        ({"numTraining": 3}, "count"),
        ({"schema_version": 2}, "less_than_equal"),
        ({"schema_version": True}, "int_type"),
    ],
)
def test_faults_of_a_description(nnunet, values, kind):
    change(nnunet / "dataset.json", **values)
    assert ("dataset.json", kind) in [(path.split(":")[0], found) for path, found in faults(nnunet)]


def test_labels_written_the_other_way_round_are_told_from_regions(msd, nnunet, tmp_path, write_json):
    change(msd / "dataset.json", labels={"background": 0, "organ": 1, "tumour": 1})
    assert faults(msd) == [("dataset.json", "labels"), ("dataset.json", "order")]
    swapped = {"0": "background", "1": "organ"}
    change(nnunet / "dataset.json", labels=swapped)
    assert faults(nnunet) == [("dataset.json", "order")]
    write_json(
        tmp_path / "m/manifest.json", {"labels": swapped, "channel_names": ["T1"], "cases": [{"image": "a.nii"}]}
    )
    assert faults(tmp_path / "m") == [("manifest.json", "order")]


def test_images_named_as_in_version_1_of_nnunet(msd):
    change(msd / "dataset.json", modality={"0": "T1", "1": "T2"})
    for name in "ac":
        (msd / f"imagesTr/{name}.nii.gz").rename(msd / f"imagesTr/{name}_0000.nii.gz")
    shutil.copy(msd / "imagesTr/a_0000.nii.gz", msd / "imagesTr/a_0001.nii.gz")
    a, b, c = read_dataset(msd).cases
    assert [case.id for case in (a, b, c)] == ["a", "b", "c"]
    assert a.images == (msd / "imagesTr/a_0000.nii.gz", msd / "imagesTr/a_0001.nii.gz")
    assert b.images == (msd / "imagesTr/b.nii.gz",)  # a 4-D file, as MSD has it, comes first
    reports = {report.case_id: report.errors for report in check_dataset(read_dataset(msd))}
    assert [(problem.kind, "c_0001.nii.gz" in problem.rule) for problem in reports["c"]] == [("missing", True)]
    assert "a" not in reports


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".nii"])
def test_nnunet_in_other_formats(nnunet, ending):
    for path in [*nnunet.glob("imagesTr/*"), *nnunet.glob("labelsTr/*")]:
        path.rename(path.with_name(path.name.replace(".nii.gz", ending)))
    change(nnunet / "dataset.json", file_ending=ending)
    a, b = read_dataset(nnunet).cases
    assert (a.id, b.id) == ("a", "b_1")
    assert b.images == tuple(nnunet / f"imagesTr/b_1_{number:04d}{ending}" for number in (0, 1))
    assert b.label == nnunet / f"labelsTr/b_1{ending}"


def test_a_description_is_no_folder(msd):
    file = msd / "dataset.json"
    assert problems_of(read_dataset, file) == [(str(file), "folder", "a file in it")]


def test_nnunet_file_names(nnunet):
    (nnunet / "imagesTr/c.nii.gz").touch()
    assert faults(nnunet) == [("imagesTr/c.nii.gz", "name")]
    (nnunet / "imagesTr/c.nii.gz").rename(nnunet / "imagesTr/c_0000.NII.GZ")
    assert faults(nnunet) == [("imagesTr/c_0000.NII.GZ", "name")]
    for path in (*nnunet.glob("imagesTr/*"), *nnunet.glob("labelsTr/*")):
        path.unlink()
    assert ("imagesTr", "empty") in faults(nnunet)


@pytest.mark.parametrize(
    ("text", "where", "kind"),
    [
        ("", "", "empty"),
        ("img,label\na,b\n", "", "columns"),
        ("image,image_0\na,b\n", "", "columns"),
        ("image,label,label\n", "", "csv"),
        ("image,label\n", "", "empty"),
        ("image,label\na.nii\n", ": row 1", "csv"),
        ("image,fold\na.nii,1.5\n", ": row 1", "fold"),
        ("image\n;a.nii\n", ": row 1", "path"),
        ("image\n/a.nii\n", ": row 1", "path"),
        ("image\nx\\a.nii\n", ": row 1", "separator"),
        ('image\n"a', "", "csv"),
    ],
)
def test_faults_of_a_csv_manifest(tmp_path, text, where, kind):
    (tmp_path / "manifest.csv").write_text(text)
    assert faults(tmp_path)[0] == (f"manifest.csv{where}", kind)


def test_faults_of_a_json_manifest(tmp_path, write_json):
    write_json(tmp_path / "manifest.json", {"cases": [{"image": "a.nii", "lable": "b.nii"}, "c.nii"]})
    assert [kind for _, kind in faults(tmp_path)] == ["extra_forbidden", "model_type"]
    write_json(tmp_path / "manifest.json", {"cases": [{"image": "a.nii"}]})
    (tmp_path / "manifest.csv").write_text("image\na.nii\n")
    assert faults(tmp_path) == [("ROOT", "layout")]


def test_layouts_that_cannot_be_told(tmp_path, msd, write_json):
    assert faults(tmp_path / "absent") == [("ROOT", "missing")]
    assert faults(tmp_path) == [("ROOT", "layout")]
    write_json(tmp_path / "x/dataset.json", {"name": "x"})
    assert faults(tmp_path / "x") == [("dataset.json", "layout")]
    (msd / "manifest.csv").write_text("image,label\n")
    assert faults(msd) == [("ROOT", "layout")]
    assert len(read_dataset(msd, layout="msd").cases) == 3


def test_patients_from_the_ids(nnunet):
    assert [case.patient for case in read_dataset(nnunet, patient_pattern="^([ab])").cases] == ["a", "b"]
    assert faults(nnunet, patient_pattern="(b)_") == [("case a", "patient")]
    with pytest.raises(ConfigError, match=r"^data\.patient_pattern "):
        read_dataset(nnunet, patient_pattern="a")


def patients_of(root, **fields):
    return [case.patient for case in read_configured(DataConfig(root=str(root), **fields)).cases]


def test_patients_from_a_table_beside_the_data(msd, nnunet):
    for root, names in ((msd, "abc"), (nnunet, ("a", "b_1"))):
        assert set(patients_of(root)) == {None}
        rows = "".join(f"{name}; p{index // 2}\n" for index, name in enumerate(names))
        (root / "patients.csv").write_text(f"case;patient\n{rows}other;p9\n")
        assert patients_of(root) == ["p0", "p0", "p1"][: len(names)]
    assert patients_of(nnunet, patient_pattern="^([ab])") == ["a", "b"]
    _, folds = read_folds(DataConfig(root=str(msd), folds=2))
    assert sorted(split.validation for split in folds) == [("a", "b"), ("c",)]
    text = plan_dataset(msd)
    assert "\n  folds: 2\n" in text


def test_patients_of_a_manifest_come_before_those_of_a_table(tmp_path):
    (tmp_path / "manifest.csv").write_text("image,patient\na.nii,p\nb.nii,\n")
    (tmp_path / "patients.csv").write_text("case,patient\na,x\nb,x\n")
    assert patients_of(tmp_path) == ["p", None]


def test_stated_folds_with_a_patient_on_both_sides_are_announced_once(msd, write_json, caplog):
    (msd / "patients.csv").write_text("case,patient\na,x\nb,x\nc,y\n")
    write_json(msd / "splits_final.json", [{"train": ["a"], "val": ["b", "c"]}])
    assert [patients_of(msd), patients_of(msd)] == [[None] * 3] * 2
    (problem,) = [record.args[0] for record in caplog.records]
    assert (problem.path, problem.kind, problem.value) == (str(msd / "patients.csv"), "patients", "1")
    splits = write_json(msd / "by_patient.json", [{"train": ["a", "b"], "val": ["c"]}])
    assert patients_of(msd, splits=str(splits)) == ["x", "x", "y"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case,patient\na,x\nb,\n", [("case b", "patient"), ("case c", "patient")]),
        ("case,patient\na,x\na,x\nb,y\nc,y\n", [("patients.csv", "unique")]),
        ("case,head\na,x\n", [("patients.csv", "columns")]),
        ("", [("case a", "patient"), ("case b", "patient"), ("case c", "patient")]),
    ],
)
def test_faults_of_a_table_of_patients(msd, text, expected):
    (msd / "patients.csv").write_text(text)
    found = problems_of(patients_of, msd)
    assert [(path.removeprefix(f"{msd}/"), kind) for path, kind, _ in found] == expected


def case(case_id, file=None):
    return Case(id=case_id, images=(Path(f"{file or case_id}.nii"),))


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ([case("ok 1-+._"), case("\u00e9")], []),
        ([case(letter * (200 // size)) for letter, size in (("a", 1), ("\u00e9", 2), ("\u8166", 3))], []),
        ([case("\u8166" * 67)], ["id"]),
        ([case("a/b"), case(".hidden"), case("n\n"), case("")], ["id"] * 4),
        ([case("a", "1"), case("a", "2")], ["unique"]),
        ([case("Anna"), case("b"), case("anna"), case("B")], ["unique", "unique"]),
        ([case("a", "1"), case("b", "1")], ["unique"]),
    ],
)
def test_ids_are_names_of_files(cases, expected):
    assert [problem.kind for problem in check_ids(cases, Path("dataset.json"))] == expected


VALUES: tuple[Any, ...] = (None, True, -1, 5, 1.5, "", "\ud800", "../x", [], {}, [[]], {"a": {}}, 10**400, "9" * 400)


def mutant(content, draw):
    """Replaces, adds or removes a part of a JSON value, chosen at random."""
    if draw.random() < 0.3 or not isinstance(content, dict | list) or not content:
        return draw.choice(VALUES)
    keys: list[Any] = list(content) if isinstance(content, dict) else list(range(len(content)))
    key, changed = draw.choice(keys), content.copy()
    if draw.random() < 0.15:
        del changed[key]
    else:
        changed[key] = mutant(content[key], draw)
    return changed


def broken(text, draw):
    """Damages the text of a JSON file by its content, by a character, or by nesting."""
    way = draw.random()
    if way < 0.8:
        return json.dumps(mutant(json.loads(text), draw))
    at = draw.randrange(len(text))
    return "[" * 100_000 if way < 0.82 else text[:at] + draw.choice('{}[]",0\\\0') + text[at + 1 :]


@pytest.mark.parametrize("kind", ["msd", "nnunet", "manifest", "csv", "splits"])
def test_damaged_descriptions_give_problems_and_no_traceback(kind, msd, nnunet, tmp_path, write_json):
    root = {"msd": msd, "splits": msd, "nnunet": nnunet}.get(kind, tmp_path / "manifest")
    if kind in ("manifest", "csv"):
        names = {"labels": {"background": 0, "liver": 1}, "channel_names": ["T1"]}
        cases = [{"image": ["a.nii"], "label": "m.nii", "id": "x", "patient": "p", "fold": 0}, {"image": "b.nii"}]
        write_json(root / "manifest.json", names if kind == "csv" else names | {"cases": cases})
    files = {"csv": "manifest.csv", "manifest": "manifest.json", "splits": "splits_final.json"}
    path = root / files.get(kind, "dataset.json")
    if kind == "csv":
        path.write_text("id,image,label,patient,fold\nx,a.nii,m.nii,p,0\ny,b.nii,,q,1\n")
    elif kind == "splits":
        write_json(path, [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a"]}])
    sound, draw = path.read_text(), random.Random(0)
    read_dataset(root)
    refused = 0
    characters = ['"', ",", "\n", "\0", "9" * 400, "é", "..", "/"]
    for _ in range(MUTANTS):
        if kind == "csv":
            at = draw.randrange(len(sound))
            path.write_text(sound[:at] + draw.choice(characters) + sound[at + 1 :], encoding="utf-8")
        else:
            path.write_text(broken(sound, draw), encoding="utf-8")
        with contextlib.suppress(SegError):
            make_splits(read_dataset(root), folds=2, seed=0)
            continue
        refused += 1
    assert refused > MUTANTS // 4


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("phantom", "run seg fetch phantom"),
        ("Task04_Hippocampus", "run seg fetch hippocampus"),
        ("other", "check the path"),
    ],
)
def test_a_data_set_that_can_be_fetched_says_how(tmp_path, name, remedy):
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path / name)
    assert [(one.kind, one.remedy) for one in caught.value.problems] == [("missing", remedy)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_no_data_set(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert faults(tmp_path / "pipe") == [("ROOT", "file")]
