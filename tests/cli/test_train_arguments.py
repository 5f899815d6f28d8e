from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli import parse_train
from seg.config import BottleneckConfig, ExperimentConfig, dump_config, load_config
from seg.config.fields import REQUIRED, fields_of
from seg.config.text import as_yaml
from seg.errors import ConfigError

FIELDS = fields_of(ExperimentConfig)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Names a file that leaves every field at its default but the fold."""
    file = tmp_path / "config.yaml"
    file.write_text("fold: 3\n")
    return str(file)


def problems_of(*argv: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_train(argv)
    return caught.value.sentences


def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parse_train(["--help"])
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_file_decides_where_the_command_line_is_silent(config: str) -> None:
    arguments = parse_train(["--config", config])
    assert arguments.config == load_config([Path(config)])
    assert arguments.folds == (3,)
    assert (arguments.run_dir, arguments.resume, arguments.config.training.init_from) == (None, False, None)


def test_every_option_arrives(config: str, tmp_path: Path) -> None:
    options = ["--run_dir", "runs/x", "--fold", "1", "--seed", "7", "--init_from", str(tmp_path)]
    fields = ["--network.channels", "[8,16,32,64]", "--network.skip_bottleneck.ratio=0.5", "--data.splits", "null"]
    arguments = parse_train(["--config", config, *options, *fields])
    assert arguments.run_dir == Path("runs/x")
    assert arguments.folds == (1,)
    assert (arguments.config.fold, arguments.config.seed) == (1, 7)
    assert arguments.config.network.channels == (8, 16, 32, 64)
    assert arguments.config.network.skip_bottleneck == BottleneckConfig(ratio=0.5)
    assert arguments.config.training.init_from == str(tmp_path)


def test_all_folds(config: str) -> None:
    arguments = parse_train(["--config", config, "--fold", "all"])
    assert arguments.folds is None
    assert arguments.config.fold == 3


def test_the_last_of_two_options_wins(config: str) -> None:
    many = ["--config", config, "--network.skip_bottleneck", "null", "--network.skip_bottleneck.norm", "true"]
    assert parse_train(many).config.network.skip_bottleneck == BottleneckConfig(norm=True)
    assert parse_train([*many, "--network.skip_bottleneck", "null"]).config.network.skip_bottleneck is None
    assert parse_train(["--config", config, "--fold", "all", "--fold", "2"]).folds == (2,)


def test_a_run_is_resumed_with_its_own_configuration(tmp_path: Path) -> None:
    own = load_config([], {"seed": 11})
    (tmp_path / "config.yaml").write_text(dump_config(own))
    arguments = parse_train(["--run_dir", str(tmp_path), "--resume"])
    assert (arguments.config, arguments.resume, arguments.run_dir) == (own, True, tmp_path)


def test_a_cross_validation_is_resumed_with_the_configuration_of_its_folds(tmp_path: Path) -> None:
    for fold in (0, 1):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "config.yaml").write_text(dump_config(load_config([], {"seed": 11, "fold": fold})))
    arguments = parse_train(["--run_dir", str(tmp_path), "--resume"])
    assert (arguments.config.seed, arguments.folds, arguments.run_dir) == (11, None, tmp_path)
    assert parse_train(["--run_dir", str(tmp_path), "--resume", "--fold", "1"]).folds == (1,)


def test_misuse_is_reported_all_at_once(config: str) -> None:
    argv = ["--config", config, "--sed", "3", "extra", "--network.chanels=[1]", "more", "--fold", "first", "--resume"]
    found = problems_of(*argv, "--init_from", "absent", "--patches.size", "[41,48,40]")
    names = ("--sed", "unexpected argument 'extra'", "--network.chanels", "unexpected argument 'more'", "--init_from")
    assert [name in problem for name, problem in zip(names, found, strict=False)] == [True] * 5
    assert [problem.split(" ")[0] for problem in found[5:]] == ["fold", "patches.size[0]"]


def test_a_group_of_fields_is_no_option(config: str) -> None:
    assert problems_of("--config", config, "--network", "null") == (
        "--network is a group, whose fields are set one by one, as in --network.name VALUE; see --help.",
    )


def test_a_configuration_must_be_named() -> None:
    assert problems_of() == ("--config must name a YAML file, got none; an example is --config configs/phantom.yaml.",)


def test_an_option_without_its_value_is_refused(config: str) -> None:
    assert problems_of("--config", config, "--run_dir") == ("argument --run_dir: expected one argument; see --help.",)


def test_help_explains_every_field_with_its_range_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(capsys)
    for field in FIELDS.values():
        if field.section is None or field.optional:
            assert f" --{field.path} " in text
            assert field.description.removesuffix(".") in text
    assert (
        "Voxel size (X, Y, Z) after resampling, in mm; null keeps each volume's own grid, > 0. (default: null)" in text
    )
    assert "--fold N|all Fold whose validation cases" in text
    assert "--network.strides [[INT,INT,INT],...] " in text
    assert "in (0, 4]. (default once network.skip_bottleneck is given: 0.25)" in text
    assert "(to be given where data.ct is)" in text


def test_every_default_can_be_typed_in() -> None:
    typed = {
        path: as_yaml(field.default)
        for path, field in FIELDS.items()
        if field.section is None and field.default is not REQUIRED and "bottleneck." not in path
    }
    assert load_config([], typed) == ExperimentConfig()
