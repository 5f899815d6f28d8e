"""Networks by name."""

from typing import get_args, get_type_hints

import pytest

from seg.config import NetworkConfig
from seg.networks import UNet, get_network
from seg.networks.registry import NETWORKS


def test_unet_is_registered():
    assert get_network("unet") is UNet


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown network") as error:
        get_network("vnet")
    assert str(error.value) == "Unknown network 'vnet'. Available: unet."


def test_a_configuration_can_name_just_the_networks_that_there_are() -> None:
    assert set(get_args(get_type_hints(NetworkConfig)["name"])) == set(NETWORKS)
