"""Folds: partitions by patient, and every fault of a splits file by its sentence."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.data.cases import Case, Dataset
from seg.data.datasets import read_dataset
from seg.data.splits import Split, check_folds, make_splits
from seg.errors import ConfigError, DataError

Writer = Callable[..., Path]


def dataset(patients, folds=None, root=Path("/none")):
    """A data set of cases c0, c1, ... of the given patients; no file exists."""
    cases = tuple(
        Case(id=f"c{n}", images=(root / f"c{n}.nii",), label=root / f"l{n}.nii", patient=patient, fold=fold)
        for n, (patient, fold) in enumerate(zip(patients, folds or [None] * len(patients), strict=True))
    )
    return Dataset(
        name="tiny",
        root=root,
        layout="manifest",
        cases=cases,
        class_names=("background", "organ"),
        channel_names=("MRI",),
        ignore_label=None,
        licence="CC0",
    )


def problems_of(make):
    with pytest.raises(DataError) as caught:
        make()
    return list(caught.value.sentences)


@given(sizes=st.lists(st.integers(1, 4), min_size=5, max_size=25), folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_seeded_folds_partition_cases_and_keep_patients_together(sizes, folds, seed):
    patients: list[str | None] = [f"p{number}" for number, size in enumerate(sizes) for _ in range(size)]
    data = dataset(patients)
    patient_of = {case.id: case.patient for case in data.cases}
    splits = make_splits(data, folds=folds, seed=seed)
    assert len(splits) == folds
    assert Counter(name for split in splits for name in split.validation) == Counter(patient_of.keys())
    for split in splits:
        assert sorted(split.train + split.validation) == sorted(patient_of)
        assert not {patient_of[name] for name in split.train} & {patient_of[name] for name in split.validation}
    filled = [len(split.validation) for split in splits]
    assert max(filled) - min(filled) <= max(sizes)


def test_seeded_folds_depend_on_names_and_seed_alone():
    data = dataset([None] * 20)
    shuffled = list(data.cases)
    random.Random(1).shuffle(shuffled)
    other = Dataset(**{**vars(data), "cases": tuple(shuffled)})
    sides = [set(split.validation) for split in make_splits(data, folds=4, seed=0)]
    assert sides == [set(split.validation) for split in make_splits(other, folds=4, seed=0)]
    assert sides != [set(split.validation) for split in make_splits(data, folds=4, seed=1)]
    # Written down so that no change of the rule moves published folds unseen.
    assert make_splits(dataset([None] * 6), folds=3, seed=0)[0].validation == ("c1", "c4")


def test_cases_without_a_label_are_in_no_seeded_fold():
    data = dataset([None] * 5)
    bare = Case(id="bare", images=data.cases[0].images)
    with_bare = Dataset(**{**vars(data), "cases": (bare, *data.cases)})
    assert make_splits(with_bare, folds=5, seed=0) == make_splits(data, folds=5, seed=0)


def test_too_few_patients_and_too_few_folds():
    data = dataset(["a", "a", "b"])
    assert problems_of(lambda: make_splits(data, folds=3, seed=0)) == [
        "data.folds must not exceed the number of patients with a label, got 3 folds for 2; set data.folds to 2 "
        "or fewer."
    ]
    assert problems_of(lambda: make_splits(dataset(["a", "a"]), folds=2, seed=0)) == [
        "the folds made: at least two patients with a label are needed, one to train on and one to hold out, got 1; "
        "add labelled cases, or state the splits in splits_final.json."
    ]
    with pytest.raises(ConfigError, match=r"^data\.folds must be >= 2, got 1; give at least 2\.$"):
        make_splits(data, folds=1, seed=0)


def test_stated_folds():
    data = dataset(["a", "a", "b", "c"], [0, 0, 1, 1])
    assert make_splits(data, folds=5, seed=0) == (
        Split(train=("c2", "c3"), validation=("c0", "c1")),
        Split(train=("c0", "c1"), validation=("c2", "c3")),
    )


def test_stated_folds_that_are_incomplete_or_leak():
    incomplete = dataset([None] * 3, [0, None, 1])
    assert problems_of(lambda: make_splits(incomplete, folds=5, seed=0)) == [
        "case c1: fold must be given for every case or for none, got none; fill it in or drop all folds."
    ]
    leaking = dataset(["a", "a", "b"], [0, 1, 1])
    assert problems_of(lambda: make_splits(leaking, folds=5, seed=0)) == [
        f"the folds of the cases: fold {fold}: train and val share patients: a; "
        "keep all cases of a patient on one side."
        for fold in (0, 1)
    ]
    single = dataset([None] * 2, [0, 0])
    assert problems_of(lambda: make_splits(single, folds=5, seed=0)) == [
        "the folds of the cases: fold 0: train must hold at least one case, got none; correct the splits."
    ]


def test_a_splits_file_goes_before_folds_and_seed(tmp_path, write_json):
    data = dataset([None] * 4, [0, 0, 1, 1], tmp_path)
    write_json(tmp_path / "splits_final.json", [{"train": ["c3", "c0"], "val": ["c1"]}])
    other = write_json(tmp_path / "other.json", [{"train": ["c1"], "val": ["c0"]}, {"train": ["c0"], "val": ["c1"]}])
    assert make_splits(data, folds=5, seed=0) == (Split(train=("c3", "c0"), validation=("c1",)),)
    assert [split.validation for split in make_splits(data, folds=5, seed=0, splits_file=other)] == [("c0",), ("c1",)]


def test_all_faults_of_a_splits_file_are_named(tmp_path, write_json):
    path = write_json(
        tmp_path / "s.json",
        [
            {"train": ["c0", "x", "y"], "val": ["c3"]},
            {"train": ["c0", "c2"], "val": ["c0"]},
            {"train": ["c0"], "val": ["c1"]},
            {"train": ["c0", "c0"], "val": []},
            {"train": ["c0", "c1"], "val": ["c2", "c3"]},
        ],
    )
    data = dataset(["a", "a", "b", "c"])
    assert problems_of(lambda: make_splits(data, folds=5, seed=0, splits_file=path)) == [
        f"{path}: fold 0: train names cases the data set lacks: x, y; correct or remove them.",
        f"{path}: fold 1: train and val share cases: c0; keep each on one side.",
        f"{path}: fold 2: train and val share patients: a; keep all cases of a patient on one side.",
        f"{path}: fold 3: train names cases more than once: c0; remove the repetition.",
        f"{path}: fold 3: val must hold at least one case, got none; correct the splits.",
    ]


def test_long_lists_of_names_are_cut(tmp_path, write_json):
    path = write_json(tmp_path / "s.json", [{"train": [f"x{n}" for n in range(8)], "val": ["c0"]}])
    (problem,) = problems_of(lambda: make_splits(dataset([None]), folds=5, seed=0, splits_file=path))
    assert problem.endswith(
        "train names cases the data set lacks: x0, x1, x2, x3, x4 and 3 more; correct or remove them."
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[]", "too_short"),
        ('{"train": []}', "list_type"),
        ("5", "list_type"),
        ('[["c0"]]', "model_type"),
        ('[{"train": ["c0"], "val": [1]}]', "string_type"),
        ('[{"train": ["c0"]}]', "missing"),
        ("[{", "json"),
        ("[" * 100_000, "json"),
        (None, "missing"),
    ],
)
def test_a_splits_file_of_another_form(tmp_path, text, kind):
    path = tmp_path / "s.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        make_splits(dataset([None]), folds=5, seed=0, splits_file=path)
    assert [(problem.path.split(":")[0], problem.kind) for problem in caught.value.problems] == [(str(path), kind)]


def test_splits_of_real_data(data_root):
    hippocampus = make_splits(read_dataset(data_root("Task04_Hippocampus")), folds=3, seed=0)
    assert [(len(split.train), len(split.validation)) for split in hippocampus] == [(160, 40)] * 5
    hearts = read_dataset(data_root("Dataset027_ACDC"), patient_pattern="(patient[0-9]+)")
    assert [(len(split.train), len(split.validation)) for split in make_splits(hearts, folds=3, seed=0)] == [
        (96, 24)
    ] * 5


@pytest.mark.parametrize("folds", [[1, 2, 3], [0, 2, 2], [1, 1, 1]])
def test_stated_folds_are_numbered_from_0_without_a_gap(folds):
    found = ", ".join(map(str, sorted({fold for fold in folds if fold is not None})))
    assert problems_of(lambda: make_splits(dataset([None] * 3, folds), folds=5, seed=0)) == [
        f"the folds of the cases: they must be numbered 0, 1, 2, ... without a gap, got {found}; renumber them, so "
        "that --fold N and the results mean the same fold."
    ]


def test_folds_that_are_trained_together_hold_out_different_cases():
    splits = [
        Split(train=("c0", "c1"), validation=("c2", "c3")),
        Split(train=("c2", "c3"), validation=("c0", "c1")),
        Split(train=("c0",), validation=("c3", "c2", "c1")),
    ]
    check_folds(splits, [0, 1])
    check_folds(splits, [2])
    sentence = "val sides must not share cases where both are trained and scored together, got"
    remedy = "correct the splits or train each --fold N on its own."
    assert problems_of(lambda: check_folds(splits, [0, 1, 2])) == [
        f"folds 0 and 2: {sentence} c2, c3; {remedy}",
        f"folds 1 and 2: {sentence} c1; {remedy}",
    ]


def test_sides_that_lost_all_their_cases_are_named_with_them():
    splits = [Split(train=("c0",), validation=()), Split(train=(), validation=("c0",))]
    rest = "must hold at least one case, got none without the faulty c1, c2; repair them or correct the splits."
    assert problems_of(lambda: check_folds(splits, [0, 1], ["c1", "c2"])) == [
        f"fold 0: val {rest}",
        f"fold 1: train {rest}",
    ]
    assert problems_of(lambda: check_folds(splits, [1], ["c1", "c2"])) == [f"fold 1: train {rest}"]
