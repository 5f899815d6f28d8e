from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seg.errors import RunError
from seg.inference.cases import Record
from seg.workflows.manifest import Header, StoredManifest, read_manifest, write_manifest

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


def test_commands_side_by_side_lose_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    names = [f"{half}{number}" for half in "xy" for number in range(40)]

    def command(half: str) -> None:
        for name in names:
            if name.startswith(half):
                write(path, A, Record(output=name, status="done"))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(command, "xy"))
    assert sorted(case["output"] for case in json.loads(path.read_text())["cases"]) == sorted(names)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.json"]


def others(path: Path, outputs: list[str], *models: dict[str, str], **settings: object) -> dict[str, list[str]]:
    made_by = {"models": [model["weights_sha256"] for model in models], **settings}
    return StoredManifest.read(path).made_differently(outputs, made_by)


def test_others_are_those_that_are_known_to_be(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    assert others(path, ["x"], A) == {}
    write(path, A, Record(output="x", status="done"), Record(output="y", status="skipped"))
    assert others(path, ["x", "y", "z"], A) == {}
    assert others(path, ["x", "y", "z"], B) == {"models": ["x"]}
    assert others(path, ["x"], A, B) == {"models": ["x"]}


def test_the_order_of_networks_makes_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    header = Header(models=[B, A], settings={}, environment={})
    write_manifest(path, header, [Record(output="x", status="done")], {}, complete=True)
    assert others(path, ["x"], A, B) == {}


def test_other_settings_are_named_as_far_as_they_are_known(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    rules = {"tumour": {"largest_component": True, "min_volume_ml": 0.5}}
    header = Header(models=[A], settings={"tta": False, "precision": "bf16", "clean_up": rules}, environment={})
    write_manifest(path, header, [Record(output="x", status="done")], {}, complete=True)
    same: dict[str, object] = {"tta": False, "precision": "bf16", "clean_up": rules}
    assert others(path, ["x", "y"], A, **same) == {}
    for name, value in (("tta", True), ("precision", "fp32"), ("clean_up", {})):
        assert others(path, ["x", "y"], A, **{**same, name: value}) == {name: ["x"]}
    # StoredManifest releases wrote neither precision nor clean-up.
    content = json.loads(path.read_text())
    del content["cases"][0]["precision"], content["cases"][0]["clean_up"], content["latest"]
    path.write_text(json.dumps(content))
    assert others(path, ["x"], A, **{**same, "precision": "fp32"}) == {}
    assert others(path, ["x"], A, **{**same, "tta": True}) == {"tta": ["x"]}


def test_nothing_made_what_failed_and_nobody_knows_what_made_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write(path, A, Record(output="x", status="failed"), Record(output="y", status="skipped", volumes_ml={"a": 1.0}))
    for entry in json.loads(path.read_text())["cases"]:
        assert (entry["models"], entry["tta"]) == ([], None)
    assert others(path, ["x", "y"], B) == {}
    earlier = StoredManifest.read(path)
    assert [earlier.describes(output) for output in "xyz"] == [False, True, False]


def test_a_newer_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write(path, A)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    with pytest.raises(RunError) as caught:
        read_manifest(path)
    assert [problem.kind for problem in caught.value.problems] == ["version"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"cases": 5}, "cases"),
        ({"cases": [{"output": "a"}]}, "cases[0].models"),
        ({"cases": [{"output": 1, "models": []}]}, "cases[0].output"),
        ({"cases": [{"output": "a", "models": [[]]}]}, "cases[0].models[0]"),
        ({"models": [{}]}, "models[0].weights_sha256"),
        ({"latest": {"models": [1]}}, "latest.models[0]"),
        ({"complete": {}}, "complete"),
    ],
)
def test_a_manifest_that_breaks_its_schema_is_named(tmp_path: Path, change: dict[str, object], place: str) -> None:
    path = tmp_path / "predictions.json"
    write(path, A)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError) as caught:
        read_manifest(path)
    assert [problem.path for problem in caught.value.problems] == [f"{path}: {place}"]


def test_what_a_killed_run_left_is_of_the_networks_and_settings_that_it_had(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write(path, B, Record(output="of_b", status="done"))
    header = Header(models=[A], settings={"tta": True}, environment={})
    write_manifest(path, header, [Record(output="foreign", status="skipped")], {}, complete=False)
    assert others(path, ["unnamed", "foreign"], A, tta=True) == {}
    assert others(path, ["unnamed", "foreign"], B) == {"models": ["unnamed"]}
    assert others(path, ["unnamed", "foreign"], A, tta=False) == {"tta": ["unnamed"]}
    skipped = Record(output="unnamed", status="skipped", volumes_ml={"tumour": 1.0})
    write_manifest(path, header, [skipped], {}, complete=True)
    entry = json.loads(path.read_text())["cases"][-1]
    assert (entry["output"], entry["models"], entry["tta"]) == ("unnamed", ["a" * 64], True)
    assert others(path, ["another"], B) == {}
