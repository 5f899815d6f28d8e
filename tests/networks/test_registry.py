"""Networks by name."""

import pytest

from seg.networks import UNet, get_network


def test_unet_is_registered():
    assert get_network("unet") is UNet


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown network") as error:
        get_network("vnet")
    assert str(error.value) == "Unknown network 'vnet'. Available: unet."
