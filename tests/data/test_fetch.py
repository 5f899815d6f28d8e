"""Downloads from a server on this machine that breaks off, knows ranges or not, and sends the wrong file."""

from __future__ import annotations

import errno
import hashlib
import http.client
import importlib.metadata
import os
import tarfile
import threading
from pathlib import Path

import pytest

from seg.data import fetch as module
from seg.data.fetch import ARCHIVES, Archive, fetch
from seg.errors import DataError
from tests.data.serving import TINY, VOXELS, Handler, Server, packed

PARTIAL = ".Task00_Tiny.tar.part"


@pytest.fixture
def server():
    server = Server(("127.0.0.1", 0), Handler)
    server.content, server.ranges, server.breaks, server.asked = TINY, True, [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def archive(server):
    return Archive(
        url=f"http://127.0.0.1:{server.server_port}/tiny.tar", md5=hashlib.md5(TINY).hexdigest(), folder="Task00_Tiny"
    )


def assert_complete(root):
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert found == {"Task00_Tiny/dataset.json", "Task00_Tiny/imagesTr/a.nii.gz"}
    assert (root / "Task00_Tiny/imagesTr/a.nii.gz").read_bytes() == VOXELS
    assert os.listdir(root) == ["Task00_Tiny"]


def test_a_download_and_a_second_that_does_nothing(tmp_path, server, archive):
    seen: list[tuple[int, int | None]] = []
    root = tmp_path / "new" / "data"
    assert fetch(archive, root, progress=lambda done, total: seen.append((done, total))) == root / "Task00_Tiny"
    assert_complete(root)
    assert seen[0] == (0, len(TINY))
    assert seen[-1] == (len(TINY), len(TINY))
    assert seen == sorted(seen)
    assert fetch(archive, root) == root / "Task00_Tiny"
    assert server.asked == [None]


def test_a_broken_connection_is_continued_at_once(tmp_path, server, archive):
    server.breaks = [100_000, 50_000]
    fetch(archive, tmp_path)
    assert_complete(tmp_path)
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_download_that_gave_up_is_continued_by_the_next(tmp_path, server, archive):
    server.breaks = [1000, 1000, 1000]
    with pytest.raises(DataError) as caught:
        fetch(archive, tmp_path)
    assert str(caught.value) == (
        f"{archive.url}: must give {len(TINY)} bytes, got 3000 before the connection broke; "
        "run the command again: it continues where it stopped."
    )
    assert os.listdir(tmp_path) == [PARTIAL]
    assert (tmp_path / PARTIAL).read_bytes() == TINY[:3000]
    fetch(archive, tmp_path)
    assert_complete(tmp_path)
    assert server.asked[-1] == "bytes=3000-"


def test_a_server_without_ranges_starts_again(tmp_path, server, archive):
    server.ranges, server.breaks = False, [100_000]
    fetch(archive, tmp_path)
    assert_complete(tmp_path)


def test_a_complete_download_is_not_fetched_again(tmp_path, server, archive):
    (tmp_path / PARTIAL).write_bytes(TINY)
    fetch(archive, tmp_path)
    assert_complete(tmp_path)
    assert server.asked == [f"bytes={len(TINY)}-"]


def test_a_wrong_checksum_removes_the_download(tmp_path, server, archive):
    (tmp_path / PARTIAL).write_bytes(b"x" * 1000)
    with pytest.raises(DataError) as caught:
        fetch(archive, tmp_path)
    found = hashlib.md5(b"x" * 1000 + TINY[1000:]).hexdigest()
    assert str(caught.value) == (
        f"{archive.url}: MD5 must be {archive.md5}, got {found}; the download was removed, run the command again."
    )
    assert os.listdir(tmp_path) == []
    fetch(archive, tmp_path)
    assert_complete(tmp_path)


@pytest.mark.parametrize("name", ["../evil", "ROOT/evil", "Task00_Tiny/../../evil"])
def test_an_archive_that_writes_elsewhere(tmp_path, server, archive, name):
    absolute = name.startswith("ROOT")
    server.content = packed({"Task00_Tiny/dataset.json": b"{}", name.replace("ROOT", str(tmp_path)): b"evil"})
    evil = Archive(url=archive.url, md5=hashlib.md5(server.content).hexdigest(), folder=archive.folder)
    root = tmp_path / "data"
    if absolute:  # made relative by tarfile: it stays inside what is thrown away
        assert sorted(os.listdir(fetch(evil, root))) == ["dataset.json"]
    else:
        with pytest.raises(DataError, match=r"must be a tar file of the folder Task00_Tiny, got '.*outside the dest"):
            fetch(evil, root)
        assert os.listdir(root) == [PARTIAL]
    assert not list(tmp_path.rglob("evil"))


def test_an_archive_of_another_folder_and_no_archive(tmp_path, server, archive):
    for content in (packed({"other/a": b""}), b"no archive" * 100):
        server.content = content
        wrong = Archive(url=archive.url, md5=hashlib.md5(content).hexdigest(), folder=archive.folder)
        with pytest.raises(DataError, match="must be a tar file of the folder Task00_Tiny, got '"):
            fetch(wrong, tmp_path)
        assert os.listdir(tmp_path) == [PARTIAL]
        (tmp_path / PARTIAL).unlink()


def test_no_server(tmp_path, archive):
    url = "http://127.0.0.1:9/x"
    with pytest.raises(
        DataError, match=rf"{url}: must be reachable, got '.*Connection refused.*'; run the command again"
    ):
        fetch(Archive(url=url, md5=archive.md5, folder=archive.folder), tmp_path)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (403, "the server refuses the file, and will again: report it, and take the data set from elsewhere"),
        (404, "the server refuses the file, and will again: report it, and take the data set from elsewhere"),
        (429, "run the command again: it continues where it stopped"),
        (503, "run the command again: it continues where it stopped"),
    ],
)
def test_an_answer_without_the_file(tmp_path, server, archive, code, remedy):
    url = archive.url.replace("tiny.tar", str(code))
    with pytest.raises(DataError) as caught:
        fetch(Archive(url=url, md5=archive.md5, folder=archive.folder), tmp_path)
    reason = http.client.responses[code]
    assert str(caught.value) == f"{url}: must be reachable, got 'HTTP Error {code}: {reason}'; {remedy}."


def test_what_is_there_and_no_finished_data_set(tmp_path, server, archive):
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    (folder / archive.folder / "imagesTr").mkdir(parents=True)
    file.mkdir()
    (file / archive.folder).write_text("")
    link.mkdir()
    (link / archive.folder).symlink_to("nowhere")
    for root in (folder, file, link):
        with pytest.raises(DataError) as caught:
            fetch(archive, root)
        assert str(caught.value) == (
            f"{root / archive.folder}: must be a finished data set or not there yet, got one without dataset.json; "
            "remove it and run the command again, or choose another folder with --root."
        )
        assert os.listdir(root) == [archive.folder]
    assert server.asked == []


def test_a_full_disk(tmp_path, archive, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_unpack", full)
    with pytest.raises(DataError) as caught:
        fetch(archive, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: must be writable, got 'No space left on device'; free space or choose another folder."
    )


def test_an_old_python_unpacks_nothing(tmp_path, archive, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DataError, match=r"^Python must be 3\.11\.4 or newer to unpack archives safely"):
        fetch(archive, tmp_path)
    assert os.listdir(tmp_path) == [PARTIAL]


def test_the_address_and_digest_are_those_of_monai():
    # Its text, as importing it takes seconds.
    text = Path(str(importlib.metadata.distribution("monai").locate_file("monai/apps/datasets.py"))).read_text()
    for archive in ARCHIVES.values():
        assert f'"{archive.folder}": "{archive.url}"' in text
        assert f'"{archive.folder}": "{archive.md5}"' in text
