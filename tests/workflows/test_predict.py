"""Whole predictions within this process: label maps, manifest, faults, and what is kept of earlier commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from seg.config import AugmentationConfig, ExperimentConfig, PostprocessingConfig, SpatialConfig
from seg.errors import Problem, RunError
from seg.files import read_table
from seg.inference import pipeline
from seg.inference.choice import Choice, ClassChoice, write_choice
from seg.inference.predictor import load_predictor, predict_case
from seg.runs import read_runs
from seg.workflows import predict as command
from seg.workflows.predict import predict

Make = Callable[..., Path]


def run(run_dirs: Path | tuple[Path, ...], input_path: Path, output: Path, **values: Any) -> int:
    several = run_dirs if isinstance(run_dirs, tuple) else (run_dirs,)
    return predict(run_dirs=several, input=input_path, output=output, device="cpu", **values)


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "predictions.json").read_text())
    return content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def voxels(path: Path) -> npt.NDArray[Any]:
    return np.asarray(nib.load(path).dataobj)


def refused(*args: Any, **values: Any) -> tuple[str, str]:
    with pytest.raises(RunError) as caught:
        run(*args, **values)
    (problem,) = caught.value.problems
    return problem.path, problem.kind


def test_a_folder_gives_a_folder_and_a_manifest(
    make_run: Make, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, out = make_run(), tmp_path / "out"
    assert run(run_dir, scans, out) == 0
    assert names(out) == ["predictions.json", "scan_0.nii.gz", "scan_1.nii.gz", "scan_2.nii.gz", "volumes.csv"]
    content = manifest(out)
    assert (content["schema_version"], content["complete"]) == (1, True)
    assert "not for clinical use" in content["notice"]
    (model,) = content["models"]
    assert (model["name"], model["run"], len(model["weights_sha256"])) == ("tiny", "run", 64)
    assert content["environment"]["precision"] == "fp32"
    stages = {"read", "prepare", "network", "resample", "write"}
    assert set(content["seconds"]) == stages | {"start_up", "first_file", "total"}
    predictor = load_predictor(read_runs([run_dir]), device="cpu", tta=False, probabilities=False)
    for number, case in enumerate(content["cases"]):
        assert (case["output"], case["status"]) == (f"scan_{number}.nii.gz", "done")
        assert (case["models"], set(case["seconds"])) == ([model["weights_sha256"]], stages)
        labels = voxels(out / case["output"])
        np.testing.assert_array_equal(labels, predict_case(predictor, [scans / case["output"]]).labels)
        volumes = {"left": np.sum(labels == 1) * 0.003, "right": np.sum(labels == 2) * 0.003}
        assert case["volumes_ml"] == pytest.approx(volumes, abs=1e-6)
    assert sum(sum(case["volumes_ml"].values()) for case in content["cases"]) > 0
    printed = capsys.readouterr().out
    assert re.findall(r"\d+", printed.splitlines()[0]) == ["3", "0", "0", "3"]  # done, failed, skipped, all
    assert printed.endswith(f"manifest: {out / 'predictions.json'}\n")


def test_a_case_that_cannot_be_read_costs_itself_alone(
    make_run: Make, scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, out = scans / "scan_1.nii.gz", tmp_path / "out"
    bad.write_bytes(bad.read_bytes()[:300])
    assert run(make_run(), scans, out) == 1
    assert names(out) == ["predictions.json", "scan_0.nii.gz", "scan_2.nii.gz", "volumes.csv"]
    entry = manifest(out)["cases"][1]
    assert (entry["output"], entry["status"], entry["volumes_ml"]) == ("scan_1.nii.gz", "failed", {})
    (problem,) = entry["problems"]
    assert problem["path"].startswith(str(bad))
    assert problem.keys() >= {"kind", "rule", "value", "remedy"}
    assert f"case scan_1: {bad}" in caplog.text
    assert run(make_run("b"), bad, tmp_path / "x.nii.gz") == 2
    assert not (tmp_path / "x.nii.gz").exists()


@pytest.mark.parametrize("step", ["load_case", "segment_case", "write_labels"])
def test_any_fault_in_a_step_costs_its_case_alone(
    make_run: Make,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    real, calls = getattr(pipeline, step), []

    def fail_second(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("out of\nluck")
        return real(*args)

    monkeypatch.setattr(pipeline, step, fail_second)
    assert run(make_run(), scans, tmp_path / "out") == 1
    assert names(tmp_path / "out") == ["predictions.json", "scan_0.nii.gz", "scan_2.nii.gz", "volumes.csv"]
    assert f"case scan_1: {scans / 'scan_1.nii.gz'}" in caplog.text
    assert "'RuntimeError: out of'" in caplog.text


def test_what_is_there_is_kept_unless_told_otherwise(
    make_run: Make, scans: Path, tmp_path: Path, write_scan: Make, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir, out = make_run(), tmp_path / "out"
    mine, map_of = out / "scan_1.nii.gz", out / "probabilities" / "scan_2.nii.gz"
    out.mkdir()
    nib.save(nib.Nifti1Image(np.full((3, 4, 5), 7, np.uint8), np.eye(4)), mine)
    before = mine.read_bytes()
    assert refused(run_dir, scans, out) == (str(mine), "exists")
    assert names(out) == ["scan_1.nii.gz"]
    assert run(run_dir, scans, out, existing="skip") == 0
    assert mine.read_bytes() == before
    cases = manifest(out)["cases"]
    assert [(case["status"], len(case["models"]), case["tta"]) for case in cases] == [
        ("done", 1, False),
        ("skipped", 0, None),
        ("done", 1, False),
    ]
    (warning,) = cases[1]["warnings"]  # it is no label map of these classes, so its volumes are not known
    assert f"case scan_1: {warning}" in caplog.messages
    assert run(run_dir, scans, out, existing="overwrite") == 0
    assert voxels(mine).shape == (12, 10, 9)
    write_scan(scans / "scan_9.nii.gz")
    done = manifest(out)["cases"]
    for _ in range(2):
        assert run(run_dir, scans, out, existing="skip") == 0
        assert [case for case in manifest(out)["cases"] if case["output"] != "scan_9.nii.gz"] == done
    for path in out.glob("*.nii.gz"):
        path.unlink()
    map_of.parent.mkdir()
    map_of.write_text("mine")
    assert refused(run_dir, scans, out, probabilities=True) == (str(map_of), "exists")
    assert map_of.read_text() == "mine"


@pytest.mark.parametrize("end", [60, -9, 0])
def test_a_result_that_is_not_whole_is_not_skipped(
    make_run: Make, scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, end: int
) -> None:
    run_dir, out = make_run(), tmp_path / "out"
    files = [out / "scan_1.nii.gz", out / "probabilities" / "scan_2.nii.gz"]
    run(run_dir, scans, out, probabilities=True)
    whole = [path.read_bytes() for path in files]
    for path, content in zip(files, whole, strict=True):
        path.write_bytes(content[:end])
    for announced in (files, []):
        caplog.clear()
        assert run(run_dir, scans, out, probabilities=True, existing="skip") == 0
        assert [path.read_bytes() for path in files] == whole
        damaged = [text for text in caplog.messages if "damaged" in text]
        assert [text.split(": ")[0] for text in damaged] == [str(path) for path in announced]


def mirroring(config: ExperimentConfig, *axes: int) -> ExperimentConfig:
    return replace(config, augmentation=AugmentationConfig(spatial=SpatialConfig(mirror_axes=axes)))


def test_models_and_settings_are_not_mixed_in_a_folder_unknowingly(
    make_run: Make, tiny_config: ExperimentConfig, scans: Path, tmp_path: Path, write_scan: Make
) -> None:
    run_dir, other = make_run(config=mirroring(tiny_config, 0)), make_run("other", seed=1)
    out, new = tmp_path / "out", scans / "scan_9.nii.gz"
    run(run_dir, scans, out)
    write_scan(new)
    assert refused(other, scans, out, existing="skip") == (str(out), "models")
    assert refused(run_dir, scans, out, existing="skip", tta=True) == (str(out), "tta")
    assert "scan_9.nii.gz" not in names(out)
    run(other, new, out / "scan_9.nii.gz")
    content = manifest(out)
    assert [model["run"] for model in content["models"]] == ["run", "other"]
    digests = [model["weights_sha256"] for model in content["models"]]
    assert [case["models"] for case in content["cases"]] == [digests[:1]] * 3 + [digests[1:]]
    run(run_dir, scans, out, existing="overwrite", tta=True)
    assert [case["tta"] for case in manifest(out)["cases"]] == [True] * 4


def test_probabilities_choose_the_labels(make_run: Make, scans: Path, tmp_path: Path) -> None:
    runs = {"a": make_run("a"), "b": make_run("b", seed=1)}
    found = {}
    for name, run_dirs in ({"both": tuple(runs.values())} | runs).items():
        out = tmp_path / f"out_{name}"
        run(run_dirs, scans, out, probabilities=True)
        maps = nib.load(out / "probabilities" / "scan_0.nii.gz")
        values = found[name] = maps.get_fdata()
        assert maps.get_data_dtype() == np.float32
        np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(values.argmax(-1), voxels(out / "scan_0.nii.gz"))
        np.testing.assert_array_equal(maps.affine, nib.load(scans / "scan_0.nii.gz").affine)
    # Of an ensemble they are the mean of those of its members.
    np.testing.assert_allclose(found["both"], (found["a"] + found["b"]) / 2, atol=1e-5)


def test_what_was_really_done_is_recorded(
    make_run: Make, tiny_config: ExperimentConfig, scans: Path, tmp_path: Path
) -> None:
    rules = PostprocessingConfig(largest_component=("right",), min_volume_ml=(0.0, 1000.0))
    run_dir, out = make_run(config=replace(tiny_config, postprocessing=rules)), tmp_path / "out"
    run(run_dir, scans, out, tta=True)
    content = manifest(out)
    (warning,) = content["warnings"]
    assert warning.startswith("--tta changes nothing")
    clean_up = {"right": {"largest_component": True, "min_volume_ml": 1000.0}}
    for case in content["cases"]:
        assert (case["tta"], case["precision"], case["clean_up"]) == (False, "fp32", clean_up)
        assert case["volumes_ml"]["right"] == 0
        assert case["warnings"][0].startswith("clean-up removed ")
        assert 2 not in voxels(out / case["output"])


def test_a_folder_of_label_maps_has_a_table_of_their_volumes(make_run: Make, scans: Path, tmp_path: Path) -> None:
    run_dir, out = make_run(), tmp_path / "out"
    run(run_dir, scans / "scan_0.nii.gz", out)
    run(run_dir, scans, out, existing="skip")  # keeps the rows that are there
    rows = read_table(out / "volumes.csv", remedy="")
    assert list(rows[0]) == ["scan", "path", "class", "ml"]
    found = {(row["scan"], row["path"], row["class"]): float(row["ml"]) for row in rows}
    assert len(rows) == len(found) == 3 * 2
    for number in range(3):
        labels = voxels(out / f"scan_{number}.nii.gz")
        for index, name in enumerate(("left", "right"), start=1):
            expected = np.count_nonzero(labels == index) * 1.0 * 2.0 * 1.5 / 1000
            assert found[f"scan_{number}", f"scan_{number}.nii.gz", name] == pytest.approx(expected, abs=1e-6)
    run(run_dir, scans / "scan_0.nii.gz", tmp_path / "one" / "label.nii.gz")
    assert names(tmp_path / "one") == ["label.nii.gz", "predictions.json"]
    (out / "volumes.csv").write_text("patient,age\n")  # of somebody else
    assert refused(run_dir, scans, out, existing="overwrite") == (str(out / "volumes.csv"), "exists")


def test_clean_up_that_was_chosen_on_held_out_cases_is_recorded_as_such(
    make_run: Make, scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir, out = make_run(), tmp_path / "out"
    (model,) = (one.description()["weights_sha256"] for one in read_runs([run_dir]))
    classes = tuple(
        ClassChoice(name=name, largest_component=name == "right", dice=0.5, dice_largest=0.6, changed_cases=1)
        for name in ("left", "right")
    )
    write_choice(run_dir, Choice(models=(model,), cases=2, patients=2, classes=classes))
    with caplog.at_level("INFO"):
        run(run_dir, scans, out)
    assert ("right", "postprocessing.json") in [record.args for record in caplog.records]
    clean_up = {"right": {"largest_component": True, "min_volume_ml": 0.0, "chosen_by": "postprocessing.json"}}
    for case in manifest(out)["cases"]:
        assert case["clean_up"] == clean_up
        assert ndimage.label(voxels(out / case["output"]) == 2, np.ones((3, 3, 3)))[1] == 1


@pytest.mark.parametrize("content", ["[]", "{", '{"schema_version": 1, "cases": [1], "models": []}'])
def test_another_file_of_the_manifests_name_is_left_alone(
    make_run: Make, scans: Path, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "out" / "predictions.json"
    path.parent.mkdir()
    path.write_text(content)
    assert refused(make_run(), scans, tmp_path / "out", existing="skip")[0].startswith(str(path))
    assert path.read_text() == content


def test_the_manifest_is_written_before_the_first_label_map_and_stops_no_case(
    make_run: Make, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, out = command.write_manifest, tmp_path / "out"
    there: list[list[str]] = []

    def write(*args: Any, **values: Any) -> None:
        there.append(names(out) if out.is_dir() else [])
        if len(there) > 1:
            raise RunError(Problem("disk", "no_room", "must have room"))
        real(*args, **values)

    monkeypatch.setattr(command, "write_manifest", write)
    monkeypatch.setattr(command, "SAVE_SECONDS", 0.0)
    with pytest.raises(RunError, match="must have room"):
        run(make_run(), scans, out)
    assert there[0] == []
    assert (manifest(out)["complete"], len(manifest(out)["models"])) == (False, 1)
    assert names(out) == ["predictions.json", "scan_0.nii.gz", "scan_1.nii.gz", "scan_2.nii.gz", "volumes.csv"]


def test_label_maps_that_no_manifest_names_get_their_volumes(
    make_run: Make, scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir, out = make_run(), tmp_path / "out"
    run(run_dir, scans, out)
    whole = manifest(out)
    # A command that was killed behind its last case names what made its label maps; no manifest names nothing.
    (out / "predictions.json").write_text(json.dumps(whole | {"complete": False, "cases": whole["cases"][:1]}))
    run(run_dir, scans, out, existing="skip")
    content = manifest(out)
    assert content["complete"] is True
    for name in ("volumes_ml", "models", "precision"):
        assert [case[name] for case in content["cases"]] == [case[name] for case in whole["cases"]]
    assert caplog.messages == []
    before = (out / "predictions.json").read_bytes()
    run(run_dir, scans, out, existing="skip")
    assert (out / "predictions.json").read_bytes() == before
    (out / "predictions.json").unlink()
    run(run_dir, scans, out, existing="skip")
    cases = manifest(out)["cases"]
    assert [case["volumes_ml"] for case in cases] == [case["volumes_ml"] for case in whole["cases"]]
    assert [(case["status"], case["models"], case["tta"]) for case in cases] == [("skipped", [], None)] * 3
    assert [text.split(" ")[0] for text in caplog.messages] == ["3"]


def test_where_nothing_can_be_exported_auto_takes_torch_and_says_so(
    make_run: Make, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime", reason="an engine to choose from")
    (tmp_path / "file").write_text("where the cache should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    predict(run_dirs=[make_run("run")], input=scans, output=tmp_path / "maps", engine="auto")
    manifest = json.loads((tmp_path / "maps" / "predictions.json").read_text())
    assert manifest["latest"]["engine"] == "torch"
    assert any(record.levelname == "WARNING" and "engine: torch" in record.message for record in caplog.records)
