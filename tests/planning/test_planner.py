"""Grids and whole plans from fingerprints."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.ablation.report.analysis import analyse
from seg.ablation.store import read_results
from seg.config import BottleneckConfig, DataConfig, load_config
from seg.config.rules import RULES
from seg.errors import ConfigError
from seg.planning.experiment import detect_patient_pattern, experiment_name, plan_experiment, plan_grid, plan_steps
from seg.planning.fingerprint import ChannelIntensity
from seg.planning.plan import describe_plan
from tests.data.builders import problems_of

ROOT = Path(__file__).parents[2]
CUBE, MM = (64, 64, 64), (1.0, 1.0, 1.0)


def plan(data, memory_gib=4.0, **fields):
    return plan_experiment(data, DataConfig(**{"root": "data/x", **fields}), name="x", memory_gib=memory_gib)


@pytest.mark.parametrize(
    ("shape", "spacings", "resampled", "spacing", "thick"),
    [
        ((40, 40, 40), [(1.0, 1.0, 1.2), (1.0, 1.0, 1.2001)], False, (1.0, 1.0, 1.20005), None),
        ((40, 40, 40), [(1.0, 1.0, 1.0), (1.2, 1.0, 1.0), (2.0, 1.0, 1.0)], True, (1.2, 1.0, 1.0), None),  # the median
        # The 10th percentile along a thick axis.
        ((200, 200, 10), [(1.5, 1.5, 5.0), *[(1.5, 1.5, 10.0)] * 10], True, (1.5, 1.5, 10.0), 2),
        ((200, 200, 10), [(1.5, 1.5, 5.0), *[(1.5, 1.5, 10.0)] * 3], True, (1.5, 1.5, 6.5), 2),
        # The median along one of many slices.
        ((200, 200, 100), [(1.0, 1.0, 5.0), (1.0, 1.0, 5.0), (1.0, 1.0, 4.0)], True, (1.0, 1.0, 5.0), None),
    ],
)
def test_the_grid_has_the_usual_spacing(fingerprint, shape, spacings, resampled, spacing, thick):
    geometry = plan_grid(fingerprint([shape] * len(spacings), spacings))
    assert (geometry.resampled, geometry.thick_axis) == (resampled, thick)
    assert geometry.spacing_mm == pytest.approx(spacing)


def test_shapes_are_those_on_the_grid(fingerprint):
    geometry = plan_grid(fingerprint([(40, 40, 40)] * 3, [(1.0, 1.0, 1.0), (1.2, 1.0, 1.0), (2.0, 1.0, 1.0)]))
    assert (geometry.median_shape, geometry.min_shape) == ((40, 40, 40), (33, 40, 40))


@settings(max_examples=60)
@given(
    shapes=st.lists(st.tuples(*[st.integers(1, 400)] * 3), min_size=1, max_size=4),
    spacing=st.tuples(*[st.floats(0.3, 12)] * 3),
    memories=st.tuples(st.floats(1.5, 40), st.floats(1.5, 40)).map(sorted),
)
def test_plans_keep_their_promises(fingerprint, shapes, spacing, memories):
    plans = [plan(fingerprint(shapes, [spacing] * len(shapes)), memory) for memory in memories]
    for made, memory in zip(plans, memories, strict=True):
        assert RULES.broken(made.config) == []
        patch, divisors = made.config.patches.size, made.topology.divisors
        assert made.cost.memory_gib("fp32") <= memory
        assert made.config.patches.batch >= 2
        assert all(edge % divisor == 0 for edge, divisor in zip(patch, divisors, strict=True))
        channels = made.config.network.channels
        assert channels == (16, 32, 64, 128, 128, 128)[: len(channels)]
        thick = made.geometry.thick_axis
        assert thick is None or divisors[thick] * 4 <= max(4, made.geometry.min_shape[thick] + divisors[thick])
    assert prod(plans[0].config.patches.size) <= prod(plans[1].config.patches.size)


def test_thin_volumes_keep_their_slices(fingerprint):
    shapes, extents = ([(*size, slices) for slices in range(6, 19)] for size in ((216, 256), (90, 90)))
    made = plan(fingerprint(shapes, [(1.5, 1.5, 9.0)] * 13, extents=extents))
    network, spatial = made.config.network, made.config.augmentation.spatial
    assert made.config.patches.size == (160, 160, 12)
    assert network.strides == ((1, 1, 1), *((2, 2, 1),) * 5)
    assert network.kernel_sizes[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert (spatial.rotation_deg, spatial.mirror_axes) == ((0.0, 0.0, 30.0), ())
    assert spatial.scale_axes == spatial.elastic_axes == (0, 1)


def test_what_is_built_by_default_is_what_the_study_recommends(fingerprint):
    results = read_results(ROOT / "docs/results/bottleneck")
    # What bottlenecks preserve decides nothing, and takes most of the time.
    analysis = analyse(replace(results, preservation=results.preservation.iloc[:0]))
    changes = next(one.changes for one in analysis.results.study.variants if one.name == analysis.recommended)
    wanted = [
        BottleneckConfig(**changes[path]) if path in changes else None
        for path in ("network.skip_bottleneck", "network.decoder_bottleneck")
    ]
    built = {name: load_config([ROOT / f"configs/{name}.yaml"]) for name in ("acdc", "brats", "hippocampus", "phantom")}
    built["planned"] = plan(fingerprint([CUBE], [MM])).config
    found = {name: [one.network.skip_bottleneck, one.network.decoder_bottleneck] for name, one in built.items()}
    assert found == dict.fromkeys(built, wanted)


@pytest.mark.parametrize(
    ("shape", "extent", "patch", "told"),
    [
        ((96, 96, 96), (1, 1, 1), (64, 64, 64), "X, Y, Z"),
        ((96, 96, 96), (7, 60, 7), (64, 96, 64), "X, Z"),
        ((40, 48, 24), (2, 2, 2), (40, 48, 24), "X, Y, Z"),
        ((96, 96, 96), (50, 50, 50), (80, 80, 80), None),
        ((30, 96, 96), (30, 50, 50), (32, 80, 80), None),  # the median shape, not the floor
    ],
)
def test_small_foreground_keeps_its_context(fingerprint, shape, extent, patch, told):
    data = fingerprint([shape] * 20, [MM] * 20, extents=[extent] * 20)
    made = plan(data)
    assert (made.config.patches.size, made.config.patches.batch) == (patch, 2)
    found = re.search(r"Foreground is short along (.+): ", describe_plan(made, data, 4.0))
    assert (found and found[1]) == told


def test_batch_grows_with_memory_down_to_too_little(fingerprint):
    data = fingerprint([(35, 50, 36)] * 200, [MM] * 200)
    assert plan(data).config.data.spacing_mm is None
    assert [plan(data, memory).config.patches.batch for memory in (4, 8, 24)] == [2, 5, 7]
    assert plan(data).config.patches.size == (40, 56, 40)
    assert problems_of(plan, data, 0.5, error=ConfigError) == [("memory_gib", "range", "0.5")]


def test_ct_is_windowed_and_other_channels_standardised(fingerprint):
    data = fingerprint([CUBE] * 4, [MM] * 4, channels=("CT", "MRI", "noNorm"))
    found = plan(data).config
    assert RULES.broken(found) == []
    assert found.data.normalization == ("ct", "zscore", "none")
    ct = found.data.ct
    assert (ct.lower[0], ct.upper[0], ct.mean[0], ct.std[0]) == (-50.0, 250.0, 40.0, 60.0)
    assert plan(fingerprint([CUBE], [MM])).config.data.ct is None
    flat = ChannelIntensity(p00_5=7.0, median=7.0, p99_5=7.0, mean=7.0, std=0.0)
    constant = replace(fingerprint([CUBE] * 4, [MM] * 4, channels=("CT",)), intensities=(flat,))
    assert problems_of(plan, constant) == [("channel CT", "constant", "7 throughout")]


def test_steps_follow_the_number_of_cases():
    assert [plan_steps(cases, 2) for cases in (4, 120, 200, 100_000)] == [1_000, 1_200, 2_100, 25_000]


def test_plan_keeps_where_the_data_are(fingerprint):
    where = {"root": "somewhere", "layout": "msd", "patient_pattern": "(p..)"}
    made = plan(fingerprint([(40, 40, 40)], [MM]), **where).config
    assert made.name == "x"
    assert {name: getattr(made.data, name) for name in where} == where


def test_patients_are_found_in_case_ids():
    ids = ["patient001_frame01", "patient001_frame12", *(f"patient00{number}_Frame01" for number in range(2, 6))]
    pattern = detect_patient_pattern(ids)
    assert re.match(pattern, "patient002_Frame01").group(1) == "patient002"
    assert detect_patient_pattern([f"patient{i}_frame{j}" for i in "12" for j in "12"]) == pattern
    for others in (
        ids[1:],  # every patient has one case
        [*ids, "other"],
        [f"mr_scan_{number}" for number in range(9)],  # one "patient"
        ["hippocampus_001", "hippocampus_002"],
    ):
        assert detect_patient_pattern(others) is None


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Dataset027_ACDC", "acdc"), ("Task04_Hippocampus", "hippocampus"), ("My scans (2)", "my_scans_2")],
)
def test_name_comes_from_the_folder(folder, name):
    assert experiment_name(Path("/x") / folder) == name


def test_header_says_what_was_found_and_what_it_takes(fingerprint):
    data = fingerprint([(216, 256, 8), (216, 256, 6)], [(1.5, 1.5, 9.0)] * 2, extents=[(90, 80, 8), (90, 80, 6)])
    made = plan(data)
    text = describe_plan(made, data, 4.0)
    for part in (
        "from 2 cases, fingerprint abababababababab.",
        "median 216 x 256 x 7, 216 x 256 x 6 to 216 x 256 x 8",
        "class 1 organ: median 10 ml, in 2 of 2 cases",
        "class 2 tumour: no voxel, in 0 of 2 cases",
        "every volume has 1.5 x 1.5 x 9 mm",
        "the thinnest volume (6 voxels)",
        f"about {3 * made.cost.gmac:.0f} GMAC a training step of 2 patches",
    ):
        assert part in text
    assert re.search(r"\d\.\d GiB in bf16, \d\.\d GiB in fp32, of 4 GiB allowed", text)
