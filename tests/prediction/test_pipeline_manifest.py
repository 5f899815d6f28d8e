"""When the manifest of a run is written, and what it says of what was there before and of how labels were made."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from seg.config import AugmentationConfig, PostprocessingConfig, SpatialConfig
from seg.errors import RunError
from seg.workflows import predict as command
from seg.workflows.predict import predict
from tests.prediction.test_pipeline import arguments, manifest, names


def test_a_manifest_that_cannot_be_written_again_does_not_stop_the_cases(make_run, scans, tmp_path, monkeypatch):
    write, calls = command.write_manifest, []

    def fail(*args, **values):
        calls.append(args)
        if len(calls) > 1:
            raise RunError("disk full")
        write(*args, **values)

    monkeypatch.setattr(command, "write_manifest", fail)
    monkeypatch.setattr(command, "SAVE_SECONDS", 0.0)
    with pytest.raises(RunError, match="disk full"):
        predict(**arguments(make_run(), scans, tmp_path / "out"))
    assert names(tmp_path / "out") == ["predictions.json", "scan_0.nii.gz", "scan_1.nii.gz", "scan_2.nii.gz"]


def test_the_manifest_names_the_networks_before_the_first_label_map(make_run, scans, tmp_path, monkeypatch):
    written = []

    def write(path, header, records, seconds, *, complete):
        written.append((names(path.parent) if path.parent.is_dir() else [], len(header.models), complete))

    monkeypatch.setattr(command, "write_manifest", write)
    predict(**arguments(make_run(), scans, tmp_path / "out"))
    assert written[0] == ([], 1, False)


def test_label_maps_that_no_manifest_names_get_their_volumes(make_run, scans, tmp_path, caplog):
    run_dir, out = make_run(), tmp_path / "out"
    predict(**arguments(run_dir, scans, out))
    expected = {case["output"]: case["volumes_ml"] for case in manifest(out)["cases"]}
    assert sum(sum(volumes.values()) for volumes in expected.values()) > 0
    (out / "predictions.json").unlink()
    (out / "scan_2.nii.gz").unlink()
    predict(**arguments(run_dir, scans, out, existing="skip"))
    cases = manifest(out)["cases"]
    assert {case["output"]: case["volumes_ml"] for case in cases} == expected
    assert [(case["status"], len(case["models"]), case["tta"]) for case in cases] == [
        ("skipped", 0, None),
        ("skipped", 0, None),
        ("done", 1, False),
    ]
    assert (
        f"2 label map(s) were there before and no manifest says what made them, {out / 'scan_0.nii.gz'} first; their "
        "volumes are those of the files"
    ) in caplog.messages


def test_a_file_that_is_no_label_map_has_no_volumes_and_says_why(make_run, scans, tmp_path, caplog):
    out = tmp_path / "out"
    out.mkdir()
    nib.save(nib.Nifti1Image(np.full((3, 4, 5), 7, np.uint8), np.eye(4)), out / "scan_1.nii.gz")
    assert predict(**arguments(make_run(), scans, out, existing="skip")) == 0
    case = manifest(out)["cases"][1]
    assert (case["output"], case["volumes_ml"]) == ("scan_1.nii.gz", {})
    (warning,) = case["warnings"]
    assert warning.startswith(
        f"volumes are not known: {out / 'scan_1.nii.gz'}: labels must be integers from 0 to 2, got 7"
    )
    assert f"case scan_1: {warning}" in caplog.messages


def test_a_run_that_was_killed_behind_its_last_case_is_completed(make_run, scans, tmp_path, caplog):
    run_dir, out = make_run(), tmp_path / "out"
    predict(**arguments(run_dir, scans, out))
    whole = manifest(out)
    (out / "predictions.json").write_text(json.dumps(whole | {"complete": False, "cases": whole["cases"][:1]}))
    predict(**arguments(run_dir, scans, out, existing="skip"))
    content = manifest(out)
    assert content["complete"] is True
    made_by = [(case["volumes_ml"], case["models"], case["precision"]) for case in content["cases"]]
    assert made_by == [(case["volumes_ml"], case["models"], case["precision"]) for case in whole["cases"]]
    assert "no manifest says" not in caplog.text
    before = (out / "predictions.json").read_bytes()
    predict(**arguments(run_dir, scans, out, existing="skip"))
    assert (out / "predictions.json").read_bytes() == before


def mirroring(config, *axes):
    return replace(config, augmentation=AugmentationConfig(spatial=SpatialConfig(mirror_axes=axes)))


def test_settings_are_not_mixed_in_a_folder_unknowingly(make_run, tiny_config, scans, tmp_path, write_scan):
    run_dir, out = make_run(config=mirroring(tiny_config, 0)), tmp_path / "out"
    predict(**arguments(run_dir, scans, out))
    write_scan(scans / "scan_9.nii.gz")
    with pytest.raises(RunError) as caught:
        predict(**arguments(run_dir, scans, out, existing="skip", tta=True))
    assert str(caught.value) == (
        f"{out}: label maps of one folder must be made alike, got tta false of 3, scan_0.nii.gz first, and true of "
        "this command; choose the same, or another --output, or replace them with --overwrite."
    )
    assert "scan_9.nii.gz" not in names(out)
    predict(**arguments(run_dir, scans, out, existing="overwrite", tta=True))
    assert [case["tta"] for case in manifest(out)["cases"]] == [True] * 4


def test_what_was_really_done_is_recorded(make_run, tiny_config, scans, tmp_path):
    rules = PostprocessingConfig(largest_component=("right",), min_volume_ml=(0.0, 0.002))
    run_dir = make_run(config=replace(tiny_config, postprocessing=rules))
    predict(**arguments(run_dir, scans, tmp_path / "out", tta=True))
    content = manifest(tmp_path / "out")
    assert content["warnings"] == [
        "--tta changes nothing: training mirrored along no axis (augmentation.spatial.mirror_axes)."
    ]
    clean_up = {"right": {"largest_component": True, "min_volume_ml": 0.002}}
    for case in content["cases"]:
        assert (case["tta"], case["precision"], case["clean_up"]) == (False, "fp32", clean_up)


def test_networks_that_mirror_along_no_axis_are_named(make_run, tiny_config, scans, tmp_path):
    first, second = make_run("a", config=mirroring(tiny_config, 1)), make_run("b", seed=1)
    predict(**arguments((first, second), scans, tmp_path / "out", tta=True))
    content = manifest(tmp_path / "out")
    assert content["warnings"] == [
        f"--tta changes nothing for {second}: training mirrored along no axis (augmentation.spatial.mirror_axes)."
    ]
    assert content["cases"][0]["tta"] is True
