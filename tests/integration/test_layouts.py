"""Other layouts than MSD, from their files to scores, by the commands alone."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

Script = Callable[..., Any]
Array = npt.NDArray[Any]
SHAPE = (12, 14, 10)
IGNORED = 3


def case(seed: int, *, shape: tuple[int, int, int] = SHAPE) -> tuple[Array, Array]:
    """An image of a box with a corner in it, and its label map."""
    random = np.random.default_rng(seed)
    label = np.zeros(shape, dtype=np.uint8)
    x, y = random.integers(2, 5, 2)
    label[x : x + 5, y : y + 5, 1:-1] = 1
    label[x : x + 2, y : y + 2, 2:-2] = 2
    return (label * 3 + random.normal(0, 1, shape)).astype(np.float32), label


def save(path: Path, array: Array, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing_mm, 1.0])), path)


def load(path: Path) -> Array:
    return np.asarray(nib.load(path).dataobj)


def write_manifest(root: Path) -> Path:
    """Six cases of four patients; labels stored as floats, a slab of each ignored."""
    lines = ["image,label,id,patient"]
    for index, patient in enumerate("aabbcd"):
        image, label = case(index)
        label[:, :, 4] = IGNORED
        save(root / "scans" / f"{index}.nii.gz", image)
        save(root / "truth" / f"scan_{patient}_{index}.nii.gz", label.astype(np.float32))
        lines.append(f"scans/{index}.nii.gz,truth/scan_{patient}_{index}.nii.gz,scan_{patient}_{index},{patient}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    meaning = {"labels": {"background": 0, "box": 1, "corner": 2, "ignore": IGNORED}, "channel_names": ["T1"]}
    (root / "manifest.json").write_text(json.dumps(meaning))
    return root


def dice(prediction: Array, label: Array, value: int) -> float:
    known = label != IGNORED
    one, two = (prediction == value)[known], (label == value)[known]
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def test_a_manifest_with_patients_an_ignore_label_and_float_labels(
    script: Script, tiny_file: Path, tmp_path: Path
) -> None:
    root, run_dir, folders = write_manifest(tmp_path / "set"), tmp_path / "run", tmp_path / "folders"
    length = ("--training.steps", 30, "--training.validate_every", 30, "--training.ema_decay", 0.5)
    argv = ("--config", tiny_file, "--data.root", root, "--run_dir", run_dir, "--optimizer.learning_rate", 0.02)
    ended = script("train", *argv, *length)
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((run_dir / "cases.csv").open()))
    scored = {row["case_id"] for row in rows}
    patients = [{"a": 2, "b": 2}.get(patient, 1) for patient in {name.split("_")[1] for name in scored}]
    assert sum(patients) == len(scored), "a patient lies on both sides"
    assert max(float(row["dice"]) for row in rows) > 0.3  # it did learn, so what follows is no comparison of zeros
    for row in rows:
        prediction = load(run_dir / "predictions" / f"{row['case_id']}.nii.gz")
        label = load(root / "truth" / f"{row['case_id']}.nii.gz")
        expected = dice(prediction, label, {"box": 1, "corner": 2}[row["class_name"]])
        assert float(row["dice"]) == pytest.approx(expected, abs=1e-6)

    # The same scores come from the files alone, for a run directory and for two folders.
    again = script("evaluate", "--run_dir", run_dir, "--output", folders / "again")
    assert again.code == 0, again.err
    folders.mkdir(exist_ok=True)
    for name in scored:
        (folders / "labels").mkdir(exist_ok=True)
        shutil.copy(root / "truth" / f"{name}.nii.gz", folders / "labels")
    two = ("--predictions", run_dir / "predictions", "--labels", folders / "labels", "--output", folders / "two")
    meaning = ("--class_names", "box,corner", "--ignore_label", IGNORED, "--patient_pattern", "scan_(.)_")
    compared = script("evaluate", *two, *meaning)
    assert compared.code == 0, compared.err
    assert f"results: {folders / 'two'}\n" in compared.out
    own, other, third = (
        json.loads((folder / "evaluation.json").read_text()) for folder in (run_dir, folders / "again", folders / "two")
    )
    assert own == other
    assert third["mean_dice"] == own["mean_dice"]
    assert third["classes"] == own["classes"]
    # Without the meaning of 3 it is a class like any other.
    plain = script("evaluate", *two[:-1], folders / "plain")
    assert plain.code == 0, plain.err
    assert "class_3" in plain.out
    refused = script("evaluate", *two[:-1], folders / "refused", "--class_names", "box,corner")
    assert refused.code == 2
    assert sorted(re.findall(r"^error: case (\S+): label ", refused.err, re.MULTILINE)) == sorted(scored)
    assert not (folders / "refused" / "evaluation.json").exists()
    # A case without its prediction refuses all, or is left out and named where that is asked for.
    (folders / "some").mkdir()
    for name in sorted(scored)[1:]:
        shutil.copy(run_dir / "predictions" / f"{name}.nii.gz", folders / "some")
    some = ("--predictions", folders / "some", *two[2:4], *meaning, "--output", folders / "rest")
    assert script("evaluate", *some).code == 2
    rest = script("evaluate", *some, "--leave_out")
    assert rest.code == 1, rest.err
    assert f"not scored: case {sorted(scored)[0]} " in rest.out
    assert sorted(scored)[0] not in (folders / "rest" / "cases.csv").read_text()
    assert (folders / "rest" / "cases.html").exists()


def write_nnunet(root: Path, count: int = 6) -> Path:
    """Cases with two channels, the label seen in the second alone, 1.5 x 1.5 x 8 mm."""
    for index in range(count):
        image, label = case(index, shape=(24, 20, 6))
        noise = np.random.default_rng(50 + index).normal(size=image.shape).astype(np.float32)
        for channel, array in enumerate((noise, image)):
            save(root / "imagesTr" / f"scan_{index}_000{channel}.nii.gz", array, (1.5, 1.5, 8.0))
        save(root / "labelsTr" / f"scan_{index}.nii.gz", label, (1.5, 1.5, 8.0))
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "box": 1, "corner": 2},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def test_a_plan_for_thin_volumes_of_two_channels_trains(script: Script, tmp_path: Path) -> None:
    root, plan, run_dir = write_nnunet(tmp_path / "Dataset001_Thin"), tmp_path / "plan.yaml", tmp_path / "run"
    planned = script("plan", "--data.root", root, "--output", plan)
    assert (planned.code, planned.out) == (0, f"configuration: {plan}\n")
    assert "scale_axes: [0, 1]" in plan.read_text()
    # Its length alone is changed: a thousand steps take longer than a test may.
    length = ("--training.steps", 2, "--training.validate_every", 1, "--optimizer.warmup_steps", 0)
    trained = script("train", "--config", plan, "--run_dir", run_dir, "--training.progress", "false", *length)
    assert trained.code == 0, trained.err
    model = json.loads((run_dir / "model.json").read_text())
    assert (model["channel_names"], model["class_names"]) == (["T1", "T2"], ["background", "box", "corner"])
    predictions = sorted((run_dir / "predictions").iterdir())
    assert len(predictions) == json.loads((run_dir / "evaluation.json").read_text())["num_cases"]
    written = nib.load(predictions[0])
    assert written.shape == (24, 20, 6)
    np.testing.assert_allclose(written.affine, np.diag([1.5, 1.5, 8.0, 1.0]))


def test_a_folder_that_is_no_data_set_is_named_by_each_command(script: Script, tiny_file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for argv in (
        ("train", "--config", tiny_file, "--data.root", empty, "--run_dir", tmp_path / "run"),
        ("plan", "--data.root", empty),
        ("evaluate", "--run_dir", empty),
        ("evaluate", "--predictions", empty, "--labels", empty),
    ):
        ended = script(*argv)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"error: {empty}")
    assert not (tmp_path / "run").exists()


def test_values_with_gaps_train_as_those_without_and_predictions_have_them(
    script: Script, tiny_file: Path, tmp_path: Path
) -> None:
    length = ("--training.steps", 20, "--training.validate_every", 20, "--training.ema_decay", 0.5)
    runs = {}
    for name, values in (("plain", (0, 1, 2)), ("gaps", (0, 1, 4))):
        root = write_nnunet(tmp_path / name)
        for path in (root / "labelsTr").iterdir():
            save(path, np.asarray(values, np.uint8)[load(path)], (1.5, 1.5, 8.0))
        description = json.loads((root / "dataset.json").read_text())
        labels = dict(zip(("background", "box", "corner"), values, strict=True))
        (root / "dataset.json").write_text(json.dumps(description | {"labels": labels}))
        run_dir = tmp_path / f"run_{name}"
        argv = ("--config", tiny_file, "--data.root", root, "--run_dir", run_dir, "--optimizer.learning_rate", 0.02)
        ended = script("train", *argv, *length)
        assert ended.code == 0, ended.err
        scans = tmp_path / f"scans_{name}"
        ended = script("predict", "--run_dir", run_dir, "--input", root / "imagesTr", "--output", scans)
        assert ended.code == 0, ended.err
        runs[name] = (run_dir, scans)
    (plain, plain_scans), (gaps, gaps_scans) = runs["plain"], runs["gaps"]
    assert (plain / "cases.csv").read_text() == (gaps / "cases.csv").read_text()
    assert (plain / "predictions.png").read_bytes() == (gaps / "predictions.png").read_bytes()
    models = [json.loads((run_dir / "model.json").read_text()) for run_dir in (plain, gaps)]
    assert models[0]["weights_sha256"] == models[1]["weights_sha256"]
    assert [model["label_values"] for model in models] == [[[0], [1], [2]], [[0], [1], [4]]]
    found: set[int] = set()
    for one, other in ((plain / "predictions", gaps / "predictions"), (plain_scans, gaps_scans)):
        for path in one.glob("*.nii.gz"):
            indices, values = load(path), load(other / path.name)
            np.testing.assert_array_equal(np.array([0, 1, 4])[indices], values)
            found |= set(np.unique(values))
    assert 4 in found
    assert (plain_scans / "volumes.csv").read_text() == (gaps_scans / "volumes.csv").read_text()
    # Label maps that are there already are measured by their values.
    (gaps_scans / "predictions.json").unlink()
    (gaps_scans / "volumes.csv").unlink()
    argv = ("--run_dir", gaps, "--input", tmp_path / "gaps" / "imagesTr", "--output", gaps_scans, "--skip_existing")
    assert script("predict", *argv).code == 0
    assert (plain_scans / "volumes.csv").read_text() == (gaps_scans / "volumes.csv").read_text()


def test_chosen_classes_train_and_predict_alone(script: Script, tiny_file: Path, tmp_path: Path) -> None:
    length = ("--training.steps", 20, "--training.validate_every", 20, "--training.ema_decay", 0.5)
    root, plain = write_nnunet(tmp_path / "set"), write_nnunet(tmp_path / "plain")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    # The oracle has the chosen class alone in its files.
    for path in (plain / "labelsTr").iterdir():
        save(path, (load(path) == 2).astype(np.uint8), (1.5, 1.5, 8.0))
    description = json.loads((plain / "dataset.json").read_text())
    (plain / "dataset.json").write_text(json.dumps(description | {"labels": {"background": 0, "corner": 1}}))
    runs = []
    for folder, more in ((plain, ()), (root, ("--classes", "corner"))):
        argv = ("--data.root", folder, "--run_dir", tmp_path / f"run_{folder.name}", "--optimizer.learning_rate", 0.02)
        ended = script("train", "--config", tiny_file, *argv, *length, *more)
        assert ended.code == 0, ended.err
        runs.append(tmp_path / f"run_{folder.name}")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    one, two = runs
    assert (one / "cases.csv").read_text() == (two / "cases.csv").read_text()
    models = [json.loads((run_dir / "model.json").read_text()) for run_dir in runs]
    assert models[0]["weights_sha256"] == models[1]["weights_sha256"]
    assert (models[1]["class_names"], models[1]["label_values"]) == (["background", "corner"], [[0, 1], [2]])
    for path in (one / "predictions").glob("*.nii.gz"):
        np.testing.assert_array_equal(load(path) * 2, load(two / "predictions" / path.name))
    again = script("evaluate", "--run_dir", two, "--output", tmp_path / "again")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "cases.csv").read_text() == (two / "cases.csv").read_text()
    refused = script("train", "--config", tiny_file, "--data.root", root, "--classes", "liver")
    assert refused.code == 2
    assert "data.classes" in refused.err


def test_regions_are_scored_as_unions_of_their_parts(script: Script, tiny_file: Path, tmp_path: Path) -> None:
    length = ("--training.steps", 20, "--training.validate_every", 20, "--training.ema_decay", 0.5)
    root, run_dir = write_nnunet(tmp_path / "set"), tmp_path / "run"
    description = json.loads((root / "dataset.json").read_text())
    labels = {"background": 0, "whole": [1, 2], "corner": [2]}
    (root / "dataset.json").write_text(json.dumps(description | {"labels": labels, "regions_class_order": [1, 2]}))
    argv = ("--data.root", root, "--run_dir", run_dir, "--optimizer.learning_rate", 0.02)
    ended = script("train", "--config", tiny_file, *argv, *length)
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((run_dir / "cases.csv").open()))
    assert {row["class_name"] for row in rows} == {"whole", "corner"}
    for row in rows:
        prediction, label = (
            np.isin(load(folder / f"{row['case_id']}.nii.gz"), labels[row["class_name"]])
            for folder in (run_dir / "predictions", root / "labelsTr")
        )
        expected = 2 * (prediction & label).sum() / (prediction.sum() + label.sum())
        assert float(row["dice"]) == pytest.approx(expected, abs=1e-6)
    summary = json.loads((run_dir / "evaluation.json").read_text())
    means = {
        name: np.mean([float(row["dice"]) for row in rows if row["class_name"] == name])
        for name in labels
        if name != "background"
    }
    assert summary["mean_dice"] == pytest.approx(np.mean(list(means.values())))
    parts = ["background", "label_1", "corner"]
    assert json.loads((run_dir / "model.json").read_text())["class_names"] == parts
    # Post-processing is chosen for the parts, which are what is predicted, by their own Dice.
    chosen = json.loads((run_dir / "postprocessing.json").read_text())["classes"]
    pairs = [
        (load(run_dir / "predictions" / name), load(root / "labelsTr" / name))
        for name in (f"{case}.nii.gz" for case in sorted({row["case_id"] for row in rows}))
    ]
    for index, part in enumerate(chosen, start=1):
        sizes = [((a == index) & (b == index), (a == index).sum() + (b == index).sum()) for a, b in pairs]
        assert part["name"] == parts[index]
        assert part["dice"] == pytest.approx(np.mean([2 * both.sum() / size for both, size in sizes if size]))
    scans = tmp_path / "scans"
    ended = script("predict", "--run_dir", run_dir, "--input", root / "imagesTr", "--output", scans)
    assert ended.code == 0, ended.err


def convert(path: Path, ending: str) -> None:
    """Writes a NIfTI file in another format by SimpleITK, and removes it."""
    sitk: Any = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.ReadImage(path), path.with_name(path.name.replace(".nii.gz", ending)))
    path.unlink()


def test_formats_and_layouts_give_the_same_network(script: Script, tiny_file: Path, tmp_path: Path) -> None:
    plain = write_nnunet(tmp_path / "plain")
    ids = [path.name.removesuffix(".nii.gz") for path in sorted((plain / "labelsTr").iterdir())]
    roots = {"plain": plain}
    for name, ending in (("nrrd", ".nrrd"), ("mha", ".mha"), ("manifest", ".mhd"), ("version_1", ".nii.gz")):
        roots[name] = root = Path(shutil.copytree(plain, tmp_path / name))
        description = json.loads((root / "dataset.json").read_text())
        for path in sorted(root.rglob("*.nii.gz")) if ending != ".nii.gz" else ():
            convert(path, ending)
        if name == "manifest":
            (root / "dataset.json").unlink()
            lines = [f"{case},imagesTr/{case}_0000.mhd,imagesTr/{case}_0001.mhd,labelsTr/{case}.mhd" for case in ids]
            (root / "manifest.csv").write_text("\n".join(["id,image_0,image_1,label", *lines]) + "\n")
            meaning = {each: description[each] for each in ("labels", "channel_names")}
            (root / "manifest.json").write_text(json.dumps(meaning))
        elif name == "version_1":
            training = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in ids]
            old = {"modality": description["channel_names"], "training": training, "numTraining": len(ids)}
            labels = {str(value): each for each, value in description["labels"].items()}
            (root / "dataset.json").write_text(json.dumps(old | {"labels": labels}))
        else:
            (root / "dataset.json").write_text(json.dumps(description | {"file_ending": ending}))
    tables, weights = set(), set()
    for name, root in roots.items():
        run_dir = tmp_path / f"run_{name}"
        argv = ("--config", tiny_file, "--data.root", root, "--run_dir", run_dir)
        ended = script("train", *argv, "--training.steps", 2, "--training.validate_every", 2)
        assert ended.code == 0, (name, ended.err)
        tables.add((run_dir / "cases.csv").read_text())
        weights.add(json.loads((run_dir / "model.json").read_text())["weights_sha256"])
        assert (run_dir / "cases.html").exists()
    assert (len(tables), len(weights)) == (1, 1)
    # What a record says of a case changes with the voxels beside its header.
    digests = [json.loads((tmp_path / "run_manifest" / "environment.json").read_text())["data"]]
    voxels = roots["manifest"] / "imagesTr" / f"{ids[0]}_0000.raw"
    voxels.write_bytes(np.frombuffer(voxels.read_bytes(), "<f4")[::-1].tobytes())
    argv = ("--config", tiny_file, "--data.root", roots["manifest"], "--run_dir", tmp_path / "again")
    assert script("train", *argv, "--training.steps", 2, "--training.validate_every", 2).code == 0
    digests.append(json.loads((tmp_path / "again" / "environment.json").read_text())["data"])
    assert [case for case in ids if digests[0][case] != digests[1][case]] == ids[:1]


def test_labels_on_their_images_grids_and_nan_as_background(script: Script, tiny_file: Path, tmp_path: Path) -> None:
    sound, odd = write_nnunet(tmp_path / "sound"), write_nnunet(tmp_path / "odd")
    for path in (odd / "labelsTr").iterdir():  # headers that turn and move the label
        nib.save(nib.Nifti1Image(load(path), np.diag([-1.5, 1.5, 8.0, 1.0]) + np.eye(4, k=3)), path)
    for path in (odd / "imagesTr").iterdir():
        image = load(path).copy()
        lowest = image.copy()
        image[:, :3], lowest[:, :3] = np.nan, image[:, 3:].min()
        save(path, image, (1.5, 1.5, 8.0))
        save(sound / "imagesTr" / path.name, lowest, (1.5, 1.5, 8.0))
    plan = script("plan", "--data.root", odd, "--output", tmp_path / "plan.yaml")
    assert plan.code == 2
    odds = ("--data.label_grid", "image", "--data.nan", "background")
    for root, more in ((sound, ()), (odd, odds)):
        planned = script("plan", "--data.root", root, "--output", tmp_path / f"{root.name}.yaml", *more)
        assert planned.code == 0, planned.err
        argv = ("--config", tiny_file, "--data.root", root, "--run_dir", tmp_path / f"run_{root.name}")
        ended = script("train", *argv, "--training.steps", 2, "--training.validate_every", 2, *more)
        assert ended.code == 0, ended.err
        assert len(re.findall(r"^warning: case \S+ label ", ended.err, re.MULTILINE)) == (6 if more else 0)
        scans = ("--input", root / "imagesTr", "--output", tmp_path / f"scans_{root.name}")
        assert script("predict", "--run_dir", tmp_path / f"run_{root.name}", *scans).code == 0
    one, two = (tmp_path / f"run_{root.name}" for root in (sound, odd))
    assert (one / "cases.csv").read_text() == (two / "cases.csv").read_text()
    assert (one / "predictions.png").exists()
    models = [json.loads((run_dir / "model.json").read_text())["weights_sha256"] for run_dir in (one, two)]
    assert models[0] == models[1]
    for path in (tmp_path / "scans_sound").glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "scans_odd" / path.name).read_bytes()
    # Another shape cannot be taken on the image's grid; a scan of NaN alone and infinity stay faults.
    first = sorted((odd / "labelsTr").iterdir())[0]
    save(first, load(first)[1:], (1.5, 1.5, 8.0))
    for name, value in (("scan_1_0000", np.nan), ("scan_2_0001", np.inf)):
        image = load(odd / "imagesTr" / f"{name}.nii.gz").copy()
        image[:, :, 1 if np.isinf(value) else slice(None)] = value
        save(odd / "imagesTr" / f"{name}.nii.gz", image, (1.5, 1.5, 8.0))
    ended = script("train", "--config", tiny_file, "--data.root", odd, "--run_dir", tmp_path / "none", *odds)
    assert ended.code == 2
    for said in ("case scan_0 label", "case scan_1 image scan_1_0000", "case scan_2 image scan_2_0001"):
        assert said in ended.err


@pytest.mark.usefixtures("undrawn")
def test_with_more_cases_those_that_initial_weights_saw_train(script: Script, tiny_file: Path, tmp_path: Path) -> None:
    length = ("--training.steps", 2, "--training.validate_every", 2)

    def record(name: str) -> Any:
        return json.loads((tmp_path / name / "environment.json").read_text())

    def train(name: str, root: Path, *more: object) -> Any:
        argv = ("--config", tiny_file, "--data.root", root, "--run_dir", tmp_path / name)
        return script("train", *argv, *length, "--data.folds", 3, *more)

    few, many = write_nnunet(tmp_path / "few"), write_nnunet(tmp_path / "many", 12)
    assert train("first", few).code == 0
    first = record("first")["split"]
    # Drawn without a thought of the weights, a case that they saw would be held out.
    assert train("plain", many).code == 0
    assert set(record("plain")["split"]["validation"]) & set(first["train"])
    init = ("--init_from", tmp_path / "first")
    ended = train("second", many, *init)
    assert ended.code == 0, ended.err
    assert "folds are drawn anew" in ended.err
    second = record("second")["split"]
    assert set(first["train"]) <= set(second["train"])
    assert set(first["validation"]) <= set(second["validation"])
    assert sorted(second["train"] + second["validation"]) == sorted(f"scan_{index}" for index in range(12))
    assert not json.loads((tmp_path / "second" / "evaluation.json").read_text())["seen"]
    # The record holds when the run is resumed, also without the initial weights, and scored again.
    assert train("second", many, "--resume").code == 0
    scored = script("evaluate", "--run_dir", tmp_path / "second", "--output", tmp_path / "again")
    assert scored.code == 0, scored.err
    assert (tmp_path / "again" / "cases.csv").read_text() == (tmp_path / "second" / "cases.csv").read_text()
    # Folds that are asked for together hold out each unseen case once at most, and no seen one.
    assert train("all", many, *init, "--fold", "0,1").code == 0
    sides = [record(f"all/fold_{fold}")["split"]["validation"] for fold in (0, 1)]
    assert not set(sides[0]) & set(sides[1])
    assert not (set(sides[0]) | set(sides[1])) & set(first["train"])
    # What is stated stays, and is refused.
    listed = [{"train": record("plain")["split"]["train"], "val": record("plain")["split"]["validation"]}]
    (many / "splits_final.json").write_text(json.dumps(listed))
    assert train("stated", many, *init).code == 2
    (many / "splits_final.json").unlink()
    # Without an unseen case for a fold there is nothing to draw.
    assert train("none", few, *init, "--fold", 1).code == 2
