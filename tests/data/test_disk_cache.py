"""Files of the disk cache that are not what they should be: incomplete, removed meanwhile, or a trap."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from seg.data.readers import read_dataset
from tests.data.test_prepared import prepare


@pytest.fixture
def dataset(msd):
    return read_dataset(msd)


@pytest.mark.parametrize("content", ["half", "empty", "text"])
def test_an_incomplete_cache_file_is_written_again(dataset, tmp_path, content):
    expected = prepare(dataset, tmp_path, "disk")[0]["image"]
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "text": b"not a tensor"}[content])
    with pytest.warns() if content == "text" else nullcontext():
        assert torch.equal(prepare(dataset, tmp_path, "disk")[0]["image"], expected)
    assert torch.equal(torch.load(path, weights_only=True)["image"], expected)


class Trap:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_the_cache_folder_is_not_run_but_prepared_anew(dataset, tmp_path):
    expected = prepare(dataset, tmp_path, "disk")[0]["image"]
    (path,) = (tmp_path / "cache").iterdir()
    torch.save({"image": Trap(tmp_path / "ran")}, path)
    with pytest.warns(UserWarning, match="Corrupt cache file"):
        assert torch.equal(prepare(dataset, tmp_path, "disk")[0]["image"], expected)
    assert not (tmp_path / "ran").exists()


def test_a_cache_file_that_another_process_removed_is_prepared(dataset, tmp_path, monkeypatch):
    expected = prepare(dataset, tmp_path, "disk")[0]["image"]
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(b"")
    load = torch.load

    def removed_meanwhile(file, *args, **kwargs):
        path.unlink(missing_ok=True)
        return load(file, *args, **kwargs)

    cases = prepare(dataset, tmp_path, "disk")
    monkeypatch.setattr(torch, "load", removed_meanwhile)
    assert torch.equal(cases[0]["image"], expected)
