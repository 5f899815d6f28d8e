"""Rules of a study, each by its sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from seg.config import AxisConfig, BackendConfig, PointConfig, SlurmConfig, SpeedConfig, StudyConfig
from seg.config.study_rules import study_problems

POINT = PointConfig(name="narrow", set={"network.skip_bottleneck.ratio": 0.25})
GOOD = StudyConfig(name="widths", base="base.yaml", points=(POINT,))
AXIS = AxisConfig(path="network.merge", values=("concat", "add"), label="merge")


def broken(**values: Any) -> list[str]:
    return study_problems(replace(GOOD, **values))


def test_a_list_a_product_and_a_sweep_are_well() -> None:
    assert broken() == []
    assert broken(design="product", axes=(AXIS,)) == []
    assert broken(design="sweep", axes=(AXIS,), points=()) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"name": "Widths"},
            "name must be lower-case letters, digits, '_', '-' and '.', a letter or digit first, for it names a "
            "folder, got 'Widths'.",
        ),
        (
            {"points": (replace(POINT, name="../x"),)},
            "points[0].name must be lower-case letters, digits, '_', '-' and '.', a letter or digit first, for it "
            "names a folder, got '../x'.",
        ),
        (
            {"base": ""},
            "base must be a YAML file of an experiment, got an empty text; name it relative to the study's file.",
        ),
        (
            {"points": (POINT, POINT)},
            "points[1].name must be of one variant alone, got 'narrow', as in points[0]; rename one of the two.",
        ),
        (
            {"baseline": PointConfig(name="narrow")},
            "points[0].name must be of one variant alone, got 'narrow', as in baseline; rename one of the two.",
        ),
        ({"axes": (AXIS,)}, "axes must be empty where design is list, got 1; choose design product or sweep."),
        (
            {"points": ()},
            "points must be given where design is list, got none; without them there is nothing to compare.",
        ),
        ({"design": "sweep"}, "axes must be given where design is sweep, got none; add them or choose design list."),
        (
            {"design": "product", "axes": (AXIS, AXIS)},
            "axes[1].path must be of one axis alone, got network.merge, as in axes[0]; put all values on one axis.",
        ),
        (
            {"design": "product", "axes": (replace(AXIS, values=()),)},
            "axes[0].values must list at least one value, got none.",
        ),
        (
            {"design": "product", "axes": (replace(AXIS, values=("add", "concat", "add")),)},
            "axes[0].values must list each value once, got 'add' again; remove it.",
        ),
        (
            {"set": {"seed": 3}},
            "set must not change seed, which trials take from the study's own seeds; remove it.",
        ),
        (
            {"points": (replace(POINT, set={"fold": 3}),)},
            "points[0].set must not change fold, which trials take from the study's own folds; remove it.",
        ),
        (
            {"baseline": PointConfig(name="baseline", set={"name": "x"})},
            "baseline.set must not change name, which trials take from the study's own name; remove it.",
        ),
        (
            {"design": "sweep", "axes": (replace(AXIS, path="seed", values=(0, 1)),)},
            "axes[0].path must not change seed, which trials take from the study's own seeds; remove it.",
        ),
        (
            {"points": (PointConfig(name="same"),)},
            "points[0].set must change something, got nothing; the baseline is a variant already.",
        ),
        ({"folds": ()}, "folds must list at least one number, got none."),
        ({"folds": (0, -1)}, "folds[1] must be >= 0, got -1."),
        ({"seeds": (2**32,)}, "seeds[0] must be in [0, 4294967295], got 4294967296."),
        ({"seeds": (1, 1)}, "seeds must list each number once, got [1, 1]."),
        ({"schema_version": 0}, "schema_version must be in [1, 1], got 0."),
        ({"margin": 0.0}, "margin must be in (0, 1), a difference of Dice, got 0."),
        ({"margin": float("nan")}, "margin must be in (0, 1), a difference of Dice, got nan."),
        ({"launch": BackendConfig(workers=0)}, "launch.workers must be >= 1, got 0."),
        ({"launch": BackendConfig(gpus_per_trial=-0.5)}, "launch.gpus_per_trial must be >= 0, got -0.5."),
        ({"launch": BackendConfig(retries=-1)}, "launch.retries must be >= 0, got -1."),
        (
            {"launch": BackendConfig(slurm=SlurmConfig(time_minutes=0))},
            "launch.slurm.time_minutes must be >= 1, got 0.",
        ),
        (
            {"launch": BackendConfig(slurm=SlurmConfig(memory_gib=0.0))},
            "launch.slurm.memory_gib must be > 0, got 0.",
        ),
        ({"speed": SpeedConfig(rounds=2)}, "speed.rounds must be >= 3, got 2; a spread needs as many."),
        ({"notes": ("Good.", " ")}, "notes[1] must say something, got an empty text; remove it."),
        ({"speed": SpeedConfig(warmup=0)}, "speed.warmup must be >= 1, got 0; the first passes are never typical."),
    ],
)
def test_a_broken_rule_gives_one_sentence(values: dict[str, Any], sentence: str) -> None:
    assert broken(**values) == [sentence]


def test_all_problems_are_listed_together() -> None:
    assert len(broken(name="?", margin=1.0, seeds=(), points=())) == 4
