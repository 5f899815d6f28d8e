from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from seg.errors import RunError
from seg.files import read_table
from seg.inference.cases import Record
from seg.workflows.manifest import Provenance, StoredManifest, write_manifest

A, B = ({"name": name, "run": name, "weights_sha256": name * 64} for name in "ab")
RULES = {"tumour": {"largest_component": True, "min_volume_ml": 0.5}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "predictions.json"


def write(path: Path, *models: dict[str, str], complete: bool = True, settings: Any = None, **status: str) -> None:
    """Writes a manifest of cases by their status."""
    records = [
        Record(output=name, status=one, volumes_ml={} if one == "failed" else {"tumour": 1.23456789})
        for name, one in status.items()
    ]
    header = Provenance(models=models, settings=settings or {"tta": False}, environment={"device": "x"})
    write_manifest(path, header, records, {"total": 1.23456}, complete=complete)


def others(path: Path, outputs: str, *models: dict[str, str], **settings: object) -> dict[str, list[str]]:
    made_by = {"models": [model["weights_sha256"] for model in models], **settings}
    return StoredManifest.read(path).made_differently(list(outputs), made_by)


def change(path: Path, **content: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


def test_entries_are_kept_until_they_are_replaced(path: Path) -> None:
    write(path, A, x="done", y="done")
    write(path, B, y="done", x="skipped")
    content = json.loads(path.read_text())
    assert [(case["output"], case["status"], case["models"]) for case in content["cases"]] == [
        ("x", "done", ["a" * 64]),
        ("y", "done", ["b" * 64]),
    ]
    assert content["cases"][0]["volumes_ml"] == {"tumour": 1.234568}
    assert content["models"] == [A, B]
    assert content["seconds"] == {"total": 1.2346}
    write(path, B, x="failed")
    assert json.loads(path.read_text())["models"] == [B]


def test_names_that_a_spreadsheet_would_run_are_escaped_in_the_table_alone(path: Path) -> None:
    classes = {"=1+1": 1.5, "'@x": 0.25, "plain": 0.0}
    record = Record(output="-scan.nii.gz", status="done", volumes_ml=classes)
    header = Provenance(models=[A], settings={"tta": False}, environment={"device": "x"})
    write_manifest(path, header, [record], {"total": 1.0}, complete=True, table=True)
    table = path.with_name("volumes.csv")
    rows = read_table(table, escaped=True, remedy="")
    assert [(row["scan"], row["path"], row["class"], float(row["ml"])) for row in rows] == [
        ("-scan", "-scan.nii.gz", name, volume) for name, volume in classes.items()
    ]
    assert json.loads(path.read_text())["cases"][0]["volumes_ml"] == classes
    cells = [cell for row in read_table(table, remedy="") for cell in row.values()]
    assert not any(cell.startswith(tuple("=+-@")) for cell in cells)


def test_commands_side_by_side_lose_no_entry(path: Path) -> None:
    def command(half: str) -> None:
        for number in range(40):
            write(path, A, **{f"{half}{number}": "done"})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(command, "xy"))
    assert len(json.loads(path.read_text())["cases"]) == 80
    assert [file.name for file in path.parent.iterdir()] == ["predictions.json"]


def test_others_are_those_that_are_known_to_be(path: Path) -> None:
    assert others(path, "x", A) == {}
    write(path, B, A, x="done", y="skipped")
    assert others(path, "xyz", A, B) == {}  # in any order
    assert others(path, "xyz", B) == {"models": ["x"]}
    write(path, A, x="failed", y="skipped")
    for entry in json.loads(path.read_text())["cases"]:
        assert (entry["models"], entry["tta"]) == ([], None)
    assert others(path, "xy", B) == {}
    assert [StoredManifest.read(path).describes(output) for output in "xyz"] == [False, True, False]


def test_other_settings_are_named_as_far_as_they_are_known(path: Path) -> None:
    same: dict[str, Any] = {"tta": False, "precision": "bf16", "clean_up": RULES}
    write(path, A, settings=same, x="done")
    assert others(path, "xy", A, **same) == {}
    for name, value in (("tta", True), ("precision", "fp32"), ("clean_up", {})):
        assert others(path, "xy", A, **{**same, name: value}) == {name: ["x"]}
    # Earlier releases wrote neither precision nor clean-up.
    content = json.loads(path.read_text())
    del content["cases"][0]["precision"], content["cases"][0]["clean_up"], content["latest"]
    path.write_text(json.dumps(content))
    assert others(path, "x", A, **{**same, "precision": "fp32"}) == {}
    assert others(path, "x", A, **{**same, "tta": True}) == {"tta": ["x"]}


def test_what_a_killed_run_left_is_of_the_networks_and_settings_that_it_had(path: Path) -> None:
    write(path, B, b="done")
    write(path, A, complete=False, settings={"tta": True}, f="skipped")
    assert others(path, "uf", A, tta=True) == {}
    assert others(path, "uf", B) == {"models": ["u"]}
    assert others(path, "uf", A, tta=False) == {"tta": ["u"]}
    write(path, A, settings={"tta": True}, u="skipped")
    entry = json.loads(path.read_text())["cases"][-1]
    assert (entry["output"], entry["models"], entry["tta"]) == ("u", ["a" * 64], True)
    assert others(path, "n", B) == {}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"cases": 5}, "cases"),
        ({"cases": [{"output": "a"}]}, "cases[0].models"),
        ({"cases": [{"output": 1, "models": []}]}, "cases[0].output"),
        ({"cases": [{"output": "a", "models": [[]]}]}, "cases[0].models[0]"),
        ({"models": [{}]}, "models[0].weights_sha256"),
        ({"latest": {"models": [1]}}, "latest.models[0]"),
        ({"complete": {}}, "complete"),
    ],
)
def test_a_manifest_that_breaks_its_schema_is_named(path: Path, content: dict[str, object], place: str) -> None:
    write(path, A)
    change(path, **content)
    with pytest.raises(RunError) as caught:
        StoredManifest.read(path)
    assert [problem.path for problem in caught.value.problems] == [f"{path}: {place}"]
