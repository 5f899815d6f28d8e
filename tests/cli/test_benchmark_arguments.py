"""The command line of the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli.benchmark_arguments import BenchmarkArguments, Target, parse_benchmark
from seg.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("name: small")
    return path


def problems_of(*argv: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_benchmark(list(map(str, argv)))
    return list(caught.value.sentences)


def test_networks_are_kept_in_the_order_given(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    argv = ["--run_dir", tmp_path, "--config", file, "--run_dir", other, "--rounds", 4, "--device", "cpu", "--peers"]
    assert parse_benchmark(list(map(str, argv))) == BenchmarkArguments(
        targets=(
            Target(kind="run_dir", path=tmp_path),
            Target(kind="config", path=file),
            Target(kind="run_dir", path=other),
        ),
        rounds=4,
        device="cpu",
        peers=True,
    )


def test_a_volume_is_a_shape(file: Path) -> None:
    argv = ["--config", str(file), "--volume_shape", "4", "5", "6", "--num_classes", "3", "--num_channels", "2"]
    found = parse_benchmark([*argv, "--data.root", str(file.parent), "--output", "out.json"])
    assert (found.volume_shape, found.num_classes, found.num_channels) == ((4, 5, 6), 3, 2)
    assert (found.data_root, found.output) == (file.parent, Path("out.json"))
    assert found.volume_spacing is None
    assert parse_benchmark([*argv, "--volume_spacing", "1", "0.5", "2"]).volume_spacing == (1.0, 0.5, 2.0)
    assert problems_of("--config", file, "--volume_spacing", 1, 0, "nan") == [
        "--volume_spacing must be three numbers above 0, got 1 0 nan.",
        "--volume_spacing must come with --volume_shape, got it alone; add it.",
    ]


def test_nothing_to_measure() -> None:
    assert problems_of() == ["--run_dir or --config must be given, got neither; see --help."]


def test_all_problems_are_named_together(tmp_path: Path, file: Path) -> None:
    argv = ("--run_dir", "nowhere", "--config", "none.yaml", "--config", file, "--config", file, "--data.root", "gone")
    numbers = ("--rounds", 2, "--warmup", "some", "--cases", -1, "--num_classes", 1)
    volume = ("--volume_shape", 1, 0, 2, "--peers", "--output", tmp_path, "--data_root", "x")
    assert problems_of(*argv, *numbers, *volume) == [
        "--data_root is no option; did you mean --data.root?",
        "--run_dir must be a directory, got nowhere; check the path.",
        "--config must be a YAML file, got none.yaml; check the path.",
        f"--run_dir and --config must each name something else, got {file} more than once; leave one out.",
        "--rounds must be an integer of at least 3, got 2.",
        "--warmup must be an integer of at least 1, got some.",
        "--cases must be an integer of at least 0, got -1.",
        "--num_classes must be an integer of at least 2, got 1.",
        "--volume_shape must be three integers of at least 1, got 1 0 2.",
        "--volume_shape must come with one network, got 4; measure each alone.",
        "--peers must not come with --volume_shape, which measures the project's prediction; leave one out.",
        "--num_classes must come with --config alone, got it with --run_dir, which knows its classes.",
        "--data.root must be the folder of a data set, got gone; check the path.",
        f"--output must be a file, got the folder {tmp_path}; add a file name.",
    ]


def test_channels_go_with_classes(file: Path) -> None:
    assert problems_of("--config", file, "--num_channels", 2) == [
        "--num_channels must come with --num_classes, got it alone; add it, or let the data set say both."
    ]
