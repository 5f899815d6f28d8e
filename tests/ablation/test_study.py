"""From a study's file to variants and trials: designs, names, rules and pairing."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seg.ablation.study import NO_OVERRIDES, choose_variants, plan_study, point_names, unequal_fields
from seg.config import AxisConfig, BottleneckConfig, dump_config, load_config
from seg.config.study import NAME
from seg.errors import ConfigError
from seg.runs import Origin, check_run, open_run

ROOT = Path(__file__).parents[2]
BASE = """
seed: 5
data: {root: data/boxes}
network:
  skip_bottleneck: {ratio: 0.25, activation: relu}
training: {steps: 20, validate_every: 10}
optimizer: {warmup_steps: 0}
"""
NULL = {"name": "full", "set": {"network.skip_bottleneck": None, "network.decoder_bottleneck": None}}
SKIP = {"path": "network.skip_bottleneck.ratio", "label": "skip", "values": [0.5, 0.25]}
MERGE = {"path": "network.merge", "label": "merge", "values": ["concat", "add"]}
Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Gives a function that writes a study beside its base and returns its path."""

    def write(base: str = BASE, **fields: Any) -> Path:
        (tmp_path / "base.yaml").write_text(base)
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"name": "widths", "base": "base.yaml", "baseline": NULL, **fields}))
        return path

    return write


def problems_of(path: Path, overrides: Mapping[str, object] = NO_OVERRIDES) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        plan_study(path, overrides)
    return [(problem.path, problem.kind, problem.value) for problem in caught.value.problems]


def names(path: Path) -> list[str]:
    return [variant.name for variant in plan_study(path).variants]


def test_a_product_is_every_combination_and_meets_the_baseline_once(write: Writer) -> None:
    study = plan_study(write(design="product", axes=[SKIP | {"values": [0.5, 0.25, 2.0]}, MERGE], points=[]))
    found = {(variant.config.network.skip_bottleneck, variant.config.network.merge) for variant in study.variants[1:]}
    ratios, merges = (0.5, 0.25, 2.0), ("concat", "add")
    assert found == {(BottleneckConfig(ratio=ratio), merge) for ratio, merge in itertools.product(ratios, merges)}
    assert len(study.variants) == 1 + 3 * 2
    with_null = SKIP | {"path": "network.skip_bottleneck", "values": [None, {"ratio": 0.5}]}
    assert names(write(design="product", axes=[with_null, MERGE])) == [
        "full",
        "skip_none_merge_add",
        "skip_1-2_merge_concat",
        "skip_1-2_merge_add",
    ]


def test_a_sweep_moves_one_axis_at_a_time(write: Writer) -> None:
    study = plan_study(
        write(design="sweep", axes=[SKIP, MERGE], points=[{"name": "x", "set": {"network.residual": True}}])
    )
    assert [variant.name for variant in study.variants] == ["full", "skip_1-2", "skip_1-4", "merge_add", "x"]
    for variant in study.variants[1:]:
        changed = [
            field.name
            for field in dataclasses.fields(variant.config.network)
            if getattr(variant.config.network, field.name) != getattr(study.baseline.config.network, field.name)
        ]
        assert len(changed) == 1
    assert [dict(variant.changes) for variant in study.variants[:2]] == [{}, {"network.skip_bottleneck.ratio": 0.5}]


def test_changes_lie_over_each_other_as_files_do(write: Writer) -> None:
    points = [
        {"name": "whole", "set": {"network.skip_bottleneck": {"ratio": 0.5}}},
        {"name": "inside", "set": {"network.skip_bottleneck.norm": True}},
        {"name": "listed", "set": {"network.skip_bottleneck.ratio": [0.5, 0.25, 0.125]}},
    ]
    from_null = plan_study(write(points=points))
    # The baseline took the block of the base away, and with it the base's activation.
    assert [variant.config.network.skip_bottleneck for variant in from_null.variants] == [
        None,
        BottleneckConfig(ratio=0.5),
        BottleneckConfig(norm=True),
        BottleneckConfig(ratio=(0.5, 0.25, 0.125)),
    ]
    from_block = plan_study(write(points=points, baseline={"name": "narrow"}, set={"training.steps": 30}))
    assert from_block.variants[1].config.network.skip_bottleneck == BottleneckConfig(ratio=0.5, activation="relu")
    assert {variant.config.training.steps for variant in from_block.variants} == {30}


def test_trials_are_whole_for_the_first_seed_first(write: Writer) -> None:
    study = plan_study(write(design="sweep", axes=[MERGE], folds=[0, 3], seeds=[1, 2]))
    assert [trial.id for trial in study.trials] == [
        f"{name}.fold_{fold}.seed_{seed}" for seed in (1, 2) for fold in (0, 3) for name in ("full", "merge_add")
    ]
    trial = study.trials[-1]
    config = trial.config
    assert (config.name, config.fold, config.seed, config.training.progress) == ("widths", 3, 2, False)
    same = dataclasses.replace(config, fold=0, seed=5, training=dataclasses.replace(config.training, progress=True))
    assert same == trial.variant.config
    assert dataclasses.replace(load_config([write().parent / "base.yaml"]), network=same.network, name="widths") == same


def test_some_variants_alone(write: Writer) -> None:
    study = plan_study(write(design="sweep", axes=[SKIP, MERGE], seeds=[0]))
    chosen = choose_variants(study, ["merge_add", "full"])
    assert [trial.id for trial in chosen.trials] == ["full.fold_0.seed_0", "merge_add.fold_0.seed_0"]
    assert chosen.planned == study.trials
    assert choose_variants(study, []) == study
    with pytest.raises(ConfigError) as caught:
        choose_variants(study, ["merge_ad", "zzz"])
    assert [(problem.path, problem.kind, problem.value, problem.remedy) for problem in caught.value.problems] == [
        ("--only", "unknown", "merge_ad", "did you mean merge_add?"),
        ("--only", "unknown", "zzz", f"there are {', '.join(variant.name for variant in study.variants)}"),
    ]


def test_the_command_repeats_the_study_and_names_no_machine(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(design="sweep", axes=[MERGE])
    overrides = {"seeds": "[0, 1]", "set.data.root": "/home/me", "launch.workers": "2", "set.training.steps": "40"}
    ending = "--seeds '[0, 1]' --set training.steps=40"
    assert plan_study(path, overrides).command == f"seg ablate --config study.yaml {ending}"
    monkeypatch.chdir(path.parent.parent)
    command = plan_study(path, overrides).command
    assert command == f"seg ablate --config {path.parent.name}/study.yaml {ending}"
    assert plan_study(path, overrides).baseline.config.data.root == "/home/me"
    overrides = {"set.training.init_from": "/home/me/runs/first"}
    assert plan_study(path, overrides).command.endswith("--set training.init_from=first")


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("data.split_seed", 1, "1 beside 0"),
        ("data.root", "/elsewhere", "'/elsewhere' beside '{folder}/data/boxes'"),
        ("data.folds", 3, "3 beside 5"),
        ("data.patient_pattern", "(a)", "'(a)' beside null"),
        ("training.score_seen", True, "true beside false"),
        ("evaluation.nsd_tolerance_mm", 2.0, "2.0 beside 1.0"),
    ],
)
def test_a_variant_that_breaks_the_pairing_is_refused(write: Writer, path: str, value: object, shown: str) -> None:
    file = write(points=[{"name": "odd", "set": {path: value}}])
    ((where, kind, found),) = problems_of(file)
    assert (where, kind) == (f"points[0] (odd): {path}", "pairing")
    wanted = shown.format(folder=file.parent)
    assert found == wanted or (found.endswith("...") and wanted.startswith(found[:-3]))  # a long path is cut


@pytest.mark.parametrize(
    "path", ["loss.ce_weight", "optimizer.learning_rate", "training.ema_decay", "inference.overlap"]
)
def test_fields_that_leave_the_pairing_alone_may_vary(write: Writer, path: str) -> None:
    assert names(write(points=[{"name": "other", "set": {path: 0.125}}])) == ["full", "other"]


@pytest.mark.parametrize(
    ("path", "value", "unequal"),
    [
        ("augmentation.spatial.probability", 0.5, ("augmentation.spatial.probability",)),
        ("augmentation.spatial", {"probability": 0.5, "shift": [1, 1, 1]}, None),
        ("patches", {"size": [16, 16, 16], "batch": 4}, ("patches.size", "patches.batch")),
        ("training.steps", 40, ("training.steps",)),
        ("data.train_cases", 10, ("data.train_cases",)),
        ("training.init_from", "runs/x", ("training.init_from",)),
        ("optimizer.learning_rate", 0.125, ()),
    ],
)
def test_what_else_a_variant_changes_is_known_as_unequal(
    write: Writer, path: str, value: object, unequal: tuple[str, ...] | None
) -> None:
    baseline, other = plan_study(write(points=[{"name": "other", "set": {path: value}}])).variants
    expected = ("augmentation.spatial.probability", "augmentation.spatial.shift") if unequal is None else unequal
    assert unequal_fields(other.config, baseline.config) == expected
    axis = {"path": path, "label": "other", "values": [value]}
    (_, varied) = plan_study(write(design="sweep", axes=[axis])).variants
    assert varied.config == other.config


def test_the_rules_of_experiments_hold_for_every_point_and_each_problem_is_said_once(write: Writer) -> None:
    path = write(
        set={"training.step": 4},
        design="product",
        axes=[SKIP | {"values": [0.5, 0.0]}, {"path": "network.merg", "label": "merge", "values": ["add", "concat"]}],
        points=[
            {"name": "a", "set": {"network.channels": [8, 16]}},
            {"name": "b", "set": {"network.skip_bottleneck": {"ratoi": 1}}},
        ],
        seeds=[],
    )
    assert problems_of(path) == [
        ("seeds", "empty", "none"),
        ("set: training.step", "unknown", ""),
        ("axes[0]: network.skip_bottleneck.ratio", "range", "0"),
        ("axes[1]: network.merg", "unknown", ""),
        ("points[0] (a): network.strides", "length", "4"),
        ("points[0] (a): network.kernel_sizes", "length", "4"),
        ("points[1] (b): network.skip_bottleneck.ratoi", "unknown", ""),
    ]


def test_a_base_that_cannot_be_used_is_said_once(write: Writer) -> None:
    path = write(base="fold: -1\n", points=[{"name": "a", "set": {"network.merge": "add"}}])
    assert problems_of(path) == [("fold", "range", "-1")]
    absent = path.parent / "none.yaml"
    path.write_text(path.read_text().replace("base.yaml", "none.yaml"))
    assert problems_of(path) == [(f"base: {absent}", "missing", "'No such file or directory'")]


@pytest.mark.parametrize("given", [None, {"ratio": 1.0}])
def test_a_change_for_all_that_the_baseline_undoes_is_refused(write: Writer, given: object) -> None:
    baseline = {"name": "full", "set": {"network.skip_bottleneck": given}}
    path = write(baseline=baseline, design="sweep", axes=[SKIP])
    overrides = {"set.network.skip_bottleneck.ratio": "0.125", "set.network.residual": "true"}
    assert problems_of(path, overrides) == [("set.network.skip_bottleneck.ratio", "conflict", "")]


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("network.skip_bottleneck.ratio", ["axes[0]"]),
        ("network.skip_bottleneck", ["axes[0]"]),
        ("network.decoder_bottleneck.ratio", ["points[0] (wide)"]),
        ("network.decoder_bottleneck.norm", []),
        ("network.residual", []),
    ],
)
def test_a_change_for_all_that_some_variants_undo_is_announced(
    write: Writer, path: str, places: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    points = [{"name": "wide", "set": {"network.decoder_bottleneck": {"ratio": 2.0}}}]
    study = write(baseline={"name": "own"}, design="sweep", axes=[SKIP], points=points)
    values = {"network.skip_bottleneck": "{ratio: 0.125}", "network.skip_bottleneck.ratio": "0.125"}
    values["network.decoder_bottleneck.ratio"] = "0.125"
    plan_study(study, {f"set.{path}": values.get(path, "true"), "seeds": "[0, 1, 2]"})
    assert [record.args for record in caplog.records] == [(path, ", ".join(places)) for _ in places]


def test_variants_that_are_alike_are_refused(write: Writer) -> None:
    points = [
        {"name": "same", "set": {"network.skip_bottleneck": None}},
        {"name": "half", "set": {"network.skip_bottleneck.ratio": 0.5}},
        {"name": "merge_add", "set": {"network.residual": True}},
    ]
    assert problems_of(write(design="sweep", axes=[SKIP, MERGE], points=points)) == [
        ("points[0] (same)", "twin", "an equal configuration"),
        ("points[1] (half)", "twin", "an equal configuration"),
        ("points[2] (merge_add)", "repeated", "'merge_add' again"),
    ]


def test_an_early_stop_is_refused(write: Writer) -> None:
    assert problems_of(write(design="sweep", axes=[MERGE], set={"training.early_stop": 3})) == [
        ("training.early_stop", "conflict", "3")
    ]


def test_scores_of_cases_that_initial_weights_saw_are_refused(write: Writer) -> None:
    path = write(design="sweep", axes=[MERGE], set={"training.score_seen": True})
    assert problems_of(path) == [("training.score_seen", "conflict", "true")]


def test_a_run_made_by_hand_from_the_same_fields_is_that_of_the_trial(tmp_path: Path) -> None:
    study = plan_study(ROOT / "configs" / "ablation" / "bottleneck.yaml")
    by_hand = tmp_path / "both.yaml"
    by_hand.write_text(
        "name: bottleneck\nseed: 2\nnetwork: {skip_bottleneck: {ratio: 0.25}, decoder_bottleneck: {ratio: 0.25}}\n"
        "training: {steps: 700, validate_every: 140}\ndata: {root: elsewhere}\n"
    )
    config = load_config([ROOT / "configs" / "hippocampus.yaml", by_hand])
    origin = Origin(computed_with={}, data={"case": "digest"})
    open_run(config, tmp_path / "run", origin)
    (tmp_path / "run" / "config.yaml").write_text(dump_config(config))
    trial = next(trial for trial in study.trials if trial.id == "both_1-4.fold_0.seed_2")
    check_run(trial.config, tmp_path / "run", origin, resume=True)


def test_contrasts_name_two_variants_of_the_study(write: Writer) -> None:
    points = [{"name": "half", "set": {"network.skip_bottleneck.ratio": 0.5}}]
    good = write(points=points, contrasts=[{"variant": "half", "against": "full"}])
    assert [(one.variant, one.against) for one in plan_study(good).config.contrasts] == [("half", "full")]
    bad = write(
        points=points, contrasts=[{"variant": "halb", "against": "full"}, {"variant": "half", "against": "half"}]
    )
    assert problems_of(bad) == [
        ("contrasts[0].variant", "unknown", "halb"),
        ("contrasts[1]", "repeated", "half twice"),
    ]
    points = [{"name": "half", "set": {"network.skip_bottleneck.ratio": 0}}]
    faulty = write(points=points, contrasts=[{"variant": "half", "against": "full"}])
    assert [place for place, *_ in problems_of(faulty)] == ["points[0] (half): network.skip_bottleneck.ratio"]


def test_a_study_of_older_code_still_loads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "base.yaml").write_text("seed: 0\n")
    points = [{"name": "narrow", "set": {"network.channels": [4, 8, 16, 32]}}]
    study = {"name": "old", "base": "base.yaml", "reuse": "any_code", "points": points}
    study |= {"launch": {"backend": "process", "workers": 3}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    planned = plan_study(tmp_path / "study.yaml")
    assert len(planned.trials) == 6
    assert (planned.config.launch.backend, planned.config.launch.workers) == ("workers", 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def named(*values: Any) -> list[str]:
    return [name.removeprefix("a_") for name in point_names(AxisConfig(path="p", label="a", values=values))]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 1.0, 2.0, 0.5, 1 / 3, 0.0625, 0.3, 1.5), ["1", "1", "2", "1-2", "1-3", "1-16", "0.3", "1.5"]),
        ((0.0, -0.5, 1e-05, 16), ["0", "-0.5", "1-100000", "16"]),
        ((None, True, "add", [16, 32], [0.5, 0.25]), ["none", "true", "add", "16x32", "1-2x1-4"]),
        (("Leaky ReLU/2",), ["leaky-relu-2"]),
        # Of groups only what differs is named.
        ((None, {"ratio": 0.5, "norm": True}, {"ratio": 0.25, "norm": True}), ["none", "1-2", "1-4"]),
        (({"ratio": 0.5, "norm": True},), ["1-2xtrue"]),
        (({"ratio": 0.5}, {"ratio": 0.5, "norm": True}), ["1-2", "true"]),
    ],
)
def test_points_are_named_by_their_values(values: tuple[Any, ...], expected: list[str]) -> None:
    assert named(*values) == expected


@given(st.floats(0.01, 4) | st.integers(0, 99) | st.booleans() | st.text(max_size=5) | st.lists(st.floats(0.01, 4)))
def test_every_name_is_a_folder(value: Any) -> None:
    assert all(re.fullmatch(NAME, f"a_{name}") for name in named(value))


@pytest.mark.parametrize(("seeds", "folds", "said"), [([0, 1], [0], 1), ([0], [0, 1], 1), ([0, 1], [0, 1], 0)])
def test_too_few_runs_to_show_anything_are_said(
    write: Writer, caplog: pytest.LogCaptureFixture, seeds: list[int], folds: list[int], said: int
) -> None:
    plan_study(write(design="sweep", axes=[MERGE], seeds=seeds, folds=folds))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * said
    assert all(message.startswith("2 runs of each variant: fewer than 3 ") for message in caplog.messages)


def test_a_study_lies_in_the_folder_of_its_experiment(write: Writer) -> None:
    path = write(
        base=BASE.replace("validate_every: 10", "validate_every: 10, runs_dir: results"),
        points=[{"name": "x", "set": {"network.residual": True}}],
    )
    expected = path.parent / "results" / "ablation" / "widths"
    study = plan_study(path)
    assert study.default_directory == expected
    elsewhere = plan_study(path, {"set.training.runs_dir": "other"})
    assert elsewhere.default_directory == Path("other/ablation/widths")
    assert elsewhere.command == study.command
