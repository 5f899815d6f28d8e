"""Whole plans."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.config import DataConfig
from seg.config.rules import problems
from seg.errors import ConfigError, DataError
from seg.planning.experiment import detect_patient_pattern, experiment_name, plan_experiment, plan_steps
from seg.planning.fingerprint import ChannelIntensity, Fingerprint
from seg.planning.plan import describe_plan

Maker = Callable[..., Fingerprint]
SIZES = st.tuples(*[st.integers(1, 400)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 12)] * 3)


def plan(data, memory_gib=4.0, root="data/x"):
    return plan_experiment(data, DataConfig(root=root), name="x", memory_gib=memory_gib)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(SIZES, min_size=1, max_size=4),
    spacing=SPACINGS,
    memories=st.tuples(st.floats(1.5, 40), st.floats(1.5, 40)).map(sorted),
)
def test_plans_keep_their_promises(fingerprint, shapes, spacing, memories):
    small, large = (plan(fingerprint(shapes, [spacing] * len(shapes)), memory) for memory in memories)
    for made, memory in zip((small, large), memories, strict=True):
        assert problems(made.config) == []
        patch, divisors = made.sampling.patch, made.sampling.topology.divisors
        assert made.cost.memory_gib("fp32") <= memory
        assert made.sampling.batch >= 2
        assert all(edge % divisor == 0 for edge, divisor in zip(patch, divisors, strict=True))
        channels = made.config.network.channels
        assert channels == (16, 32, 64, 128, 128, 128)[: len(channels)]
        thick = made.geometry.thick_axis
        if thick is not None:
            assert divisors[thick] * 4 <= max(4, made.geometry.min_shape[thick] + divisors[thick])
    assert prod(small.sampling.patch) <= prod(large.sampling.patch)


def test_thin_volumes_keep_their_slices(fingerprint):
    shapes = [(216, 256, slices) for slices in range(6, 19)]
    made = plan(fingerprint(shapes, [(1.5, 1.5, 9.0)] * 13, extents=[(90, 90, slices) for slices in range(6, 19)]))
    assert made.sampling.patch == (160, 160, 12)
    assert made.config.network.strides == ((1, 1, 1), *((2, 2, 1),) * 5)
    assert made.config.network.kernel_sizes[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert made.config.augmentation.spatial.rotation_deg == (0.0, 0.0, 30.0)
    assert made.config.augmentation.spatial.scale_axes == (0, 1)
    assert made.config.augmentation.spatial.elastic_axes == (0, 1)
    assert made.config.augmentation.spatial.mirror_axes == ()


def test_batch_grows_with_memory(fingerprint):
    data = fingerprint([(35, 50, 36)] * 200, [(1.0, 1.0, 1.0)] * 200)
    assert plan(data).config.data.spacing_mm is None
    assert [plan(data, memory).sampling.batch for memory in (4, 8, 24)] == [2, 5, 7]
    assert plan(data).sampling.patch == (40, 56, 40)


def test_too_little_memory_is_refused(fingerprint):
    with pytest.raises(
        ConfigError,
        match=re.escape(
            "memory_gib must hold a training step on 2 patches of the smallest size, got 0.5; allow more memory."
        ),
    ):
        plan(fingerprint([(40, 40, 40)], [(1.0, 1.0, 1.0)]), 0.5)


def test_ct_is_windowed_and_other_channels_standardised(fingerprint):
    data = fingerprint([(64, 64, 64)] * 4, [(1.0, 1.0, 1.0)] * 4, channels=("CT", "MRI", "noNorm"))
    config = plan(data).config.data
    assert config.normalization == ("ct", "zscore", "none")
    assert config.ct is not None
    assert (config.ct.lower[0], config.ct.upper[0], config.ct.mean[0], config.ct.std[0]) == (-50.0, 250.0, 40.0, 60.0)
    assert problems(plan(data).config) == []
    assert plan(fingerprint([(64, 64, 64)], [(1.0, 1.0, 1.0)])).config.data.ct is None


def test_constant_ct_is_refused(fingerprint):
    data = fingerprint([(64, 64, 64)] * 4, [(1.0, 1.0, 1.0)] * 4, channels=("CT",))
    flat = ChannelIntensity(p00_5=7.0, median=7.0, p99_5=7.0, mean=7.0, std=0.0)
    message = (
        "channel CT: foreground intensities must differ to give a CT window, got 7 throughout; look at the images, or "
        "name the channel otherwise to standardise it."
    )
    with pytest.raises(DataError, match=re.escape(message)):
        plan(dataclasses.replace(data, intensities=(flat,)))


def test_steps_follow_the_number_of_cases():
    assert plan_steps(4, 2) == 1_000
    assert plan_steps(120, 2) == 1_200
    assert plan_steps(200, 2) == 2_100
    assert plan_steps(100_000, 2) == 25_000


def test_plan_keeps_where_the_data_are(fingerprint):
    data = DataConfig(root="somewhere", layout="msd", patient_pattern="(p..)")
    made = plan_experiment(fingerprint([(40, 40, 40)], [(1.0, 1.0, 1.0)]), data, name="n", memory_gib=4).config
    assert (made.name, made.data.root, made.data.layout, made.data.patient_pattern) == (
        "n",
        "somewhere",
        "msd",
        "(p..)",
    )


def test_patients_are_found_in_case_ids():
    ids = ["patient001_frame01", "patient001_frame12", *(f"patient00{number}_Frame01" for number in range(2, 6))]
    pattern = detect_patient_pattern(ids)
    assert pattern is not None
    match = re.match(pattern, "patient002_Frame01")
    assert match is not None
    assert match.group(1) == "patient002"
    assert detect_patient_pattern(ids[1:]) is None  # every patient has one case
    assert detect_patient_pattern([*ids, "other"]) is None
    assert detect_patient_pattern([f"mr_scan_{number}" for number in range(9)]) is None  # one "patient"
    assert detect_patient_pattern([f"patient{i}_frame{j}" for i in "12" for j in "12"]) == pattern
    assert detect_patient_pattern(["hippocampus_001", "hippocampus_002"]) is None


def test_name_comes_from_the_folder():
    assert experiment_name(Path("/x/Dataset027_ACDC")) == "acdc"
    assert experiment_name(Path("/x/Task04_Hippocampus")) == "hippocampus"
    assert experiment_name(Path("/x/My scans (2)")) == "my_scans_2"


def test_header_says_what_was_found_and_what_it_takes(fingerprint):
    data = fingerprint([(216, 256, 8), (216, 256, 6)], [(1.5, 1.5, 9.0)] * 2, extents=[(90, 80, 8), (90, 80, 6)])
    made = plan(data)
    text = describe_plan(made, data, 4.0)
    assert "Planned from 2 cases, fingerprint abababababababab." in text
    assert "shape, voxels: median 216 x 256 x 7, 216 x 256 x 6 to 216 x 256 x 8" in text
    assert "class 1 organ: median 10 ml, in 2 of 2 cases" in text
    assert "class 2 tumour: no voxel, in 0 of 2 cases" in text
    assert "every volume has 1.5 x 1.5 x 9 mm; nothing is resampled." in text
    assert "Z is pooled only as far as the thinnest volume (6 voxels) bears." in text
    assert re.search(r"Estimated peak of training: \d\.\d GiB in bf16, \d\.\d GiB in fp32, of 4 GiB allowed\.", text)
    assert f"about {3 * made.cost.gmac:.0f} GMAC a training step of 2 patches" in text
