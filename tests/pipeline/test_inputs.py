"""What a run reads before it trains."""

from __future__ import annotations

from pathlib import Path

from seg.config import DataConfig, ExperimentConfig
from seg.data.cases import Case, Dataset
from seg.pipeline.inputs import read_splits


def manifest(root: Path, count: int) -> Dataset:
    names = [f"c{index}" for index in range(count)]
    (root / "manifest.json").write_text(
        '{"labels": {"background": 0, "a": 1}, "channel_names": ["x"], "cases": ['
        + ", ".join(f'{{"id": "{name}", "image": "{name}.nii", "label": "{name}_l.nii"}}' for name in names)
        + "]}"
    )
    cases = tuple(Case(id=name, images=(root / f"{name}.nii",), label=root / f"{name}_l.nii") for name in names)
    return Dataset(
        name="t",
        root=root,
        layout="manifest",
        cases=cases,
        class_names=("background", "a"),
        channel_names=("x",),
        ignore_label=None,
        licence="CC0",
        attribution="none",
    )


def test_the_seed_of_training_leaves_the_folds_alone(tmp_path: Path) -> None:
    dataset = manifest(tmp_path, 20)
    first, second, other = (
        read_splits(
            ExperimentConfig(seed=seed, data=DataConfig(root=str(tmp_path), split_seed=split_seed)), dataset, []
        )
        for seed, split_seed in ((0, 0), (1, 0), (0, 1))
    )
    assert first == second
    assert first != other
