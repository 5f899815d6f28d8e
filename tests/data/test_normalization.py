"""Whether normalisation fits the channels of a data set."""

from __future__ import annotations

import pytest
import torch

from seg.config import CtConfig, DataConfig
from seg.data.normalization import check_channels, normalize
from seg.errors import ConfigError

ONE = CtConfig(lower=(0.0,), upper=(1.0,), mean=(0.0,), std=(1.0,))
TWO = CtConfig(lower=(0.0, 0.0), upper=(1.0, 1.0), mean=(0.0, 0.0), std=(1.0, 1.0))


@pytest.mark.parametrize(
    ("config", "channels"),
    [
        (DataConfig(), 3),
        (DataConfig(normalization=("zscore", "none")), 2),
        (DataConfig(normalization=("ct",), ct=TWO), 2),
        (DataConfig(normalization=("ct", "zscore"), ct=TWO), 2),
    ],
)
def test_what_fits(config: DataConfig, channels: int) -> None:
    check_channels(config, channels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (4, 3, 2)])
def test_equal_voxels_become_0_however_few_they_are(shape: tuple[int, ...]) -> None:
    image = torch.full((2, *shape), 5.0)
    normalize(image, ("zscore",), None)
    assert torch.equal(image, torch.zeros_like(image))


def test_what_does_not_fit_is_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        check_channels(DataConfig(normalization=("zscore", "ct", "none"), ct=ONE), 2)
    assert caught.value.sentences == (
        "data.normalization must name one mode for all channels or one for each of the data set's 2, got 3: zscore, "
        "ct, none; correct it or channel_names of the data set.",
        "data.ct must have one value for each of the data set's 2 channels, got 1; scripts/plan.py finds them.",
    )
    with pytest.raises(
        ConfigError, match=r"^data\.ct must have one value for each of the data set's 2 channels, got 1;"
    ):
        check_channels(DataConfig(normalization=("ct",), ct=ONE), 2)
    with pytest.raises(ConfigError, match=r"^data\.normalization must name one mode .+'s 1, got 2: zscore, none;"):
        check_channels(DataConfig(normalization=("zscore", "none")), 1)
