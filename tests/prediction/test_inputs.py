"""What a folder, a disc of DICOM series or a list holds, and what its cases are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg.inference.cases import find_sources
from tests.prediction.test_sources import found, message, touch


def test_a_list_names_cases_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "today.txt"
    listed.write_text("# two\n../a/x.nii.gz\n\n../a/y_0000.nii ; ../b/pet.nii\n")
    sources = find_sources(listed, tmp_path / "out")
    assert [source.output for source in sources] == [tmp_path / "out" / "x.nii.gz", tmp_path / "out" / "y.nii.gz"]
    assert [path.resolve() for path in sources[1].paths] == [tmp_path / "a" / "y_0000.nii", tmp_path / "b" / "pet.nii"]


def test_a_line_of_a_list_may_name_its_label_map(tmp_path: Path) -> None:
    listed = tmp_path / "today.txt"
    listed.write_text("p1/ct.nii.gz\tone\np2/ct.nii.gz ; p2/pet.nii.gz \t two.nii.gz\np3/x.nii\n")
    assert found(listed, tmp_path / "out") == {
        "one.nii.gz": ["ct.nii.gz"],
        "two.nii.gz": ["ct.nii.gz", "pet.nii.gz"],
        "x.nii.gz": ["x.nii"],
    }
    listed.write_text("p1/ct.nii.gz\np2/ct.nii.gz\n")
    assert message(listed, tmp_path / "out") == (
        f"inputs must have different names, got {tmp_path / 'p1/ct.nii.gz'} and {tmp_path / 'p2/ct.nii.gz'} for "
        f"{tmp_path / 'out' / 'ct.nii.gz'}; rename one, name its label map behind a tab in a list, or predict it by "
        "itself."
    )
    for name in ("../x", "a/b", "..", "a\tb"):
        listed.write_text(f"p1/ct.nii.gz\t{name}\n")
        assert message(listed, tmp_path / "out") == (
            f"{listed}: behind a tab each line must give a plain name for its label map, got "
            f"{'p1/ct.nii.gz' + chr(9) + name!r}; correct the line."
        )


def dicom(*paths: Path, kind: bytes = b"1.2.840.10008.5.1.4.1.1.2") -> None:
    """Writes the first attributes of files: length of the group, version, and the kind of what is stored."""
    kind += bytes(len(kind) % 2)
    head = b"\x02\0\0\0UL\x04\0\xc8\0\0\0\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01\x02\0\x02\0UI"
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(128) + b"DICM" + head + len(kind).to_bytes(2, "little") + kind)


def test_series_are_found_at_any_depth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disc = tmp_path / "disc"
    dicom(*(disc / name for name in ("P1/ST1/SE1/1", "P1/ST1/SE2/1", "P1/ST2/SE1/1", "P2/1.dcm", "P2/old/1")))
    dicom(disc / "DICOMDIR", kind=b"1.2.840.10008.1.3.10")  # a list of files, not a slice
    touch(disc, "a.nii.gz", "VIEWER/run.exe", "P1/notes/x.txt")
    (disc / "P1" / "loop").symlink_to(disc)
    assert found(disc, tmp_path / "out") == {
        "P1_ST1_SE1.nii.gz": ["SE1"],
        "P1_ST1_SE2.nii.gz": ["SE2"],
        "P1_ST2_SE1.nii.gz": ["SE1"],
        "P2.nii.gz": ["P2"],
        "a.nii.gz": ["a.nii.gz"],
    }
    assert caplog.messages == [
        f"{disc}: left out, neither images nor folders of DICOM slices: DICOMDIR, P1/notes, P2/old, VIEWER"
    ]
    caplog.clear()
    assert found(disc / "P2", tmp_path / "out") == {"P2.nii.gz": ["P2"]}
    assert caplog.messages == [f"{disc / 'P2'}: left out, neither images nor folders of DICOM slices: old"]


def test_series_whose_folders_give_one_name_are_refused(tmp_path: Path) -> None:
    dicom(tmp_path / "in" / "a_b" / "1", tmp_path / "in" / "a" / "b" / "1")
    assert message(tmp_path / "in", tmp_path / "out").startswith(
        f"inputs must have different names, got {tmp_path / 'in' / 'a' / 'b'} and {tmp_path / 'in' / 'a_b'} for "
    )


def test_channels_with_a_gap_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a_0000.nii.gz", "a_0002.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "c_2021.nii.gz")
    assert message(tmp_path / "in", tmp_path / "out") == (
        "case a: channels must be numbered without a gap, got no a_0001.nii.gz; add it or renumber them."
    )


def test_what_is_left_out_of_a_folder_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "in", "a.nii", "notes.md", "nested/slices/x")
    with caplog.at_level("WARNING", logger="seg"):
        assert list(found(tmp_path / "in", tmp_path / "out")) == ["a.nii.gz"]
    assert caplog.messages == [
        f"{tmp_path / 'in'}: left out, neither images nor folders of DICOM slices: nested, notes.md"
    ]
    caplog.clear()
    for number in range(30):
        touch(tmp_path / "in", f"x{number:02}.md")
    found(tmp_path / "in", tmp_path / "out")
    assert caplog.messages[0].endswith(", x16.md, x17.md and 12 more")


def test_voxels_beside_their_header_are_no_file_that_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "in", "a.raw", "b.raw", "c.zraw")
    (tmp_path / "in" / "a.mhd").write_text("ObjectType = Image\nElementDataFile = a.raw\n")
    (tmp_path / "in" / "b.nrrd").write_text("NRRD0004\ndata file: b.raw\n\n")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["a.nii.gz", "b.nii.gz"]
    assert caplog.messages == [f"{tmp_path / 'in'}: left out, neither images nor folders of DICOM slices: c.zraw"]


def test_a_readme_beside_slices_hides_no_series(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.nii", "series/README.txt")
    (tmp_path / "in" / "series" / "slice").write_bytes(bytes(128) + b"DICM")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["a.nii.gz", "series.nii.gz"]
