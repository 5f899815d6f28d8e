"""Memory that can be had, from made-up files of a machine and of control groups of both versions."""

from __future__ import annotations

import pytest

from seg.data import memory


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    return tmp_path


def group(folder, limit, used, *, names, cached=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


def test_memory_is_that_of_the_container_where_it_has_a_limit(root):
    assert memory.available_bytes() is None
    (root / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   50 kB\n")
    group(root / "cgroup", "max", 9000, names=memory.V2, cached=3000)
    assert memory.available_bytes() == 50 * 1024
    group(root / "cgroup", 10000, 9000, names=memory.V2, cached=3000)
    assert memory.available_bytes() == 4000


def test_the_limit_of_a_job_lies_in_a_group_below_the_root(root):
    (root / "own").write_text("0::/slurm/job_7/step_0\n")
    group(root / "cgroup/slurm/job_7", 8000, 3000, names=memory.V2, cached=500)
    group(root / "cgroup/slurm/job_7/step_0", "max", 3000, names=memory.V2)
    group(root / "cgroup/slurm/job_8", 10, 0, names=memory.V2)
    assert memory.available_bytes() == 5500


def test_the_first_version_of_control_groups_counts_too(root):
    (root / "own").write_text("12:cpu,cpuacct:/a\n5:memory:/slurm/job_7\n1:name=systemd:/b\n")
    group(root / "cgroup/memory", 9223372036854771712, 9000, names=memory.V1)
    group(root / "cgroup/memory/slurm/job_7", 7000, 3000, names=memory.V1, cached=1000)
    assert memory.available_bytes() == 5000


@pytest.mark.parametrize(
    ("own", "folder", "names"),
    [("5:memory:/docker/abc\n", "cgroup/memory", memory.V1), ("0::/../abc\n", "cgroup", memory.V2)],
)
def test_a_container_whose_path_is_that_outside_has_its_limit_at_the_root(root, own, folder, names):
    (root / "own").write_text(own)
    group(root / folder, 6000, 1000, names=names)
    assert memory.available_bytes() == 5000
