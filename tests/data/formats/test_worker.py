"""The process of foreign readers: what damaged files do to it costs these files alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from seg.data.formats import worker
from seg.data.volumes import open_volume, read_header, read_volume
from tests.data.builders import problems_of

sitk: Any = pytest.importorskip("SimpleITK", reason="writes files with SimpleITK; pip install SimpleITK")

ARRAY = np.random.default_rng(0).integers(0, 500, (5, 7, 9)).astype("int16")


@pytest.fixture
def whole(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(tmp_path / "a.mha"))
    return tmp_path / "a.mha"


def is_read(path):
    return np.array_equal(read_volume(path).array[0], ARRAY.transpose(2, 1, 0))


def pid():
    process = worker._WORKER._process
    assert process is not None
    return process.pid


def refused(path):
    """Which rule a file breaks; the process goes on with others."""
    ((named, kind, _),) = problems_of(read_volume, path)
    assert named == str(path)
    return kind


def test_the_process_is_kept_and_started_for_foreign_files_alone(tmp_path, whole):
    assert is_read(whole)
    before = pid()
    read_header(whole)
    assert is_read(whole)
    assert pid() == before
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(tmp_path / "a.nii.gz"))
    code = (
        "import sys, pathlib; from seg.data.formats import worker; from seg.data.volumes import read_volume;"
        "read_volume(pathlib.Path(sys.argv[1])); assert worker._WORKER._process is None;"
        "assert not {'SimpleITK', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.nii.gz")], check=True)


def head(dims, more=""):
    return f"ObjectType = Image\nNDims = {dims}\n{more}ElementType = MET_SHORT\nElementDataFile = LOCAL\n".encode()


@pytest.mark.parametrize("dims", ["-1", "1000", "0", "99999999999", "x", ""])
def test_absurd_numbers_of_axes_are_refused_before_itk_hangs(tmp_path, whole, dims):
    assert is_read(whole)
    before = pid()
    (tmp_path / "bad.mha").write_bytes(head(dims, "DimSize = 9 9 9\n") + bytes(1458))
    assert refused(tmp_path / "bad.mha") == "axes"
    (tmp_path / "bad.nrrd").write_text(f"NRRD0004\ntype: short\ndimension: {dims}\nsizes: 9 9 9\nencoding: raw\n\n")
    assert refused(tmp_path / "bad.nrrd") == "axes"
    assert is_read(whole)
    assert pid() == before


def test_text_voxels_that_end_in_zeros_are_refused(tmp_path, whole):
    text = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nencoding: ascii\nspace: LPS\n"
    text += "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    path = tmp_path / "a.nrrd"
    path.write_bytes(text.encode() + b" ".join(b"%d" % n for n in range(24)))
    np.testing.assert_array_equal(read_volume(path).array[0].ravel(order="F"), np.arange(24))
    path.write_bytes(text.encode() + b"1 2 3" + bytes(5000))
    assert refused(path) == "damaged"
    assert is_read(whole)


def test_a_process_that_dies_between_header_and_voxels(whole):
    with open_volume(whole) as file:
        process = worker._WORKER._process
        assert process is not None
        process.kill()
        process.wait()
        np.testing.assert_array_equal(file.voxels()[0], ARRAY.transpose(2, 1, 0))


def test_a_reader_that_leaves_in_the_middle_does_not_spoil_the_next(tmp_path, whole):
    large = np.random.default_rng(0).integers(0, 99, (70, 300, 200)).astype("int16")
    sitk.WriteImage(sitk.GetImageFromArray(large), str(tmp_path / "large.mha"))
    with open_volume(tmp_path / "large.mha") as file:
        blocks = iter(file.blocks())
        np.testing.assert_array_equal(file.voxels()[0], large.transpose(2, 1, 0))  # in several parts
        next(blocks)
        blocks.close()
    assert is_read(whole)


def test_threads_wait_for_one_another(whole):
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.extend(is_read(whole) for _ in range(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20


def test_a_fork_has_a_process_of_its_own(whole):
    assert is_read(whole)
    child = os.fork()
    if child == 0:
        os._exit(0 if is_read(whole) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert is_read(whole)


def test_memory_is_bounded(tmp_path, whole, monkeypatch):
    """A packed NRRD file says nothing of its size that could be checked before it is unpacked."""
    path = tmp_path / "large.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((256, 512, 512), "int16")), str(path), True)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(worker, "available_bytes", lambda: 32 << 20)
    assert refused(path) == "damaged"
    monkeypatch.undo()
    assert is_read(whole)


def test_limits_of_the_environment_hold(whole):
    """As of a queue that bounds the address space of a job: higher limits may not be set."""
    code = (
        "import resource, sys, pathlib; from seg.data.volumes import read_volume;"
        "[resource.setrlimit(limit, (1 << 40, 1 << 40)) for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU)];"
        "assert read_volume(pathlib.Path(sys.argv[1])).array.shape == (1, 9, 7, 5)"
    )
    subprocess.run([sys.executable, "-c", code, str(whole)], check=True)


@pytest.mark.parametrize(
    "script",
    ["sys.exit(3)", "os.abort()", "c.send_bytes(b'{}'); c.recv_bytes()", "c.send_bytes(b'')", "time.sleep(99)"],
)
def test_a_process_that_answers_nothing_of_use_is_named(whole, monkeypatch, script):
    worker._WORKER.stop()
    with monkeypatch.context() as patch:
        patch.setattr(worker, "SECONDS", 0.5)
        begin = (
            "import os, sys, time; from multiprocessing.connection import Connection; c = Connection(int(sys.argv[1]))"
        )
        patch.setattr(worker, "START", f"{begin}; c.send_bytes(b'ready'); {script}")
        assert refused(whole) == "damaged"
    worker._WORKER.stop()
    assert is_read(whole)
