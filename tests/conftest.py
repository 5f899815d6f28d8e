"""Options and fixtures that every test may use."""

from __future__ import annotations

import hashlib
import locale
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# One thread for numerical libraries, here and in the processes that tests start. Set before any other conftest.py
# imports torch or numpy, whose thread pools read these names once.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# A thread that waits sleeps. Spinning beside other processes, test_conv.py took 200 s of processor time on two threads.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# Tests import engines to know whether they are there, and no event or id of the machine may come of that.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
# No test fails by its time.
hypothesis.settings.register_profile("without_deadline", deadline=None)
hypothesis.settings.load_profile("without_deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the folder of real data sets, which never travel with the repository."""
    parser.addoption(
        "--data-root", type=Path, default=None, help="folder that holds data sets such as Task04_Hippocampus"
    )


@pytest.fixture(autouse=True)
def _locale_as_it_was() -> Iterator[None]:
    """Restores the locale: SimpleITK, an oracle here, sets that of its process to C for some files."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="session")
def data_root(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Gives a function from a data set's name to its folder, which skips the test where the data set is absent."""

    def find(name: str) -> Path:
        root: Path | None = pytestconfig.getoption("--data-root")
        if root is None:
            pytest.skip(f"needs real data: pass --data-root, the folder that holds {name}")
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"needs real data: {folder} is not a folder")
        return folder

    return find


@pytest.fixture(scope="session")
def _exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture
def exports_kept(_exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets each network be traced once in a session: an equal one is written from its first files, a second faster."""
    from seg.compression import compress  # not above: torch would begin before its threads are set
    from seg.inference import export

    write = export.write_network

    def written(network: Any, window: Any, file: Path, format: str) -> None:
        digest = hashlib.sha256(repr((network.config, window, format)).encode())
        for name, value in network.state_dict().items():
            digest.update(repr((name, value.dtype, value.shape)).encode() + value.numpy().tobytes())
        kept = _exports / digest.hexdigest()
        endings = (".xml", ".bin") if format == "openvino" else (".onnx",)
        if not kept.is_dir():
            write(network, window, file, format)  # type: ignore[arg-type]
            kept.mkdir()
            for ending in endings:
                shutil.copyfile(file.with_suffix(ending), kept / f"network{ending}")
        for ending in endings:
            shutil.copyfile(kept / f"network{ending}", file.with_suffix(ending))

    for module in (export, compress):
        monkeypatch.setattr(module, "write_network", written)


@pytest.fixture(autouse=True)
def messages_as_they_were() -> Iterator[None]:
    """Restores the handlers of the package's messages, which a command sends to the stderr of its test."""
    logger = logging.getLogger("seg")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = handlers, level
