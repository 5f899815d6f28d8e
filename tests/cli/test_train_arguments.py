from __future__ import annotations

from pathlib import Path

import pytest

from seg.cli import dump_config, load_config, parse_train
from seg.cli.schema import Leaf, Section, nodes
from seg.config import BottleneckConfig, ExperimentConfig
from seg.errors import ConfigError

LEAVES = [node for node in nodes().values() if isinstance(node, Leaf)]


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
    assert problems_of(*argv, "--init_from", "absent", "--patches.size", "[41,48,40]") == (
        "unknown option --sed; did you mean --seed?",
        "unexpected argument 'extra'; options have the form --name VALUE.",
        "unknown option --network.chanels; did you mean --network.channels?",
        "unexpected argument 'more'; options have the form --name VALUE.",
        "--init_from must be a run directory, got absent, which is not a folder.",
        "fold must be an integer, got 'first'.",
        "patches.size[0] must be a multiple of 8, the product of network.strides along X, got 41; "
        "the nearest valid size is 40 or 48.",
    )


def test_a_group_of_fields_is_no_option(config: str) -> None:
    assert problems_of("--config", config, "--network", "null") == (
        "--network is a group, whose fields are set one by one, as in --network.name VALUE; see --help.",
    )
    (problem,) = problems_of("--config", config, "--network.foo", "3")
    assert problem != "unknown option --network.foo; did you mean --network?"
    assert problem.startswith("unknown option --network.foo; ")


def test_a_configuration_must_be_named() -> None:
    assert problems_of() == ("--config must name a YAML file, got none; an example is --config configs/phantom.yaml.",)


def test_an_option_without_its_value_is_refused(config: str) -> None:
    assert problems_of("--config", config, "--run_dir") == ("argument --run_dir: expected one argument; see --help.",)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.path)
def test_every_field_has_an_explanation_in_the_docstring_of_its_class(leaf: Leaf) -> None:
    assert leaf.doc.endswith(".")


def test_help_explains_every_field_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(capsys)
    for node in nodes().values():
        if isinstance(node, Leaf) or node.optional:
            assert f" --{node.path} " in text
            assert node.doc in text
    assert "Voxel size (X, Y, Z) after resampling, in mm; null keeps each volume's own grid. (default: null)" in text
    assert "--fold N|all Fold whose validation cases" in text
    assert "--network.strides [[INT,INT,INT],...] " in text
    assert "(default once network.skip_bottleneck is given: 0.25)" in text
    assert "(to be given where data.ct is)" in text


def test_every_default_can_be_typed_in() -> None:
    from seg.cli.values import as_yaml

    typed = {leaf.path: as_yaml(leaf.default) for leaf in LEAVES if not is_in_optional_section(leaf)}
    assert load_config([], typed) == ExperimentConfig()


def is_in_optional_section(leaf: Leaf) -> bool:
    sections = (node for node in nodes().values() if isinstance(node, Section) and node.optional)
    return any(leaf.path.startswith(f"{section.path}.") for section in sections)
