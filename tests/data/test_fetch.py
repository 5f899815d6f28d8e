"""Downloads from a server on this machine that breaks off, knows ranges or not, and sends the wrong file."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from seg.data import fetch as module
from seg.data.fetch import ARCHIVES, GONE, REMEDY, Archive, fetch
from seg.errors import DataError
from tests.data.builders import problems_of

VOXELS = os.urandom(300_000)
PARTIAL = ".Task00_Tiny.tar.part"
ROOT = Path(__file__).parents[2]


class Handler(BaseHTTPRequestHandler):
    """Sends the server's ``content``, from the byte asked for where ``ranges`` are understood, up to one of ``breaks``;
    notes the Range header of each request in ``asked``."""

    def do_GET(self):
        server, wanted, start = self.server, self.headers.get("Range"), 0
        server.asked.append(wanted)
        if self.path != "/tiny.tar":  # asks for the code that it names
            self.send_error(int(self.path[1:]))
            return
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)

    def log_message(self, format, *arguments):
        pass


def packed(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


TINY = packed(
    {
        "Task00_Tiny/dataset.json": b"{}",
        "Task00_Tiny/imagesTr/a.nii.gz": VOXELS,
        "Task00_Tiny/imagesTr/._a.nii.gz": b"of macOS",
        "._Task00_Tiny": b"of macOS",
    }
)


@pytest.fixture
def server():
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("Python before 3.11.4 cannot unpack archives safely, so nothing is downloaded")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.ranges, server.breaks, server.asked = TINY, True, [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def archive_of(server, content=TINY):
    server.content = content
    url = f"http://127.0.0.1:{server.server_port}/tiny.tar"
    return Archive(url=url, md5=hashlib.md5(content).hexdigest(), folder="Task00_Tiny")


@pytest.fixture
def archive(server):
    return archive_of(server)


def assert_complete(root):
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert found == {"Task00_Tiny/dataset.json", "Task00_Tiny/imagesTr/a.nii.gz"}
    assert (root / "Task00_Tiny/imagesTr/a.nii.gz").read_bytes() == VOXELS
    assert os.listdir(root) == ["Task00_Tiny"]


def test_a_download_and_a_second_that_does_nothing(tmp_path, server, archive):
    seen, root = [], tmp_path / "new" / "data"
    assert fetch(archive, root, progress=lambda done, total: seen.append((done, total))) == root / "Task00_Tiny"
    assert_complete(root)
    assert (seen[0], seen[-1]) == ((0, len(TINY)), (len(TINY), len(TINY)))
    assert seen == sorted(seen)
    assert fetch(archive, root) == root / "Task00_Tiny"
    assert server.asked == [None]


@pytest.mark.parametrize(
    ("ranges", "breaks", "there", "asked"),
    [
        (True, [100_000, 50_000], b"", [None, "bytes=100000-", "bytes=150000-"]),
        (False, [100_000], b"", [None, "bytes=100000-"]),  # starts again
        (True, [], TINY[:3000], ["bytes=3000-"]),
        (True, [], TINY, [f"bytes={len(TINY)}-"]),  # complete
    ],
)
def test_a_download_that_broke_off_is_continued(tmp_path, server, archive, ranges, breaks, there, asked):
    server.ranges, server.breaks = ranges, breaks
    if there:
        (tmp_path / PARTIAL).write_bytes(there)
    fetch(archive, tmp_path)
    assert_complete(tmp_path)
    assert server.asked == asked


def test_a_download_that_gives_up_keeps_what_it_has(tmp_path, server, archive):
    server.breaks = [1000, 1000, 1000]
    assert problems_of(fetch, archive, tmp_path) == [(archive.url, "truncated", "3000 before the connection broke")]
    assert os.listdir(tmp_path) == [PARTIAL]
    assert (tmp_path / PARTIAL).read_bytes() == TINY[:3000]


def test_a_wrong_checksum_removes_the_download(tmp_path, archive):
    (tmp_path / PARTIAL).write_bytes(b"x" * 1000)
    found = hashlib.md5(b"x" * 1000 + TINY[1000:]).hexdigest()
    assert problems_of(fetch, archive, tmp_path) == [(archive.url, "checksum", found)]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../evil", "ROOT/evil", "Task00_Tiny/../../evil"])
def test_an_archive_that_writes_elsewhere(tmp_path, server, name):
    absolute, root = name.startswith("ROOT"), tmp_path / "data"
    files = {"Task00_Tiny/dataset.json": b"{}", name.replace("ROOT", str(tmp_path)): b"evil"}
    evil = archive_of(server, packed(files))
    if absolute:  # made relative by tarfile: it stays inside what is thrown away
        assert sorted(os.listdir(fetch(evil, root))) == ["dataset.json"]
    else:
        ((path, kind, value),) = problems_of(fetch, evil, root)
        assert (path, kind, "outside the dest" in value) == (str(root / PARTIAL), "archive", True)
        assert os.listdir(root) == [PARTIAL]
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("content", [packed({"other/a": b""}), b"no archive" * 100])
def test_an_archive_of_another_folder_and_no_archive(tmp_path, server, content):
    ((_, kind, _),) = problems_of(fetch, archive_of(server, content), tmp_path)
    assert (kind, os.listdir(tmp_path)) == ("archive", [PARTIAL])


@pytest.mark.parametrize(
    ("url", "remedy"), [("9/x", REMEDY), ("{}/403", GONE), ("{}/404", GONE), ("{}/429", REMEDY), ("{}/503", REMEDY)]
)
def test_a_server_that_is_not_there_or_refuses_the_file(tmp_path, server, archive, url, remedy):
    url = f"http://127.0.0.1:{url.format(server.server_port)}"
    with pytest.raises(DataError) as caught:
        fetch(replace(archive, url=url), tmp_path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind, problem.remedy) == (url, "server", remedy)
    assert url.rpartition("/")[2] in problem.value or "Connection refused" in problem.value


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_there_and_no_finished_data_set(tmp_path, server, archive, kind):
    target = tmp_path / archive.folder
    if kind == "folder":
        (target / "imagesTr").mkdir(parents=True)
    elif kind == "file":
        target.touch()
    else:
        target.symlink_to("nowhere")
    assert problems_of(fetch, archive, tmp_path) == [(str(target), "unfinished", "one without dataset.json")]
    assert (os.listdir(tmp_path), server.asked) == ([archive.folder], [])


def test_a_full_disk(tmp_path, archive, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_unpack", full)
    ((path, kind, _),) = problems_of(fetch, archive, tmp_path)
    assert (path, kind) == (str(tmp_path), "no_room")


def test_an_old_python_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    archive = Archive(folder="Task00_Tiny", url="http://127.0.0.1:9/x", md5="0")
    assert problems_of(fetch, archive, tmp_path) == [("Python", "version", platform.python_version())]
    assert os.listdir(tmp_path) == []


def test_the_address_and_digest_are_those_of_monai():
    # Its text, as importing it takes seconds.
    text = Path(str(importlib.metadata.distribution("monai").locate_file("monai/apps/datasets.py"))).read_text()
    for archive in ARCHIVES.values():
        assert f'"{archive.folder}": "{archive.url}"' in text
        assert f'"{archive.folder}": "{archive.md5}"' in text


def script(*arguments):
    command = [sys.executable, "-X", "importtime", str(ROOT / "scripts/fetch.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_script_says_where_the_data_set_is_and_names_faults(tmp_path):
    (tmp_path / "Task04_Hippocampus").mkdir()
    (tmp_path / "Task04_Hippocampus/dataset.json").write_text("{}")
    done = script("hippocampus", "--root", str(tmp_path))
    folds = tmp_path / "Task04_Hippocampus/splits_studies.json"
    said = f"folds of the published studies: {folds}\ndata set: {tmp_path}/Task04_Hippocampus\n"
    assert (done.returncode, done.stdout) == (0, said)
    assert len(json.loads(folds.read_text())[0]["val"]) == 40
    (tmp_path / "file").touch()
    unwritable = script("hippocampus", "--root", str(tmp_path / "file"))
    assert (unwritable.returncode, f"error: {tmp_path}/file must be" in unwritable.stderr) == (2, True)


def test_help_is_light():
    done = script("--help")
    assert (done.returncode, all(name in done.stdout for name in ARCHIVES)) == (0, True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"torch", "monai", "nibabel", "numpy"}
