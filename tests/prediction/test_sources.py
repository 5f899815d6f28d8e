from __future__ import annotations

from pathlib import Path

import pytest

from seg.errors import ConfigError, DataError
from seg.inference.cases import find_sources


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def found(input_path: Path, output: Path) -> dict[str, list[str]]:
    """Names of the files of each case, by the name of its result."""
    sources = find_sources(input_path, output)
    assert all(source.output.parent == output for source in sources)
    return {source.output.name: [path.name for path in source.paths] for source in sources}


def test_a_folder_is_its_cases(tmp_path: Path) -> None:
    touch(tmp_path / "in", "b.nii.gz", "a.nii", "c.mha", ".hidden.nii.gz", "notes.md", "predictions.json")
    assert found(tmp_path / "in", tmp_path / "out") == {
        "a.nii.gz": ["a.nii"],
        "b.nii.gz": ["b.nii.gz"],
        "c.nii.gz": ["c.mha"],
    }


def test_files_numbered_from_0000_are_channels_of_one_case(tmp_path: Path) -> None:
    names = ["x_0000.nii.gz", "x_0001.nii.gz", "y_0000.nii.gz", "scan_2021.nii.gz", "hippocampus_001.nii.gz"]
    touch(tmp_path / "in", *names)
    assert found(tmp_path / "in", tmp_path / "out") == {
        "hippocampus_001.nii.gz": ["hippocampus_001.nii.gz"],
        "scan_2021.nii.gz": ["scan_2021.nii.gz"],
        "x.nii.gz": ["x_0000.nii.gz", "x_0001.nii.gz"],
        "y.nii.gz": ["y_0000.nii.gz"],
    }
    assert found(tmp_path / "in" / "x_0000.nii.gz", tmp_path / "out") == {
        "x.nii.gz": ["x_0000.nii.gz", "x_0001.nii.gz"]
    }


def test_endings_may_be_in_capitals(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    touch(folder, "UP.NII.GZ", "Scan.Nii", "x_0000.NII.GZ", "x_0001.nii.gz", "y.MHA")
    assert found(folder, tmp_path / "out") == {
        "Scan.nii.gz": ["Scan.Nii"],
        "UP.nii.gz": ["UP.NII.GZ"],
        "x.nii.gz": ["x_0000.NII.GZ", "x_0001.nii.gz"],
        "y.nii.gz": ["y.MHA"],
    }
    assert found(folder / "x_0000.NII.GZ", tmp_path / "out") == {"x.nii.gz": ["x_0000.NII.GZ", "x_0001.nii.gz"]}
    (_, _, _, first, _) = sorted(folder.iterdir())
    first.rename(folder / "up.NII.GZ")
    (folder / "up.nii.gz").touch()
    assert message(folder, tmp_path / "out").startswith("inputs must have different names, got ")


def test_a_file_goes_to_a_file_or_into_a_folder(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "scan.nii")
    (source,) = find_sources(path, tmp_path / "labels.nii.gz")
    assert (source.name, source.output) == ("scan", tmp_path / "labels.nii.gz")
    assert source.probabilities == tmp_path / "probabilities" / "labels.nii.gz"
    (source,) = find_sources(path, tmp_path / "new")
    assert source.output == tmp_path / "new" / "scan.nii.gz"


def test_a_folder_of_slices_is_one_case(tmp_path: Path) -> None:
    series = tmp_path / "in" / "series"
    series.mkdir(parents=True)
    (series / "IM0001").write_bytes(bytes(128) + b"DICM")
    touch(tmp_path / "in", "other/readme.txt")
    assert found(tmp_path / "in", tmp_path / "out") == {"series.nii.gz": ["series"]}
    assert found(series, tmp_path / "out") == {"series.nii.gz": ["series"]}


def message(input_path: Path, output: Path) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        find_sources(input_path, output)
    return str(caught.value)


def test_results_never_fall_on_inputs(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "in/a.nii.gz")
    folder = path.parent
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b.nii.gz").symlink_to(path)
    for output in (folder, tmp_path / "link", folder / ".." / "in"):
        expected = f"--output must be another folder than that of the inputs, got {output} for both."
        assert message(folder, output) == expected
    assert message(path, path) == f"--output must be another file than --input, got {path} for both."
    assert message(path, folder) == (
        f"--output must be another folder than that of the input, got {folder} for both; name a file ending in .nii.gz "
        "to write beside it."
    )
    assert find_sources(path, folder / "b.nii.gz")[0].output == folder / "b.nii.gz"
    (tmp_path / "list.txt").write_text("in/a.nii.gz\n")
    assert "must be another folder than that of the inputs" in message(tmp_path / "list.txt", folder)
    # Links into the output folder, by which a result would replace what another, or the same, is read from.
    expected = f"--output must be another folder than that of the inputs, got {folder} for both."
    assert message(tmp_path / "links", folder) == expected
    (tmp_path / "list.txt").write_text("links/b.nii.gz\n")
    assert message(tmp_path / "list.txt", folder) == expected
    assert "must be another folder than that of the input, got" in message(tmp_path / "links" / "b.nii.gz", folder)
    assert message(tmp_path / "links" / "b.nii.gz", path) == (
        f"--output must be another file than --input, got {path} for both, which is the input "
        f"{tmp_path / 'links' / 'b.nii.gz'}."
    )


def test_no_result_leads_to_an_input_by_a_link(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "in/a.nii.gz")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.nii.gz").symlink_to(path)
    for given in (path, path.parent):
        assert message(given, out) == (
            f"--output must be another file than --input, got {out / 'a.nii.gz'} for both, which is the input {path}."
        )


def test_probabilities_never_fall_on_inputs(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "probabilities/a.nii.gz")
    assert find_sources(path.parent, tmp_path)[0].output == tmp_path / "a.nii.gz"
    for given in (path, path.parent):
        with pytest.raises(ConfigError) as caught:
            find_sources(given, tmp_path, probabilities=True)
        what = (
            f"file than --input, got {path}" if given == path else f"folder than that of the inputs, got {path.parent}"
        )
        assert str(caught.value) == f"--output must be another {what} for both."
    (tmp_path / "list.txt").write_text("probabilities/a.nii.gz\tb\n")
    with pytest.raises(ConfigError, match="must be another folder than that of the inputs"):
        find_sources(tmp_path / "list.txt", tmp_path, probabilities=True)


def test_results_never_fall_among_slices(tmp_path: Path) -> None:
    slices = touch(tmp_path, "studies/one/1.dcm", "studies/one/2.dcm", "studies/two/1.dcm")
    for path in slices:  # the mark of DICOM
        path.write_bytes(bytes(128) + b"DICM")
    studies, one = tmp_path / "studies", tmp_path / "studies" / "one"
    expected = f"--output must be another folder than that of the slices, got {one}; name another."
    assert message(one, one) == expected
    assert message(one, one / "labels.nii.gz") == expected.replace(str(one), str(one / "labels.nii.gz"))
    assert message(studies, one) == f"--output must be another folder than that of the inputs, got {one} for both."
    assert find_sources(one, tmp_path / "out")[0].output == tmp_path / "out" / "one.nii.gz"


def test_results_never_fall_on_one_another(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "in", "a.nii", "a.nii.gz")
    assert message(tmp_path / "in", tmp_path / "out") == (
        f"inputs must have different names, got {a} and {b} for {tmp_path / 'out' / 'a.nii.gz'}; rename one, name its "
        "label map behind a tab in a list, or predict it by itself."
    )


def test_what_is_no_input_or_no_output_is_said(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "which does not exist" in message(tmp_path / "none", out)
    (tmp_path / "empty").mkdir()
    assert "or folders of DICOM slices, got none; check --input." in message(tmp_path / "empty", out)
    a, jpeg, listed = touch(tmp_path, "in/a.nii.gz", "a.jpg", "list.txt")
    assert f"got {jpeg}; convert it." in message(jpeg, out)
    assert "must name at least one image" in message(listed, out)
    listed.write_text("..\n")
    assert message(listed, out) == f"{listed}: each line must name files, got '..'; correct the line."
    assert message(a.parent, tmp_path / "b.nii.gz") == (
        f"--output must be a folder where --input is a folder or a list, got {tmp_path / 'b.nii.gz'}."
    )
    assert message(a, tmp_path / "b.mha").endswith("label maps are NIfTI.")
    assert message(a, jpeg).startswith("--output must be a file ending in .nii.gz or .nii, or a folder, got the file")
