"""The file system: whole files, schemas, locks, and paths that cannot be used."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg import files
from seg.errors import DataError, RunError
from seg.files import (
    beside,
    check_folder,
    check_rows,
    escaped_cell,
    file_problems,
    locked,
    quoted,
    read_bytes,
    read_json,
    read_table,
    remove_partial,
    table_text,
    unescaped_cell,
    write_bytes,
    write_json,
    write_text,
)


def test_our_files_hold_no_number_that_json_has_not(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for value in ("NaN", "Infinity", "-Infinity", "1e999"):
        path.write_text(f'{{"schema_version": 1, "value": {value}}}')
        with pytest.raises(RunError) as caught:
            read_json(path, dict[str, float], newest=1, remedy="restore it")
        assert [problem.path for problem in caught.value.problems] == [str(path)]
    path.write_text('{"value": NaN}')  # a file of another program
    assert str(read_json(path, dict[str, float], remedy="restore it")["value"]) == "nan"


HOLD = """
import sys
from pathlib import Path
from seg.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def problem(caught):
    (found,) = caught.value.problems
    return found.path, found.kind


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
    assert problem(caught) == (str(target), "no_room")
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


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(RunError) as caught:
        write_text(tmp_path / "file" / "below.txt", "x")
    assert problem(caught) == (str(tmp_path / "file"), "folder")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_full_disk_is_one_problem_whoever_writes(tmp_path):
    full = (errno.ENOSPC, "No space left on device")
    for named, path in (((), tmp_path), (("a",), "a"), (("a", None, "b"), "b")):  # copying from a to b, b has no room
        with pytest.raises(RunError) as caught, file_problems(tmp_path):
            raise OSError(*full, *named)
        assert problem(caught) == (str(path), "no_room")
    with pytest.raises(FileNotFoundError), file_problems(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, "missing"),
        ("{", "json"),
        ("[]", "dict_type"),
        ("{}", "int_type"),
        ('{"schema_version": "1", "a": 1}', "int_type"),
        ('{"schema_version": 2, "a": 1}', "version"),
        ('{"schema_version": 1, "a": "x"}', "int_parsing"),
        (f'{{"schema_version": 1, "a": {"[" * 5000}{"]" * 5000}}}', "json"),
        (r'{"schema_version": 1, "a": 1, "\ud800": 1}', "json"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(tmp_path, content, kind):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunError) as caught:
        read_json(path, dict[str, int], newest=1, remedy="restore it")
    assert problem(caught)[1] == kind
    assert problem(caught)[0].startswith(str(path))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("a,b\n1\n", "csv"),
        ("a,b\n1,2,3\n", "csv"),
        ("a,a\n1,2\n", "csv"),
        ('a,b\n"1,2\n', "csv"),
        ("a,b\n1,x\n", "int_parsing"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, content, kind):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(RunError) as caught:
        check_rows(path, read_table(path, remedy=""), dict[str, int], remedy="restore it")
    assert problem(caught)[1] == kind
    assert problem(caught)[0].startswith(str(path))


def test_all_breaks_of_a_schema_are_named_together_in_the_class_asked_for(tmp_path):
    (tmp_path / "a.json").write_text('\ufeff{"a": "x", "b": {"c": []}}')
    with pytest.raises(DataError) as caught:
        read_json(tmp_path / "a.json", dict[str, int], remedy="restore it", error=DataError)
    found = [(one.path, one.kind) for one in caught.value.problems]
    assert found == [(f"{tmp_path}/a.json: a", "int_parsing"), (f"{tmp_path}/a.json: b", "int_type")]


def test_a_place_is_named_whatever_its_schema_and_its_keys(tmp_path):
    path = tmp_path / "a.json"
    for content, schema, place in (
        ('{"a": {"int": "x"}}', dict[str, dict[str, int]], "a.int"),
        ('{"a": [1, {}]}', dict[str, list[int | str]], "a[1]"),
    ):
        path.write_text(content)
        with pytest.raises(RunError) as caught:
            read_json(path, schema, remedy="restore it")
        assert [one.path for one in caught.value.problems] == [f"{path}: {place}"]


def test_a_record_and_a_table_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"schema_version": 1, "a": 5, "b": 6}')
    assert read_json(tmp_path / "a.json", dict[str, int], newest=2, remedy="") == {"a": 5, "b": 6}
    (tmp_path / "a.csv").write_text('a,b\n1,"x, y"\n,\n')
    assert read_table(tmp_path / "a.csv", remedy="") == [{"a": "1", "b": "x, y"}, {"a": "", "b": ""}]


def test_what_is_no_file_is_named_as_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, value in (("pipe", "a pipe or a device"), ("folder", "a folder")):
        with pytest.raises(RunError) as caught:
            read_bytes(tmp_path / name, remedy="check the path")
        assert problem(caught) == (str(tmp_path / name), "file")
        assert caught.value.problems[0].value == value


FORMULA = tuple("=+-@\t\r")
CELLS = st.text(st.sampled_from([*FORMULA, *"'\"a1 ,;\n"]), max_size=5)


@pytest.mark.parametrize("text", ["", "plain", "=1+1", "+", "-x", "@a", "'", "''=", "'x", "\tx", "\rx"])
def test_text_cells_that_a_spreadsheet_would_run_are_escaped_reversibly(text):
    assert unescaped_cell(escaped_cell(text)) == text
    assert not escaped_cell(text).startswith(FORMULA)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS, st.floats()), min_size=1, max_size=4))
def test_texts_of_a_table_are_read_as_they_were_written_and_none_is_a_formula(tmp_path, rows):
    table = table_text([{"a": a, "=b": b, "c": c} for a, b, c in rows], escape=True)
    (path := tmp_path / "table.csv").write_bytes(table.encode())
    read = read_table(path, columns=("a",), escaped=True, remedy="")
    assert [(row["a"], row["=b"], row["c"]) for row in read] == [(a, b, repr(c)) for a, b, c in rows]
    header, *stored = csv.reader(io.StringIO(table, newline=""))
    assert header == ["a", "'=b", "c"]
    assert not any(cell.startswith(FORMULA) for row in stored for cell in row[:2])


def long(folder):
    return folder / ("n" * 300)


def below_a_file(folder):
    (folder / "file").touch()
    return folder / "file" / "below"


def loop(folder):
    (folder / "loop").symlink_to("loop")
    return folder / "loop" / "below"


@pytest.mark.parametrize(("make", "kind"), [(long, "name"), (below_a_file, "folder"), (loop, "link")])
def test_paths_that_cannot_be_used_are_named(tmp_path, make, kind):
    path = make(tmp_path)
    for ask in (lambda: path.open(), lambda: path.read_bytes(), lambda: os.listdir(path / "x")):
        with pytest.raises(RunError) as caught, file_problems():
            ask()
        assert problem(caught)[0].startswith(str(path))
        assert problem(caught)[1] == kind
    with pytest.raises(RunError) as caught:
        read_bytes(path, remedy="restore it")
    assert problem(caught) == (str(path), kind)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_link_to_nothing_is_no_folder(tmp_path, below):
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with pytest.raises(RunError) as caught:
        check_folder(tmp_path / "link" / below)
    assert problem(caught) == (str(tmp_path / "link" / below), "folder")
    (tmp_path / "absent").mkdir()
    check_folder(tmp_path / "link" / below)


def test_other_errors_are_not_named_as_those_of_a_file():
    for error in (OSError(errno.EACCES, "no name"), OSError(errno.EIO, "Input/output error", "a"), KeyError()):
        with pytest.raises(type(error)) as caught, file_problems():
            raise error
        assert caught.value is error


def test_a_path_with_a_nul_a_folder_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for path, kind in ((tmp_path / "a\0b", "name"), (tmp_path / "pipe", "file"), (tmp_path, "file")):
        with pytest.raises(RunError) as caught:
            read_bytes(path, remedy="restore it")
        assert problem(caught)[1] == kind
        assert "\0" not in str(caught.value)


def test_names_that_would_break_a_log_line_are_quoted():
    for name, shown in (("case 1", "case 1"), ("a\nERROR all lost", r"'a\nERROR all lost'"), ("\x1b[2J", r"'\x1b[2J'")):
        assert quoted(name) == shown


def test_a_lock_goes_with_the_process_that_held_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError) as caught, locked(path, wait=False):
            pass
        assert problem(caught) == (str(tmp_path), "locked")
        other.kill()
    with locked(path, wait=False):
        assert path.exists()
    assert not path.exists()


def test_a_file_system_without_locks_is_announced(tmp_path, monkeypatch, caplog):
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with locked(tmp_path / "lock"):
        pass
    assert "No locks available" in caplog.text


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError) as caught:
        files.write_text(tmp_path / "pipe", "text")
    assert [problem.kind for problem in caught.value.problems] == ["file"]
    assert (tmp_path / "pipe").is_fifo()


def test_what_killed_writers_left_is_removed_once_it_is_old(tmp_path):
    old = [".a.nii.gz.0123abcd", ".b.json.0123abcd", "a.nii.gz", ".hidden", ".a.nii.gz.lock"]
    for name in old:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".a.nii.gz.89abcdef").touch()  # of a process that is writing
    remove_partial(tmp_path, of={"a.nii.gz"})
    assert set(names(tmp_path)) == {*old[1:], ".a.nii.gz.89abcdef"}
    remove_partial(tmp_path)
    assert set(names(tmp_path)) == {*old[2:], ".a.nii.gz.89abcdef"}
    remove_partial(tmp_path, seconds=0)
    assert set(names(tmp_path)) == set(old[2:])
    remove_partial(tmp_path / "absent")
    (tmp_path / ".folder.settings").mkdir()
    remove_partial(tmp_path, seconds=0)
    assert (tmp_path / ".folder.settings").is_dir()


def test_a_file_of_the_longest_name_is_written_and_its_rest_removed(tmp_path):
    for name in ("n" * 255, "ü" * 127):
        write_text(tmp_path / name, "whole")
        assert (tmp_path / name).read_text() == "whole"
        rest = beside(tmp_path / name)
        rest.touch()
        remove_partial(tmp_path, of={name}, seconds=0)
        assert not rest.exists()
    assert len(names(tmp_path)) == 2
