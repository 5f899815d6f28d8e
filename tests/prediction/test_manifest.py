from __future__ import annotations

import json
from pathlib import Path

import pytest

from seg.errors import RunError
from seg.prediction.manifest import Header, Record, made_by_others, read_manifest, write_manifest

A, B = ({"name": name, "run": name, "weights_sha256": name * 64} for name in "ab")


def write(path: Path, model: dict[str, str], *records: Record) -> None:
    header = Header(models=[model], settings={"tta": False}, environment={"device": "x"})
    write_manifest(path, header, records, {"total": 1.23456}, complete=True)


def test_entries_are_kept_until_they_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write(
        path, A, Record(output="x", status="done", volumes_ml={"tumour": 1.23456789}), Record(output="y", status="done")
    )
    write(path, B, Record(output="y", status="done"), Record(output="x", status="skipped"))
    content = json.loads(path.read_text())
    assert [(case["output"], case["status"], case["models"]) for case in content["cases"]] == [
        ("x", "done", ["a" * 64]),
        ("y", "done", ["b" * 64]),
    ]
    assert content["cases"][0]["volumes_ml"] == {"tumour": 1.234568}
    assert content["models"] == [A, B]
    assert content["seconds"] == {"total": 1.2346}
    write(path, B, Record(output="x", status="failed", problems=("x: broken.",)))
    assert json.loads(path.read_text())["models"] == [B]


def test_others_are_those_that_are_known_to_be(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    assert made_by_others(path, ["x"], [A]) == []
    write(path, A, Record(output="x", status="done"), Record(output="y", status="skipped"))
    assert made_by_others(path, ["x", "y", "z"], [A]) == []
    assert made_by_others(path, ["x", "y", "z"], [B]) == ["x"]
    assert made_by_others(path, ["x"], [A, B]) == ["x"]


def test_a_newer_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write(path, A)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    with pytest.raises(RunError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"{path}: schema version must be at most 1, got 2; update seg."


def test_what_a_killed_run_left_is_of_the_networks_that_its_manifest_names(tmp_path):
    path = tmp_path / "predictions.json"
    header = Header(models=[A], settings={}, environment={})
    write_manifest(path, header, [], {}, complete=False)
    assert made_by_others(path, ["unnamed"], [A]) == []
    assert made_by_others(path, ["unnamed"], [B]) == ["unnamed"]
    write_manifest(path, header, [], {}, complete=True)
    assert made_by_others(path, ["unnamed"], [B]) == []
