"""What a file, a folder, a disc of DICOM series or a list holds, what its cases are called, and where results go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seg.errors import DataError, SegError
from seg.inference.cases import find_sources, in_list


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def dicom(*paths: Path, kind: bytes = b"1.2.840.10008.5.1.4.1.1.2") -> None:
    """Writes the first attributes of files: length of the group, version, and the kind of what is stored."""
    kind += bytes(len(kind) % 2)
    head = b"\x02\0\0\0UL\x04\0\xc8\0\0\0\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01\x02\0\x02\0UI"
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(128) + b"DICM" + head + len(kind).to_bytes(2, "little") + kind)


def found(input_path: Path, output: Path) -> dict[str, list[str]]:
    """Names of the files of each case, by the name of its result."""
    sources = find_sources(input_path, output)
    assert all(source.output.parent == output for source in sources)
    return {source.output.name: [path.name for path in source.paths] for source in sources}


def problem(input_path: Path, output: Path, **options: bool) -> tuple[str, str, str]:
    with pytest.raises(SegError) as caught:
        find_sources(input_path, output, **options)
    (one,) = caught.value.problems
    return one.path, one.kind, one.value


def test_a_folder_is_its_cases_and_numbered_files_are_channels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    channels = ("x_0000.NII.GZ", "x_0001.nii.gz", "y_0000.nii.gz", "scan_2021.nii.gz", "hippocampus_001.nii.gz")
    touch(folder, *channels, "b.nii.gz", "Scan.Nii", "c.MHA", ".hidden.nii.gz", "predictions.json", "nested/slices/x")
    assert found(folder, out) == {
        "Scan.nii.gz": ["Scan.Nii"],
        "b.nii.gz": ["b.nii.gz"],
        "c.nii.gz": ["c.MHA"],
        "hippocampus_001.nii.gz": ["hippocampus_001.nii.gz"],
        "scan_2021.nii.gz": ["scan_2021.nii.gz"],
        "x.nii.gz": ["x_0000.NII.GZ", "x_0001.nii.gz"],
        "y.nii.gz": ["y_0000.nii.gz"],
    }
    assert [text.rpartition(": ")[2] for text in caplog.messages] == ["nested, predictions.json"]
    assert found(folder / "x_0000.NII.GZ", out) == {"x.nii.gz": ["x_0000.NII.GZ", "x_0001.nii.gz"]}
    touch(folder, "B.nii.gz", "b.NII.GZ")
    assert problem(folder, out)[:2] == ("inputs", "names")
    caplog.clear()
    (folder / "b.NII.GZ").unlink()
    touch(folder, *(f"x{number:02}.md" for number in range(30)))
    find_sources(folder, out)
    assert caplog.messages[0].endswith(", x16.md, x17.md and 12 more")


def test_voxels_beside_their_header_are_no_file_that_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "in", "a.raw", "b.raw", "c.zraw")
    (tmp_path / "in" / "a.mhd").write_text("ObjectType = Image\nElementDataFile = a.raw\n")
    (tmp_path / "in" / "b.nrrd").write_text("NRRD0004\ndata file: b.raw\n\n")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["a.nii.gz", "b.nii.gz"]
    assert [text.rpartition(": ")[2] for text in caplog.messages] == ["c.zraw"]


def test_series_are_found_at_any_depth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disc = tmp_path / "disc"
    dicom(*(disc / name for name in ("P1/ST1/SE1/1", "P1/ST1/SE2/1", "P1/ST2/SE1/1", "P2/1.dcm", "P2/old/1")))
    dicom(disc / "DICOMDIR", kind=b"1.2.840.10008.1.3.10")  # a list of files, not a slice
    touch(disc, "a.nii.gz", "VIEWER/run.exe", "P1/notes/x.txt", "P1/ST1/SE1/README.txt")
    (disc / "P1" / "loop").symlink_to(disc)
    assert found(disc, tmp_path / "out") == {
        "P1_ST1_SE1.nii.gz": ["SE1"],
        "P1_ST1_SE2.nii.gz": ["SE2"],
        "P1_ST2_SE1.nii.gz": ["SE1"],
        "P2.nii.gz": ["P2"],
        "a.nii.gz": ["a.nii.gz"],
    }
    assert [text.rpartition(": ")[2] for text in caplog.messages] == ["DICOMDIR, P1/notes, P2/old, VIEWER"]
    caplog.clear()
    assert found(disc / "P2", tmp_path / "out") == {"P2.nii.gz": ["P2"]}
    assert [text.rpartition(": ")[2] for text in caplog.messages] == ["old"]
    dicom(tmp_path / "in" / "a_b" / "1", tmp_path / "in" / "a" / "b" / "1")
    assert problem(tmp_path / "in", tmp_path / "out")[:2] == ("inputs", "names")


def test_a_list_names_cases_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "today.txt"
    listed.write_text("# two\n../a/x.nii.gz\n\n../a/y_0000.nii ; ../b/pet.nii\np/x.nii.gz ; p/pet.nii \t two.nii.gz\n")
    sources = find_sources(listed, tmp_path / "out")
    assert [source.output.name for source in sources] == ["x.nii.gz", "y.nii.gz", "two.nii.gz"]
    assert [path.resolve() for path in sources[1].paths] == [tmp_path / "a" / "y_0000.nii", tmp_path / "b" / "pet.nii"]
    for line in ("..", "p/x\0.nii.gz", "p/x.nii.gz\t../x", "p/x.nii.gz\ta/b", "p/x.nii.gz\t..", "p/x.nii.gz\ta\tb"):
        listed.write_text(f"{line}\n")
        assert problem(listed, tmp_path / "out") == (str(listed), "line", repr(line.strip()))


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.nii.gz\n")
    assert problem(tmp_path / "latin.txt", tmp_path / "out")[:2] == (str(tmp_path / "latin.txt"), "encoding")
    (tmp_path / "windows.txt").write_text("scans\\a.nii.gz\n")
    assert problem(tmp_path / "windows.txt", tmp_path / "out")[:2] == (str(tmp_path / "windows.txt"), "separator")
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    with pytest.raises(DataError) as caught:
        in_list(tmp_path / "pipe")
    assert [one.kind for one in caught.value.problems] == ["file"]


def test_a_file_goes_to_a_file_or_into_a_folder(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "scan.nii")
    (source,) = find_sources(path, tmp_path / "labels.nii.gz")
    assert (source.name, source.output) == ("scan", tmp_path / "labels.nii.gz")
    assert source.probabilities == tmp_path / "probabilities" / "labels.nii.gz"
    (tmp_path / "there.png").mkdir()
    for folder in ("new", "run_0.5", ".hidden", "there.png"):
        assert found(path, tmp_path / folder) == {"scan.nii.gz": ["scan.nii"]}


def test_results_never_fall_on_inputs(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "in/a.nii.gz")
    folder, out, listed = path.parent, tmp_path / "out", tmp_path / "list.txt"
    (tmp_path / "link").symlink_to(folder)
    link = tmp_path / "links" / "b.nii.gz"
    link.parent.mkdir()
    link.symlink_to(path)
    listed.write_text("in/a.nii.gz\n")
    for given, output in (
        *((folder, output) for output in (folder, tmp_path / "link", folder / ".." / "in")),
        *((given, folder) for given in (path, listed, link.parent, link)),
        (path, path),
    ):
        assert problem(given, output) == ("--output", "input", f"{output} for both")
    assert find_sources(path, folder / "b.nii.gz")[0].output == folder / "b.nii.gz"
    # Links into the output folder, by which a result would replace what another, or the same, is read from.
    assert problem(link, path)[2] == f"{path} for both, which is the input {link}"
    out.mkdir()
    (out / "a.nii.gz").symlink_to(path)
    for given in (path, folder):
        assert problem(given, out)[2] == f"{out / 'a.nii.gz'} for both, which is the input {path}"


def test_probabilities_never_fall_on_inputs(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "probabilities/a.nii.gz")
    assert find_sources(path.parent, tmp_path)[0].output == tmp_path / "a.nii.gz"
    (tmp_path / "list.txt").write_text("probabilities/a.nii.gz\tb\n")
    for given in (path, path.parent, tmp_path / "list.txt"):
        assert problem(given, tmp_path, probabilities=True)[:2] == ("--output", "input")


def test_results_never_fall_among_slices(tmp_path: Path) -> None:
    dicom(*(tmp_path / "studies" / name for name in ("one/1.dcm", "one/2.dcm", "two/1.dcm")))
    studies, one = tmp_path / "studies", tmp_path / "studies" / "one"
    for given, output in ((one, one), (one, one / "labels.nii.gz"), (studies, one)):
        assert problem(given, output) == ("--output", "input", f"{output} for both")
    assert find_sources(one, tmp_path / "out")[0].output == tmp_path / "out" / "one.nii.gz"


def test_what_is_no_input_or_no_output_is_said(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    a, jpeg, listed = touch(tmp_path, "in/a.nii.gz", "a.jpg", "list.txt")
    assert problem(tmp_path / "none", out)[:2] == ("--input", "missing")
    assert problem(tmp_path / "empty", out) == (str(tmp_path / "empty"), "empty", "none")
    assert problem(jpeg, out) == ("--input", "format", str(jpeg))
    assert problem(listed, out) == (str(listed), "empty", "none")
    assert problem(a.parent, tmp_path / "b.nii.gz") == ("--output", "folder", str(tmp_path / "b.nii.gz"))
    for name in ("b.mha", "b.png", "b.tar.gz", "a.jpg"):
        assert problem(a, tmp_path / name) == ("--output", "ending", str(tmp_path / name))
    for given in (a, a.parent):
        below = jpeg / "below" / "out"
        assert problem(given, below) == (str(below), "folder", f"the file {jpeg}")
    touch(tmp_path / "in", "a_0000.nii.gz", "a_0002.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "c_2021.nii.gz")
    assert problem(tmp_path / "in", out) == ("case a", "channels", "no a_0001.nii.gz")


def test_a_link_that_leads_back_to_itself_costs_itself_alone(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.nii.gz")
    (tmp_path / "in" / "loop.nii.gz").symlink_to("loop.nii.gz")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["a.nii.gz", "loop.nii.gz"]
    (tmp_path / "out").symlink_to("out")
    path, kind, _ = problem(tmp_path / "in", tmp_path / "out")
    assert (path, kind) == (str(tmp_path / "out"), "link")


def test_a_name_that_no_result_can_have_costs_itself_alone(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.nii.gz", "b_\udcff.nii.gz", f"{'c' * 251}.nii", f"{'d' * 248}.nii.gz")
    sources = find_sources(tmp_path / "in", tmp_path / "out")
    assert [source.problem and source.problem.kind for source in sources] == [None, "encoding", "name", None]
    assert [len(source.results) for source in sources] == [1, 0, 0, 1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_among_scans_is_not_waited_for(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.nii.gz")
    os.mkfifo(tmp_path / "in" / "b.mhd")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["a.nii.gz", "b.nii.gz"]
