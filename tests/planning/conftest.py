"""A data set described by its fingerprint alone."""

from __future__ import annotations

import pytest

from seg.planning.fingerprint import ChannelIntensity, Fingerprint


@pytest.fixture(scope="session")
def fingerprint():
    """Gives the function that describes a data set of two classes; its foreground fills the volumes unless told."""

    def make(shapes, spacings, *, extents=None, channels=("MRI",)):
        return Fingerprint(
            case_ids=tuple(f"case_{index:03d}" for index in range(len(shapes))),
            shapes=tuple(shapes),
            spacings_mm=tuple(spacings),
            foreground_extents=tuple(extents or shapes),
            channels=channels,
            intensities=tuple(
                ChannelIntensity(p00_5=-50.0 - index, median=20.0, p99_5=250.0, mean=40.0, std=60.0)
                for index in range(len(channels))
            ),
            class_names=("organ", "tumour"),
            class_volumes_ml=((10.0, 0.0),) * len(shapes),
            digest="ab" * 32,
        )

    return make
