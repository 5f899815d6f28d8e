"""Whole commands within this process."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from seg.config import PostprocessingConfig
from seg.errors import RunError
from seg.inference import pipeline as line
from seg.inference.predictor import load_predictor, predict_case
from seg.runs import read_runs
from seg.workflows.predict import predict


def arguments(run_dirs, input_path, output, **values):
    run_dirs = run_dirs if isinstance(run_dirs, tuple) else (run_dirs,)
    return {"run_dirs": run_dirs, "input": input_path, "output": output, "device": "cpu", **values}


def manifest(folder):
    return json.loads((folder / "predictions.json").read_text())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def test_a_folder_gives_a_folder_and_a_manifest(make_run, scans, tmp_path, capsys):
    run_dir, out = make_run(), tmp_path / "out"
    assert predict(**arguments(run_dir, scans, out)) == 0
    assert names(out) == ["predictions.json", "scan_0.nii.gz", "scan_1.nii.gz", "scan_2.nii.gz"]
    content = manifest(out)
    assert content["schema_version"] == 1
    assert "not for clinical use" in content["notice"]
    assert content["complete"] is True
    (model,) = content["models"]
    assert (model["name"], model["run"], len(model["weights_sha256"])) == ("tiny", "run", 64)
    assert content["environment"]["precision"] == "fp32"
    assert content["environment"]["packages"]["torch"]
    stages = {"read", "prepare", "network", "resample", "write"}
    assert set(content["seconds"]) == stages | {"start_up", "first_file", "total"}
    predictor = load_predictor(read_runs([run_dir]), device="cpu", tta=False, probabilities=False)
    for number, case in enumerate(content["cases"]):
        assert (case["output"], case["status"]) == (f"scan_{number}.nii.gz", "done")
        assert case["models"] == [model["weights_sha256"]]
        assert set(case["seconds"]) == stages
        labels = voxels(out / case["output"])
        np.testing.assert_array_equal(labels, predict_case(predictor, [scans / case["output"]]).labels)
        volumes = {"left": np.sum(labels == 1) * 0.003, "right": np.sum(labels == 2) * 0.003}
        assert case["volumes_ml"] == pytest.approx(volumes, abs=1e-6)
    assert sum(sum(case["volumes_ml"].values()) for case in content["cases"]) > 0
    printed = capsys.readouterr().out
    assert printed.startswith("predicted 3, failed 0, skipped 0 of 3 cases\nstage ")
    assert printed.endswith(f"manifest: {out / 'predictions.json'}\n")


def test_a_case_that_cannot_be_read_costs_itself_alone(make_run, scans, tmp_path, caplog):
    (scans / "scan_1.nii.gz").write_bytes((scans / "scan_1.nii.gz").read_bytes()[:300])
    out = tmp_path / "out"
    assert predict(**arguments(make_run(), scans, out)) == 1
    assert names(out) == ["predictions.json", "scan_0.nii.gz", "scan_2.nii.gz"]
    bad = manifest(out)["cases"][1]
    assert (bad["output"], bad["status"], bad["volumes_ml"]) == ("scan_1.nii.gz", "failed", {})
    assert bad["problems"][0].startswith(f"{scans / 'scan_1.nii.gz'} is truncated or damaged")
    assert f"case scan_1: {scans / 'scan_1.nii.gz'} is truncated" in caplog.text
    assert predict(**arguments(make_run("b"), scans / "scan_1.nii.gz", tmp_path / "x.nii.gz")) == 2
    assert not (tmp_path / "x.nii.gz").exists()


@pytest.mark.parametrize("step", ["load_case", "segment_case", "write_labels"])
def test_any_fault_in_a_step_costs_its_case_alone(make_run, scans, tmp_path, monkeypatch, caplog, step):
    real, calls = getattr(line, step), []

    def fail_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("out of\nluck")
        return real(*args)

    monkeypatch.setattr(line, step, fail_second)
    assert predict(**arguments(make_run(), scans, tmp_path / "out")) == 1
    assert names(tmp_path / "out") == ["predictions.json", "scan_0.nii.gz", "scan_2.nii.gz"]
    assert (
        f"{scans / 'scan_1.nii.gz'}: must be an image that can be segmented, got 'RuntimeError: out of'" in caplog.text
    )


def test_what_is_there_is_kept_unless_told_otherwise(make_run, scans, tmp_path, write_scan):
    run_dir, out = make_run(), tmp_path / "out"
    mine = write_scan(out / "scan_1.nii.gz", seed=9)
    before = mine.read_bytes()
    with pytest.raises(RunError) as caught:
        predict(**arguments(run_dir, scans, out))
    assert str(caught.value).startswith(f"{out / 'scan_1.nii.gz'}: must be new, got an existing file, one of 1; ")
    assert names(out) == ["scan_1.nii.gz"]
    assert predict(**arguments(run_dir, scans, out, existing="skip")) == 0
    assert mine.read_bytes() == before
    assert [case["status"] for case in manifest(out)["cases"]] == ["done", "skipped", "done"]
    assert predict(**arguments(run_dir, scans, out, existing="overwrite")) == 0
    assert voxels(out / "scan_1.nii.gz").shape == (12, 10, 9)
    write_scan(scans / "scan_9.nii.gz")
    before = manifest(out)["cases"]
    assert predict(**arguments(run_dir, scans, out, existing="skip")) == 0
    assert [case for case in manifest(out)["cases"] if case["output"] != "scan_9.nii.gz"] == before
    assert predict(**arguments(run_dir, scans, out, existing="skip")) == 0


@pytest.mark.parametrize("damage", [lambda whole: whole[:60], lambda whole: whole[:-9], lambda whole: b""])
def test_a_result_that_is_not_whole_is_not_skipped(make_run, scans, tmp_path, caplog, damage):
    run_dir, out = make_run(), tmp_path / "out"
    values = {"probabilities": True, "existing": "skip"}
    predict(**arguments(run_dir, scans, out, **values))
    files = [out / "scan_1.nii.gz", out / "probabilities" / "scan_2.nii.gz"]
    whole = [path.read_bytes() for path in files]
    for path, content in zip(files, whole, strict=True):
        path.write_bytes(damage(content))
    assert predict(**arguments(run_dir, scans, out, **values)) == 0
    assert [path.read_bytes() for path in files] == whole
    announced = [text for text in caplog.messages if "predicted anew" in text]
    assert announced == [f"{path}: the file is truncated or damaged; the case is predicted anew" for path in files]
    caplog.clear()
    assert predict(**arguments(run_dir, scans, out, **values)) == 0
    assert "predicted anew" not in caplog.text


def test_probabilities_that_are_there_are_kept_too(make_run, scans, tmp_path):
    mine = tmp_path / "out" / "probabilities" / "scan_2.nii.gz"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(RunError, match=r"scan_2\.nii\.gz: must be new, got an existing file, one of 1; add"):
        predict(**arguments(make_run(), scans, tmp_path / "out", probabilities=True))
    assert mine.read_text() == "mine"


def test_models_are_not_mixed_in_a_folder_unknowingly(make_run, scans, tmp_path, write_scan):
    out = tmp_path / "out"
    predict(**arguments(make_run(), scans, out))
    write_scan(scans / "scan_9.nii.gz")
    with pytest.raises(RunError) as caught:
        predict(**arguments(make_run("other", seed=1), scans, out, existing="skip"))
    assert str(caught.value).startswith(f"{out}: label maps of one folder must come from one model, got 3 by another")
    predict(**arguments(tmp_path / "other", scans / "scan_9.nii.gz", out / "scan_9.nii.gz"))
    content = manifest(out)
    assert [model["run"] for model in content["models"]] == ["run", "other"]
    digests = [model["weights_sha256"] for model in content["models"]]
    assert [case["models"] for case in content["cases"]] == [digests[:1]] * 3 + [digests[1:]]


def test_probabilities_choose_the_labels(make_run, scans, tmp_path):
    out = tmp_path / "out"
    predict(**arguments((make_run("a"), make_run("b", seed=1)), scans, out, probabilities=True))
    for number in range(3):
        maps = nib.load(out / "probabilities" / f"scan_{number}.nii.gz")
        values = maps.get_fdata()
        assert maps.get_data_dtype() == np.float32
        np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(values.argmax(-1), voxels(out / f"scan_{number}.nii.gz"))
        np.testing.assert_array_equal(maps.affine, nib.load(scans / f"scan_{number}.nii.gz").affine)
    # Of an ensemble they are the mean of those of its members.
    single = []
    for name in ("a", "b"):
        predict(**arguments(tmp_path / name, scans, tmp_path / f"out_{name}", probabilities=True))
        single.append(nib.load(tmp_path / f"out_{name}" / "probabilities" / "scan_0.nii.gz").get_fdata())
    mean = nib.load(out / "probabilities" / "scan_0.nii.gz").get_fdata()
    np.testing.assert_allclose(mean, (single[0] + single[1]) / 2, atol=1e-5)


def test_clean_up_is_that_of_the_configuration(make_run, tiny_config, scans, tmp_path):
    config = replace(tiny_config, postprocessing=PostprocessingConfig(min_volume_ml=(1000.0,)))
    assert predict(**arguments(make_run(config=config), scans, tmp_path / "out")) == 0
    case = manifest(tmp_path / "out")["cases"][0]
    assert case["volumes_ml"] == {"left": 0, "right": 0}
    assert any(text.startswith("clean-up removed ") for text in case["warnings"])
    assert not voxels(tmp_path / "out" / "scan_0.nii.gz").any()


@pytest.mark.parametrize("content", ["[]", "{", '{"schema_version": 1, "cases": [1], "models": []}'])
def test_another_file_of_the_manifests_name_is_left_alone(make_run, scans, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.json").write_text(content)
    with pytest.raises(RunError, match="remove or rename it"):
        predict(**arguments(make_run(), scans, tmp_path / "out", existing="skip"))
    assert (tmp_path / "out" / "predictions.json").read_text() == content
