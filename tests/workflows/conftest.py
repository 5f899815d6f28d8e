"""Run directories of untrained networks, and scans for them."""

from tests.inference.conftest import make_run, scans, tiny_config, write_scan

__all__ = ["make_run", "scans", "tiny_config", "write_scan"]
