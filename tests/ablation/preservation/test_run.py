"""A whole measurement of a small run against the same figures computed with everything in memory."""

import json
import logging
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.ablation.preservation.run import measure_preservation
from seg.config import (
    BottleneckConfig,
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PatchConfig,
    TrainingConfig,
    dump_config,
)
from seg.data.datasets import read_dataset
from seg.errors import DataError, RunError
from seg.networks import network_from_config
from seg.runs import CONFIG_FILE, save_weights

SHAPE = (12, 14, 10)
NARROW = BottleneckConfig(ratio=0.5, activation="relu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six cases of noise around a box, of three patients, with an ignored slab."""
    root = tmp_path_factory.mktemp("data") / "tiny"
    cases = []
    for index in range(6):
        rng = np.random.default_rng(index)
        label = np.zeros(SHAPE, dtype=np.uint8)
        label[2:8, 3:9, 2:8] = 1
        image = (label * 3 + rng.normal(0, 1, SHAPE)).astype(np.float32)
        name = f"p{index // 2}_{index}"
        for folder, array in (("imagesTr", image), ("labelsTr", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"{name}.nii.gz")
        cases.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    labels = {"0": "background", "1": "box"}
    description = {"name": "tiny", "modality": {"0": "MRI"}, "labels": labels, "numTraining": 6, "training": cases}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.fixture
def make_run(tmp_path, root):
    """Gives the function that leaves a run with drawn weights."""

    def make(size=(16, 16, 16), skip=NARROW, decoder=None):
        config = ExperimentConfig(
            name="tiny",
            data=DataConfig(root=str(root), folds=3, patient_pattern="(p[0-9])_.*"),
            patches=PatchConfig(size=size),
            network=NetworkConfig(
                channels=(4, 8),
                strides=((1, 1, 1), (2, 2, 2)),
                kernel_sizes=((3, 3, 3), (3, 3, 3)),
                skip_bottleneck=skip,
                decoder_bottleneck=decoder,
            ),
            training=TrainingConfig(progress=False, device="cpu"),
        )
        torch.manual_seed(0)
        network = network_from_config(config.network, 1, 2).eval()
        save_weights(network, tmp_path, channel_names=("MRI",), class_names=("background", "box"))
        (tmp_path / CONFIG_FILE).write_text(dump_config(config))
        return tmp_path, network, config

    return make


def ids(root, *patients):
    dataset = read_dataset(root, patient_pattern="(p[0-9])_.*")
    return dataset, [case.id for case in dataset.cases if case.patient in patients]


def in_memory(network, root, names):
    """Features of the skip of all cases: the volume padded by hand to one window, and the padding cut off again."""
    wide, narrow = [], []
    for name in names:
        image = nib.load(root / "imagesTr" / f"{name}.nii.gz").get_fdata(dtype=np.float32)
        image = (image - image.mean()) / image.std()
        before = [(16 - n) // 2 for n in SHAPE]
        padded = np.pad(image, [(b, 16 - n - b) for b, n in zip(before, SHAPE, strict=True)])
        cut = (slice(None), *(slice(b, b + n) for b, n in zip(before, SHAPE, strict=True)))
        with torch.no_grad():
            features = network.encoder[0](torch.from_numpy(padded)[None, None])
            wide.append(features[0][cut].flatten(1).T.double().numpy())
            narrow.append(network.skips[0](features)[0][cut].flatten(1).T.double().numpy())
    return wide, narrow


def dice_of_new_cases(features, halves):
    """Dice of linear discriminants fitted on the one half of the cases and tested on the other, both ways round."""
    label = np.zeros(SHAPE, dtype=bool)
    label[2:8, 3:9, 2:8] = True
    label = label.ravel()
    scores = []
    for fitted, tested in (halves, halves[::-1]):
        x, t = np.concatenate([features[i] for i in fitted]), np.tile(label, len(fitted))
        means = x[~t].mean(0), x[t].mean(0)
        within = np.cov(x - np.where(t[:, None], means[1], means[0]), rowvar=False, ddof=0)
        weight = np.linalg.solve(within, means[1] - means[0])
        limit = weight @ (means[0] + means[1]) / 2 - np.log(t.mean() / (1 - t.mean()))
        for i in tested:
            found = features[i] @ weight > limit
            scores.append(2 * (found & label).sum() / (found.sum() + label.sum()))
    return np.mean(scores)


def test_is_what_memory_gives(make_run, root):
    run_dir, network, _ = make_run()
    dataset, names = ids(root, "p0", "p2")
    result = measure_preservation(run_dir, dataset, names)
    by_case = in_memory(network, root, names)
    wide, narrow = (np.concatenate(features) for features in by_case)
    entry = result["bottlenecks"][0]
    assert result["voxels"] == entry["voxels"] == len(wide) == 4 * 12 * 14 * 10
    design = np.column_stack([narrow, np.ones(len(narrow))])
    left = wide - design @ np.linalg.lstsq(design, wide, rcond=None)[0]
    values = np.sort(np.linalg.eigvalsh(np.cov(wide, rowvar=False, ddof=0)))[::-1]
    assert entry["r2"] == pytest.approx(1 - left.var(0).sum() / wide.var(0).sum(), rel=1e-4)
    assert entry["spectrum"] == pytest.approx(values.tolist(), rel=1e-4)
    assert entry["r2_pca"] == pytest.approx(values[:2].sum() / values.sum(), rel=1e-4)
    x, y = wide - wide.mean(0), narrow - narrow.mean(0)
    biased = np.square(x.T @ y).sum() / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert entry["cka"] == pytest.approx(biased, abs=2e-3)  # 6,720 voxels: the bias is of the order of 1e-4
    assert (entry["wide"], entry["narrow"], entry["channels"]) == (4, 2, 4)
    assert entry["position_preserved"] is True
    halves = ([0, 1], [2, 3])  # by patient
    assert entry["probe_dice_wide"] == [pytest.approx(dice_of_new_cases(by_case[0], halves), abs=1e-3)]
    assert entry["probe_dice_narrow"] == [pytest.approx(dice_of_new_cases(by_case[1], halves), abs=1e-3)]
    assert entry["probe_dice_wide"][0] > 0.1


def test_the_file_is_the_result_and_follows_the_schema(make_run, root):
    run_dir, _, _ = make_run(size=(8, 8, 8), skip=NARROW, decoder=replace(NARROW, norm=True))
    result = measure_preservation(run_dir, *ids(root, "p0", "p1"))
    assert json.loads((run_dir / "preservation.json").read_text()) == result
    assert result["schema_version"] == 1
    assert result["cases"] == 4
    assert result["voxels"] == 4 * 12 * 14 * 10  # windows overlap, voxels do not
    skip, decoder = result["bottlenecks"]
    assert [skip["name"], decoder["name"]] == ["skip_0", "decoder_0"]
    assert (decoder["wide"], decoder["narrow"], decoder["position_preserved"]) == (6, 2, True)
    for entry in (skip, decoder):
        assert 0 < entry["r2"] <= entry["r2_pca"] + 1e-6
        assert len(entry["r2_by_width"]) == len(entry["spectrum"]) == entry["wide"]
        assert entry["r2_pca"] == entry["r2_by_width"][entry["narrow"] - 1]
        assert 1 <= entry["participation_ratio"] <= entry["effective_rank"] <= entry["wide"]
        assert len(entry["probe_dice_wide"]) == len(entry["probe_dice_narrow"]) == 1
        assert 0 <= entry["amplified"] + entry["suppressed"] <= 1


def test_a_baseline_describes_what_a_bottleneck_would_narrow(make_run, root):
    run_dir, _, _ = make_run(skip=None)
    skip, decoder = measure_preservation(run_dir, *ids(root, "p0", "p1"))["bottlenecks"]
    assert (skip["wide"], decoder["wide"], decoder["channels"]) == (4, 8, 4)
    absent = {"narrow", "r2", "r2_pca", "cka", "probe_dice_narrow", "amplified", "suppressed", "position_preserved"}
    for entry in (skip, decoder):
        assert {name for name, value in entry.items() if value is None} == absent
        assert entry["r2_by_width"][-1] == pytest.approx(1)
        assert 0 <= entry["probe_dice_wide"][0] <= 1


def test_one_patient_is_not_probed(make_run, root, caplog):
    run_dir, _, _ = make_run()
    with caplog.at_level(logging.WARNING, logger="seg"):
        skip = measure_preservation(run_dir, *ids(root, "p1"))["bottlenecks"][0]
    assert skip["probe_dice_wide"] is None
    assert skip["probe_dice_narrow"] is None
    assert skip["r2"] > 0
    assert len(caplog.messages) == 1


def test_ignored_voxels_count_nowhere(make_run, root):
    run_dir, _, _ = make_run()
    dataset, names = ids(root, "p0", "p1")
    result = measure_preservation(run_dir, replace(dataset, ignore_label=1), names)
    assert result["voxels"] == 4 * (12 * 14 * 10 - 6 * 6 * 6)


def test_what_cannot_be_measured_is_named(make_run, root, tmp_path):
    dataset, names = ids(root, "p0")
    with pytest.raises(RunError) as run:
        measure_preservation(tmp_path / "none", dataset, names)
    assert [(one.path, one.kind) for one in run.value.problems] == [(str(tmp_path / "none"), "missing")]
    run_dir, _, _ = make_run()
    for cases, kind in (([*names, "other"], "missing"), ([], "empty")):
        with pytest.raises(DataError) as caught:
            measure_preservation(run_dir, dataset, cases)
        assert [one.kind for one in caught.value.problems] == [kind]
    unlabelled = replace(dataset, cases=tuple(replace(case, label=None) for case in dataset.cases))
    with pytest.raises(DataError) as label:
        measure_preservation(run_dir, unlabelled, names)
    assert label.value.problems[0].path == f"case {names[0]}"
