"""Folds: partitions by patient, limited training sides, and every fault of a splits file."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.data.datasets import read_dataset
from seg.data.splits import Split, check_folds, draw_around, limit_training, make_splits, study_splits, write_splits
from seg.errors import ConfigError
from tests.data.builders import of_patients, problems_of

SIZES = st.lists(st.integers(1, 4), min_size=6, max_size=25)


def patients_of_sizes(sizes):
    return of_patients([f"p{number}" for number, size in enumerate(sizes) for _ in range(size)])


@given(sizes=SIZES, folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_seeded_folds_partition_cases_and_keep_patients_together(sizes, folds, seed):
    data = patients_of_sizes(sizes)
    patient_of = {case.id: case.patient for case in data.cases}
    splits = make_splits(data, folds=folds, seed=seed)
    assert len(splits) == folds
    assert Counter(name for split in splits for name in split.validation) == Counter(patient_of.keys())
    for split in splits:
        assert sorted(split.train + split.validation) == sorted(patient_of)
        assert not {patient_of[name] for name in split.train} & {patient_of[name] for name in split.validation}
    filled = [len(split.validation) for split in splits]
    assert max(filled) - min(filled) <= max(sizes)


def test_seeded_folds_depend_on_the_names_of_labelled_cases_and_seed_alone():
    data = of_patients([None] * 20)
    bare = replace(data.cases[0], id="bare", label=None)
    other = replace(data, cases=(*data.cases[::-1], bare))
    sides = [set(split.validation) for split in make_splits(data, folds=4, seed=0)]
    assert sides == [set(split.validation) for split in make_splits(other, folds=4, seed=0)]
    assert sides != [set(split.validation) for split in make_splits(data, folds=4, seed=1)]
    # Written down so that no change of the rule moves published folds unseen.
    assert make_splits(of_patients([None] * 6), folds=3, seed=0)[0].validation == ("c1", "c4")


def test_too_few_patients_and_too_few_folds():
    data = of_patients(["a", "a", "b"])
    assert problems_of(make_splits, data, folds=3, seed=0) == [("data.folds", "patients", "3 folds for 2")]
    one = of_patients(["a", "a"])
    assert problems_of(make_splits, one, folds=2, seed=0) == [("the folds made", "patients", "1")]
    assert problems_of(make_splits, data, folds=1, seed=0, error=ConfigError) == [("data.folds", "range", "1")]


def test_stated_folds():
    assert make_splits(of_patients(["a", "a", "b", "c"], [0, 0, 1, 1]), folds=5, seed=0) == (
        Split(train=("c2", "c3"), validation=("c0", "c1")),
        Split(train=("c0", "c1"), validation=("c2", "c3")),
    )


STATED = "the folds of the cases"


@pytest.mark.parametrize(
    ("patients", "folds", "expected"),
    [
        ([None] * 3, [0, None, 1], [("case c1", "fold", "none")]),
        (["a", "a", "b"], [0, 1, 1], [(f"{STATED}: fold {fold}", "patients", "a") for fold in (0, 1)]),
        ([None] * 2, [0, 0], [(f"{STATED}: fold 0", "empty", "none")]),
        ([None] * 3, [1, 2, 3], [(STATED, "fold", "1, 2, 3")]),
        ([None] * 3, [0, 2, 2], [(STATED, "fold", "0, 2")]),
        ([None] * 3, [1, 1, 1], [(STATED, "fold", "1")]),
    ],
)
def test_stated_folds_that_are_incomplete_or_leak(patients, folds, expected):
    assert problems_of(make_splits, of_patients(patients, folds), folds=5, seed=0) == expected


def test_a_splits_file_goes_before_folds_and_seed(tmp_path, write_json):
    data = of_patients([None] * 4, [0, 0, 1, 1], tmp_path)
    write_json(tmp_path / "splits_final.json", [{"train": ["c3", "c0"], "val": ["c1"]}])
    other = write_json(tmp_path / "other.json", [{"train": ["c1"], "val": ["c0"]}, {"train": ["c0"], "val": ["c1"]}])
    assert make_splits(data, folds=5, seed=0) == (Split(train=("c3", "c0"), validation=("c1",)),)
    assert [split.validation for split in make_splits(data, folds=5, seed=0, splits_file=other)] == [("c0",), ("c1",)]


def test_all_faults_of_a_splits_file_are_named(tmp_path, write_json):
    content = [
        {"train": ["c0", "x", "y"], "val": ["c3"]},
        {"train": ["c0", "c2"], "val": ["c0"]},
        {"train": ["c0"], "val": ["c1"]},
        {"train": ["c0", "c0"], "val": []},
        {"train": ["c0", "c1"], "val": ["c2", "c3"]},
        {"train": [f"x{n}" for n in range(8)], "val": ["c0"]},
    ]
    path = write_json(tmp_path / "s.json", content)
    data = of_patients(["a", "a", "b", "c"])
    assert problems_of(make_splits, data, folds=5, seed=0, splits_file=path) == [
        (f"{path}: fold 0", "unknown", "x, y"),
        (f"{path}: fold 1", "shared", "c0"),
        (f"{path}: fold 2", "patients", "a"),
        (f"{path}: fold 3", "repeated", "c0"),
        (f"{path}: fold 3", "empty", "none"),
        (f"{path}: fold 5", "unknown", "x0, x1, x2, x3, x4 and 3 more"),
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[]", "too_short"),
        ('{"train": []}', "list_type"),
        ('[["c0"]]', "model_type"),
        ('[{"train": ["c0"], "val": [1]}]', "string_type"),
        ('[{"train": ["c0"]}]', "missing"),
        ("[" * 100_000, "json"),
        (None, "missing"),
    ],
)
def test_a_splits_file_of_another_form(tmp_path, text, kind):
    path = tmp_path / "s.json"
    if text is not None:
        path.write_text(text)
    ((where, found, _),) = problems_of(make_splits, of_patients([None]), folds=5, seed=0, splits_file=path)
    assert (where.split(":")[0], found) == (str(path), kind)


def test_splits_of_real_data(data_root):
    hippocampus = make_splits(read_dataset(data_root("Task04_Hippocampus")), folds=3, seed=0)
    assert [(len(split.train), len(split.validation)) for split in hippocampus] == [(160, 40)] * 5
    hearts = read_dataset(data_root("Dataset027_ACDC"), patient_pattern="(patient[0-9]+)")
    assert [(len(split.train), len(split.validation)) for split in make_splits(hearts, folds=3, seed=0)] == [
        (96, 24)
    ] * 5


def test_folds_that_are_trained_together_hold_out_different_cases():
    sides = ((("c0", "c1"), ("c2", "c3")), (("c2", "c3"), ("c0", "c1")), (("c0",), ("c3", "c2", "c1")))
    splits = [Split(train=train, validation=validation) for train, validation in sides]
    check_folds(splits, [0, 1])
    check_folds(splits, [2])
    assert problems_of(check_folds, splits, [0, 1, 2]) == [
        ("folds 0 and 2: val sides", "shared", "c2, c3"),
        ("folds 1 and 2: val sides", "shared", "c1"),
    ]


def test_sides_that_lost_all_their_cases_are_named_with_them():
    splits = [Split(train=("c0",), validation=()), Split(train=(), validation=("c0",))]
    value = "none without the faulty c1, c2"
    expected = [("fold 0: val", "empty", value), ("fold 1: train", "empty", value)]
    assert problems_of(check_folds, splits, [0, 1], ["c1", "c2"]) == expected
    assert problems_of(check_folds, splits, [1], ["c1", "c2"]) == expected[1:]


@given(sizes=SIZES, seed=st.integers(0, 3), counts=st.data())
def test_fewer_training_cases_are_nested_and_whole_patients(sizes, seed, counts):
    data = patients_of_sizes(sizes)
    patient_of = {case.id: case.patient for case in data.cases}
    splits = make_splits(data, folds=3, seed=0)
    most = min(len(split.train) for split in splits)
    small, large = sorted(counts.draw(st.integers(min(4, most), most)) for _ in range(2))
    fewer, more = (limit_training(splits, data, count=count, seed=seed) for count in (small, large))
    for split, less, larger in zip(splits, fewer, more, strict=True):
        assert set(less.train) <= set(larger.train) <= set(split.train)
        assert less.validation == larger.validation == split.validation
        assert small - max(sizes) < len(less.train) <= small
        kept = {patient_of[name] for name in less.train}
        assert list(less.train) == [name for name in split.train if patient_of[name] in kept]


def test_fewer_training_cases_depend_on_names_fold_and_seed():
    data = of_patients([None] * 30)
    same = (Split(train=tuple(f"c{n}" for n in range(24)), validation=("c24",)),) * 2
    first, second = limit_training(same, data, count=6, seed=0)
    assert len(first.train) == len(second.train) == 6
    assert set(first.train) != set(second.train)
    assert set(first.train) != set(limit_training(same, data, count=6, seed=1)[0].train)
    assert limit_training(same, data, count=24, seed=0) == same
    # Written down so that no change of the rule moves published training sides unseen.
    assert limit_training(same, data, count=3, seed=0)[0].train == ("c8", "c12", "c20")


def test_more_training_cases_than_there_are_and_patients_that_do_not_fit():
    data = of_patients(["a", "a", "a", "b", "b", "b", None, None])
    splits = (
        Split(train=("c0", "c1", "c2", "c3", "c4", "c5"), validation=("c6",)),
        Split(train=("c6",), validation=("c7",)),
        Split(train=(), validation=("c6",)),
    )
    assert problems_of(limit_training, splits, data, count=2, seed=0) == [
        ("fold 0: data.train_cases", "patient", "2"),
        ("fold 1: data.train_cases", "range", "2"),
        ("fold 2: data.train_cases", "range", "2"),
    ]


@pytest.mark.parametrize(("name", "study", "letters"), [("hippocampus", "bottleneck", 15), ("acdc", "acdc", 10)])
def test_the_folds_of_the_published_studies_are_at_hand(tmp_path, name, study, letters):
    """Fold 0 holds out the cases that the study scored, and all folds together are the cases that it read."""
    splits = study_splits(name)
    folder = Path(__file__).parents[2] / "docs/results" / study
    with (folder / "cases.csv").open(newline="") as file:
        assert sorted(splits[0].validation) == sorted({row["case_id"] for row in csv.DictReader(file)})
    (read,) = json.loads((folder / "provenance.json").read_text())["data"]
    dataset = of_patients([case[:letters] for case in read])
    cases = [replace(case, id=own) for case, own in zip(dataset.cases, read, strict=True)]
    dataset = replace(dataset, cases=tuple(cases))
    write_splits(splits, tmp_path / "splits.json")
    assert make_splits(dataset, folds=2, seed=0, splits_file=tmp_path / "splits.json") == splits
    assert sorted(case for split in splits for case in split.validation) == sorted(read)
    assert all(sorted(split.train + split.validation) == sorted(read) for split in splits)


def test_other_data_sets_have_no_folds_of_studies():
    assert study_splits("phantom") == ()


def test_folds_around_patients_whose_side_is_settled():
    dataset = of_patients([None if index % 2 else f"p{index}" for index in range(12)])
    patients = {case.id: case.patient_or_id for case in dataset.cases}
    trained, held_out = {"p0", "c1", "p2"}, {"c3": 1, "p4": 1, "c1": 1, "gone": 0}
    splits = draw_around(dataset, folds=3, seed=0, trained=trained, held_out=held_out)
    assert [len(split.train) + len(split.validation) for split in splits] == [12] * 3
    held = [{patients[case] for case in split.validation} for split in splits]
    assert not set.union(*held) & trained
    assert {"c3", "p4"} <= held[1]
    assert set.union(*held) | trained == set(patients.values())
    assert sum(map(len, held)) == 9
    assert {len(side) for side in held} == {3}
    assert draw_around(dataset, folds=3, seed=0, trained=set(patients.values()), held_out={})[0].validation == ()
