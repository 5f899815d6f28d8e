"""A limited number of training cases: nested, whole patients, the validation side as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.data.cases import Case, Dataset
from seg.data.splits import Split, limit_training, make_splits
from seg.errors import DataError


def dataset(patients):
    """A data set of cases c0, c1, ... of the given patients; no file exists."""
    return Dataset(
        name="tiny",
        root=Path("/none"),
        layout="manifest",
        cases=tuple(
            Case(
                id=f"c{n}", images=(Path(f"/none/c{n}.nii"),), label=Path(f"/none/l{n}.nii"), patient=patient, fold=None
            )
            for n, patient in enumerate(patients)
        ),
        class_names=("background", "organ"),
        channel_names=("MRI",),
        ignore_label=None,
        licence="CC0",
    )


@given(sizes=st.lists(st.integers(1, 3), min_size=6, max_size=20), seed=st.integers(0, 3), counts=st.data())
def test_fewer_training_cases_are_nested_and_whole_patients(sizes, seed, counts):
    data = dataset([f"p{number}" for number, size in enumerate(sizes) for _ in range(size)])
    patient_of = {case.id: case.patient for case in data.cases}
    splits = make_splits(data, folds=3, seed=0)
    most = min(len(split.train) for split in splits)
    small, large = sorted((counts.draw(st.integers(3, most)), counts.draw(st.integers(3, most))))
    fewer = limit_training(splits, data, count=small, seed=seed)
    more = limit_training(splits, data, count=large, seed=seed)
    for split, less, larger in zip(splits, fewer, more, strict=True):
        assert set(less.train) <= set(larger.train) <= set(split.train)
        assert less.validation == larger.validation == split.validation
        assert small - max(sizes) < len(less.train) <= small
        kept = {patient_of[name] for name in less.train}
        assert sorted(less.train) == sorted(name for name in split.train if patient_of[name] in kept)
        assert list(less.train) == [name for name in split.train if name in less.train]


def test_fewer_training_cases_depend_on_names_fold_and_seed():
    data = dataset([None] * 30)
    same = (Split(train=tuple(f"c{n}" for n in range(24)), validation=("c24",)),) * 2
    first, second = limit_training(same, data, count=6, seed=0)
    assert len(first.train) == len(second.train) == 6
    assert set(first.train) != set(second.train)
    assert set(first.train) != set(limit_training(same, data, count=6, seed=1)[0].train)
    assert limit_training(same, data, count=24, seed=0) == same
    # Written down so that no change of the rule moves published training sides unseen.
    assert limit_training(same, data, count=3, seed=0)[0].train == ("c8", "c12", "c20")


def test_more_training_cases_than_there_are_and_patients_that_do_not_fit():
    data = dataset(["a", "a", "a", "b", "b", "b", None, None])
    splits = (
        Split(train=("c0", "c1", "c2", "c3", "c4", "c5"), validation=("c6",)),
        Split(train=("c6",), validation=("c7",)),
    )
    with pytest.raises(DataError) as caught:
        limit_training(splits, data, count=2, seed=0)
    assert list(caught.value.sentences) == [
        "fold 0: data.train_cases must hold a whole patient, of 3 cases, got 2; raise it.",
        "fold 1: data.train_cases must be at most the 1 cases to train on, got 2; lower it or set it to null.",
    ]
    empty = (Split(train=(), validation=("c6",)),)
    with pytest.raises(DataError) as caught:
        limit_training(empty, data, count=1, seed=0)
    assert list(caught.value.sentences) == [
        "fold 0: data.train_cases must be at most the 0 cases to train on, got 1; lower it or set it to null."
    ]
