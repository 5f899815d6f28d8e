"""A plan of measurements runs to its end on a processor, saves each section and repeats none."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch

from seg.benchmark import plan
from seg.benchmark.plan import Plan, best_layout, make_plan, run_plan, seconds_to
from seg.benchmark.subjects import Subject
from seg.errors import RunError

CPU = torch.device("cpu")
SHAPE = (2, (8, 8, 8))
SECTIONS = ["bf16_outputs", "ceilings", "networks", "compiled", "augmentation", "training"]
TINY = Plan(shapes=(SHAPE,), compiled=(SHAPE,), stages=(2, 3, 4), seconds=inf, training=None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ROUNDS", 1)
    monkeypatch.setattr(plan, "WARMUP", 0)
    monkeypatch.setattr(torch, "compile", lambda network: network)  # which takes a compiler and minutes


def test_all_sections_are_measured_and_saved(subject: Subject, tmp_path: Path) -> None:
    own = replace(
        subject.config,
        training=replace(subject.config.training, steps=2, validate_every=1),
        optimizer=replace(subject.config.optimizer, warmup_steps=0),
    )
    found = run_plan(replace(TINY, training=own), CPU, tmp_path / "plan.json")
    saved = json.loads((tmp_path / "plan.json").read_text())
    assert saved == {"schema_version": 1, **json.loads(json.dumps(found))}
    assert (list(saved["sections"]), saved["not_measured"]) == (SECTIONS, {})
    sections = {name: entry["rows"] for name, entry in saved["sections"].items()}
    eager = [(row["name"], row["memory_format"]) for row in sections["networks"]]
    names = ["plain", "decoder_1", "decoder_1-2", "dynunet"]
    assert eager == [(name, layout) for name in names for layout in ("channels_last_3d", "contiguous")]
    assert [row["name"] for row in sections["compiled"]] == ["plain", "decoder_1"]
    assert len({row["memory_format"] for row in sections["compiled"]}) == 1
    for row in sections["networks"] + sections["compiled"]:
        assert 0 < row["forward_ms"]["median"] < row["training_step_ms"]["median"]
    assert all(row["largest_difference"] < 0.1 and row["equal_labels"] > 0.8 for row in sections["bf16_outputs"])
    assert sections["training"]["steps"] == 2
    assert sections["training"]["memory_format"] == best_layout(sections["networks"])
    assert sections["training"]["precision"] == "fp32"


def test_a_section_that_fails_is_named_and_alone_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "plan.json"

    def fail(device: torch.device, shape: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as broken:
        broken.setattr(plan, "_augmentation", fail)
        found = run_plan(TINY, CPU, output)
    assert found["not_measured"]["augmentation"] == "RuntimeError: no memory"
    assert set(found["not_measured"]) == {"augmentation", "training"}  # there is no data set
    for name in ("_bf16_outputs", "_ceilings", "_times"):
        monkeypatch.setattr(plan, name, fail)
    again = run_plan(TINY, CPU, output)
    assert set(again["not_measured"]) == {"training"}
    assert again["sections"]["networks"] == json.loads(json.dumps(found["sections"]["networks"]))


def test_a_record_is_trained_from_three_seeds(subject: Subject, tmp_path: Path) -> None:
    own = replace(
        subject.config,
        training=replace(subject.config.training, steps=2, validate_every=1),
        optimizer=replace(subject.config.optimizer, warmup_steps=0),
    )
    found = run_plan(make_plan("record", own), CPU, tmp_path / "record.json")
    assert found["not_measured"] == {}
    assert list(found["sections"]) == ["seed_0", "seed_1", "seed_2"]
    scores = {entry["rows"]["val_dice"] for entry in found["sections"].values()}
    assert len(scores) == 3
    assert set(found["sections"]["seed_1"]["rows"]["seconds_to"]) == {"0.88", "0.889"}
    assert set(run_plan(make_plan("record", None), CPU, tmp_path / "none.json")["not_measured"]) == set(
        found["sections"]
    )


def test_no_section_begins_once_the_time_is_up(tmp_path: Path) -> None:
    found = run_plan(replace(TINY, seconds=-1.0), CPU, tmp_path / "plan.json")
    assert found["not_measured"] == dict.fromkeys(SECTIONS, "the time was up")
    assert found["sections"] == {}


def test_another_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"other": 1}')
    with pytest.raises(RunError):
        run_plan(TINY, CPU, tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == {"other": 1}


def test_the_layout_is_the_one_whose_steps_take_least_time_and_never_one_that_failed() -> None:
    def row(layout: str, ms: float | None) -> dict[str, object]:
        step = {} if ms is None else {"training_step_ms": {"median": ms}}
        return {"name": "decoder_1", "memory_format": layout, **step}

    last, plain = "channels_last_3d", "contiguous"
    assert best_layout([row(last, 3), row(plain, 2), row(last, 1), row(plain, 1)]) == plain
    assert best_layout([row(last, 3), row(plain, None)]) == last


def test_seconds_to_a_dice_are_those_of_the_first_validation_that_has_it(tmp_path: Path) -> None:
    rows = ["step,seconds,val_dice", "1,10.0,0.87", "2,20.0,0.8805", "3,30.0,0.879", "4,40.0,0.8889"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    found = seconds_to(tmp_path)
    assert found["seconds_to"] == {"0.88": 20.0, "0.889": None}
    assert (found["steps"], found["training_s"], found["val_dice"]) == (4, 40.0, 0.8889)
    with pytest.raises(RunError):
        seconds_to(tmp_path / "nothing")


def test_the_plan_of_a_gpu_has_the_shapes_of_the_hippocampus_and_of_large_volumes() -> None:
    gpu = make_plan("gpu", None)
    assert set(gpu.compiled) <= set(gpu.shapes)
    assert {size for _, size in gpu.shapes} == {(40, 56, 40), (128, 128, 128)}
    assert gpu.seconds <= 600
