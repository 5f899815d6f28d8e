"""Packed runs: what goes in comes out, and nothing of another archive reaches the disk."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from seg.errors import Problem, RunError
from seg.inference.archive import pack, unpacked
from seg.runs import read_runs
from tests.problems import refused

Write = Callable[[zipfile.ZipFile], object]


def test_a_run_and_the_folds_of_a_cross_validation_come_out_as_they_went_in(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    for fold in (0, 1):
        make_run(f"folds/fold_{fold}", seed=fold)
    before = read_runs([tmp_path / "folds"])
    pack(before, tmp_path / "folds.zip")
    pack(before[:1], tmp_path / "one.zip")
    with unpacked([tmp_path / "folds.zip", tmp_path / "one.zip", tmp_path / "folds" / "fold_1"]) as paths:
        assert [path.name for path in paths] == ["folds", "one", "fold_1"]
        after, one = read_runs(paths[:1]), read_runs(paths[1:2])
        assert [run.config for run in after] == [run.config for run in before]
        assert [run.description() for run in after] == [run.description() for run in before]
        assert one[0].config == before[0].config
        assert paths[2] == tmp_path / "folds" / "fold_1"
    assert not paths[0].exists()


def test_what_is_wrong_with_a_packed_run_is_said_of_its_file(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run_dir, path = make_run("good"), tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("config.yaml", "model.json", "checkpoints/weights.pt"):
            archive.writestr(name, "{")
    with refused((f"{path}/model.json", "json")), unpacked([run_dir, path]) as paths:
        read_runs(paths)
    with refused((f"{run_dir}: x", "kind", f"{path}/y"), error=RunError), unpacked([run_dir, path]) as paths:
        raise RunError(Problem(f"{paths[0]}: x", "kind", "must hold", f"{paths[1] / 'y'}"))


def test_equal_runs_give_equal_files(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run_dir = make_run()
    shutil.copytree(run_dir, tmp_path / "later" / "run")
    for name, folder in (("a", run_dir), ("b", tmp_path / "later" / "run")):
        pack(read_runs([folder]), tmp_path / f"{name}.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("config.yaml")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (lambda archive: archive.writestr("../config.yaml", "x"), "names"),
        (lambda archive: archive.writestr("/tmp/config.yaml", "x"), "names"),
        (lambda archive: archive.writestr("fold_0/../../config.yaml", "x"), "names"),
        (lambda archive: archive.writestr("config.yaml/x", "x"), "names"),
        (lambda archive: archive.writestr("checkpoints\\weights.pt", "x"), "names"),
        (lambda archive: archive.writestr("fold_0/model.json", "{}"), "layout"),
        (lambda archive: archive.writestr("config.yaml", "0" * 10**7, zipfile.ZIP_DEFLATED), "packed"),
    ],
)
def test_an_archive_of_other_parts_is_refused_whole(write: Write, kind: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        archive.writestr("model.json", "{}")
        write(archive)
    before = set(tmp_path.parent.rglob("*"))
    with pytest.raises(RunError) as caught, unpacked([tmp_path / "run.zip"]):
        pytest.fail("unpacked")
    assert [problem.kind for problem in caught.value.problems] == [kind]
    assert set(tmp_path.parent.rglob("*")) == before


def test_a_link_becomes_a_plain_file_and_a_part_given_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        link(archive)
        archive.writestr("model.json", "{}")
        archive.writestr("checkpoints/weights.pt", "x")
    with unpacked([tmp_path / "link.zip"]) as (folder,):
        assert not (folder / "config.yaml").is_symlink()
        assert (folder / "config.yaml").read_text() == "/etc/passwd"
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("config.yaml", "a")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("config.yaml", "b")
    with pytest.raises(RunError) as caught, unpacked([tmp_path / "twice.zip"]):
        pytest.fail("unpacked")
    assert [problem.kind for problem in caught.value.problems] == ["names"]


@pytest.mark.parametrize("folder", ["", "fold_1/"])
@pytest.mark.parametrize("absent", ["config.yaml", "model.json", "checkpoints/weights.pt"])
def test_a_part_that_is_absent_is_named_with_the_archive(folder: str, absent: str, tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for one in {folder, folder.replace("1", "0")}:
            for name in ("config.yaml", "model.json", "checkpoints/weights.pt"):
                if one + name != folder + absent:
                    archive.writestr(one + name, "x")
    with pytest.raises(RunError) as caught, unpacked([path]):
        pytest.fail("unpacked")
    ((place, kind, value),) = [(problem.path, problem.kind, problem.value) for problem in caught.value.problems]
    assert (place, kind) == (str(path), "missing")
    assert folder + absent in (value or "")


def test_an_archive_without_parts_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "run.zip", "w"):
        pass
    with pytest.raises(RunError) as caught, unpacked([tmp_path / "run.zip"]):
        pytest.fail("unpacked")
    assert [problem.kind for problem in caught.value.problems] == ["missing"]


def test_overlapping_parts_and_damage_are_refused(make_run: Callable[..., Path], tmp_path: Path) -> None:
    pack(read_runs([make_run()]), tmp_path / "run.zip")
    whole = (tmp_path / "run.zip").read_bytes()
    middle = len(whole) // 2
    damages = {
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "text": b"no archive",
    }
    for name, content in damages.items():
        (tmp_path / f"{name}.zip").write_bytes(content)
        with pytest.raises(RunError) as caught, unpacked([tmp_path / f"{name}.zip"]):
            pytest.fail("unpacked")
        assert [problem.kind for problem in caught.value.problems] == ["damaged"]
    # Two entries of the directory that lead to one part: more bytes of files than the archive has.
    with zipfile.ZipFile(tmp_path / "twofold.zip", "w") as archive:
        archive.writestr("fold_0/config.yaml", "0" * 1000)
        for fold in range(1, 9):
            again = zipfile.ZipInfo(f"fold_{fold}/config.yaml")
            first = archive.getinfo("fold_0/config.yaml")
            again.header_offset, again.CRC = first.header_offset, first.CRC
            again.file_size = again.compress_size = first.file_size
            archive.filelist.append(again)
    with pytest.raises(RunError) as caught, unpacked([tmp_path / "twofold.zip"]):
        pytest.fail("unpacked")
    assert [problem.kind for problem in caught.value.problems] == ["size"]
