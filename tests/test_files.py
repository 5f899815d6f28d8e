from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from seg import files
from seg.errors import RunError
from seg.files import (
    file_problems,
    needing_room,
    quoted,
    read_bytes,
    read_versioned,
    reading,
    unwritable,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path):
    target = tmp_path / "new" / "folder" / "file.bin"
    for content in (b"first", b"", b"a longer third\0\xff"):
        write_bytes(target, content)
        assert target.read_bytes() == content
        assert names(target.parent) == ["file.bin"]
    (tmp_path / "plain").touch()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode  # as the user's umask has it


def test_text_is_utf8_and_json_is_strict(tmp_path):
    write_text(tmp_path / "a.txt", "µm\n")
    assert (tmp_path / "a.txt").read_bytes() == "µm\n".encode()
    write_json(tmp_path / "a.json", {"b": [1, None, "µ"], "a": 0.5})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"b": [1, None, "µ"], "a": 0.5}
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert (tmp_path / "a.json").read_text() == text


def message(target, reason):
    return f"{target} must be writable, got '{reason}'; free space or choose another folder."


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch, step):
    target = tmp_path / "file.txt"
    write_text(target, "old")

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(RunError) as caught:
        write_text(target, "new")
    monkeypatch.undo()
    assert caught.value.sentences == (message(target, "No space left on device"),)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_file_is_on_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        events.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def record_replace(source, target):
        events.append(("replace", Path(source).read_bytes(), Path(source).parent == tmp_path))
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", record_fsync)
    monkeypatch.setattr(files.os, "replace", record_replace)
    write_bytes(tmp_path / "file", b"content")
    assert events == [("fsync", 7), ("replace", b"content", True)]


def test_a_folder_below_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(RunError) as caught:
        write_text(tmp_path / "file" / "below.txt", "x")
    assert caught.value.sentences[0] in (
        message(tmp_path / "file/below.txt", "Not a directory"),
        message(tmp_path / "file/below.txt", "File exists"),
    )
    assert (tmp_path / "file").read_text() == "kept"


def test_an_unwritable_folder_is_named(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write into every folder")
    with pytest.raises(RunError) as caught:
        write_text(folder / "a.txt", "x")
    assert caught.value.sentences == (message(folder / "a.txt", "Permission denied"),)


def test_permission_denied_is_named_for_every_user(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.Path, "open", fail)
    with pytest.raises(RunError) as caught:
        write_text(tmp_path / "a.txt", "x")
    assert caught.value.sentences == (message(tmp_path / "a.txt", "Permission denied"),)


def test_the_error_of_an_unwritable_file():
    error = unwritable(Path("/there/file"), OSError(errno.EROFS, "Read-only file system"))
    assert str(error) == message("/there/file", "Read-only file system")


def test_a_full_disk_has_one_sentence_whoever_writes(tmp_path):
    full = (errno.ENOSPC, "No space left on device")
    for names, named in (((), tmp_path), (("a",), "a"), (("a", None, "b"), "b")):  # copying from a to b, b has no room
        with pytest.raises(RunError) as caught, needing_room(tmp_path):
            raise OSError(*full, *names)
        assert caught.value.sentences == (message(named, full[1]),)
    with pytest.raises(FileNotFoundError), needing_room(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "scan.nii.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read FILE: No such file or directory; restore it."),
        ("{}", "FILE: must be a record, got KeyError ('schema_version'); restore it."),
        ("[]", "FILE: must be a record, got TypeError ('str' object cannot be interpreted as an integer); restore it."),
        ('{"schema_version": "1"}', "FILE: must be a record, got TypeError (schema_version '1'); restore it."),
        (
            '{"schema_version": 2}',
            "FILE: schema version must be at most 1, got 2; it was written by a newer release, update seg.",
        ),
    ],
)
def test_a_record_that_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunError) as caught, reading(path, what="a record", remedy="restore it"):
        read_versioned(path, 1)
    assert str(caught.value) == message.replace("FILE", str(path))


def long(folder):
    return folder / ("n" * 300)


def below_a_file(folder):
    (folder / "file").touch()
    return folder / "file" / "below"


def loop(folder):
    (folder / "loop").symlink_to("loop")
    return folder / "loop" / "below"


@pytest.mark.parametrize(
    ("make", "kind"), [(long, "name"), (below_a_file, "folder"), (loop, "link"), (lambda folder: folder, "file")]
)
def test_paths_that_cannot_be_used_are_named(tmp_path, make, kind):
    path = make(tmp_path)
    for ask in (lambda: path.open(), lambda: path.read_bytes(), lambda: os.listdir(path / "x")):
        with pytest.raises(RunError) as caught, file_problems():
            ask()
        (problem,) = caught.value.problems
        assert problem.path.startswith(str(path))
        assert problem.kind == kind or (kind == "file" and problem.kind == "missing")
    with pytest.raises(RunError) as caught:
        read_bytes(path, remedy="restore it")
    assert [problem.kind for problem in caught.value.problems] == [kind]


def test_other_errors_are_not_named_as_those_of_a_file():
    for error in (
        OSError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error", "a"),
        KeyError(),
    ):
        with pytest.raises(type(error)) as caught, file_problems():
            raise error
        assert caught.value is error


def test_a_path_with_a_nul_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for path, kind in ((tmp_path / "a\0b", "name"), (tmp_path / "pipe", "file")):
        with pytest.raises(RunError) as caught:
            read_bytes(path, remedy="restore it")
        assert [problem.kind for problem in caught.value.problems] == [kind]
        assert "\0" not in str(caught.value)


def test_names_that_would_break_a_log_line_are_quoted():
    assert [quoted(name) for name in ("case 1", "a\nERROR all lost", "\x1b[2J", "\ud800")] == [
        "case 1",
        r"'a\nERROR all lost'",
        r"'\x1b[2J'",
        r"'\ud800'",
    ]
