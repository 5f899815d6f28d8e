from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from seg.cli import load_config
from seg.config import BottleneckConfig, CtConfig, ExperimentConfig
from seg.errors import ConfigError

Write = Callable[[str], Path]
FIELDS_OF_TRAINING = "steps, validate_every, accumulate, precision, ema_decay, early_stop, init_from, device, progress"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Gives a function that writes YAML text to a new file."""

    def write_text(text: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def problems_of(*files: Path, **overrides: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(files, {path.replace("__", "."): value for path, value in overrides.items()})
    # File names differ from run to run.
    return [problem.removeprefix(f"{files[-1]}: ") if files else problem for problem in caught.value.sentences]


def test_without_files_there_are_the_defaults() -> None:
    assert load_config([]) == ExperimentConfig()


def test_values_take_the_types_of_their_fields(write: Write) -> None:
    config = load_config(
        [
            write(
                "optimizer: {learning_rate: 1e-3, weight_decay: 0}\n"
                "network: {channels: [8, 16, 32, 64], skip_bottleneck: {ratio: [1, 0.5, 0.25]}}\n"
                "data: {spacing_mm: [1, 1, 2.5], splits: 'null'}\n"
                "training: {progress: no}\n"
            )
        ]
    )
    assert config.optimizer.learning_rate == 0.001
    assert isinstance(config.optimizer.weight_decay, float)
    assert config.network.channels == (8, 16, 32, 64)
    assert config.network.skip_bottleneck == BottleneckConfig(ratio=(1.0, 0.5, 0.25))
    assert config.data.spacing_mm == (1.0, 1.0, 2.5)
    assert config.data.splits == "null"  # quoted in the file: a name, not nothing
    assert config.training.progress is False


def test_three_mistakes_are_all_reported(write: Write) -> None:
    file = write("network:\n  chanels: [1]\n  skip_bottleneck: {ratio: 0}\npatches: {batch: two}\n")
    with pytest.raises(ConfigError) as caught:
        load_config([file])
    assert caught.value.sentences == (
        f"{file}: unknown field network.chanels; did you mean network.channels?",
        f"{file}: patches.batch must be an integer, got 'two'.",
        "network.skip_bottleneck.ratio must be in (0, 4], got 0.",
    )


def test_an_unknown_field_hides_no_other_mistake_of_its_section(write: Write) -> None:
    assert problems_of(write("network: {foo: 1, skip_bottleneck: {ratio: 0}, decoder_bottleneck: {ratio: 9}}")) == [
        "unknown field network.foo; the fields of network are name, channels, strides, kernel_sizes, skip_bottleneck, "
        "decoder_bottleneck, upsample, merge, residual, deep_supervision.",
        "network.skip_bottleneck.ratio must be in (0, 4], got 0.",
        "network.decoder_bottleneck.ratio must be in (0, 4], got 9.",
    ]
    assert problems_of(write("training: {lr: 1, steps: -5, ema_decay: 2}"))[:3] == [
        f"unknown field training.lr; the fields of training are {FIELDS_OF_TRAINING}.",
        "training.steps must be >= 1, got -5.",
        "training.ema_decay must be in [0, 1), got 2.",
    ]  # and what does not go together with -5 steps


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("training.learning_rate", "optimizer.learning_rate"),  # of another section
        ("netwrk.skip_bottleneck.ratio", "network.skip_bottleneck.ratio"),  # of two ratios
        ("netwrk", "network"),
        ("training.stop", "training.steps"),  # a guess, by which no rule is left out
    ],
)
def test_an_unknown_field_is_answered_with_the_closest_one(path: str, meant: str) -> None:
    assert problems_of(**{path.replace(".", "__"): "1"}) == [f"unknown field {path}; did you mean {meant}?"]


def test_a_guess_at_a_field_leaves_its_rules_in_force(write: Write) -> None:
    assert problems_of(write("training: {stop: 3, steps: -5}"))[:2] == [
        "unknown field training.stop; did you mean training.steps?",
        "training.steps must be >= 1, got -5.",
    ]


def test_a_group_is_not_set_as_one(write: Write) -> None:
    assert problems_of(training="null") == [
        "training must be a group of fields, got null; its fields are set one by one, as training.steps is."
    ]


def test_mistakes_of_several_files_and_overrides_are_reported_together(write: Write) -> None:
    one, other = write("sed: 3"), write("fold: [1]")
    with pytest.raises(ConfigError) as caught:
        load_config([one, other, Path("absent.yaml")], {"loss.smooth": "0", "training.epochs": "5"})
    assert caught.value.sentences == (
        f"{one}: unknown field sed; did you mean seed?",
        f"{other}: fold must be an integer, got [1].",
        "absent.yaml: must be a readable file, got 'No such file or directory'.",
        f"unknown field training.epochs; the fields of training are {FIELDS_OF_TRAINING}.",
        "loss.smooth must be > 0, got 0.",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: 1.5", "seed must be an integer, got 1.5."),
        ("seed: true", "seed must be an integer, got true."),
        ("seed: null", "seed must be an integer, got null."),
        ("name: 5", "name must be text, got 5."),
        ("loss: {smooth: true}", "loss.smooth must be a number, got true."),
        ("loss: {batch_dice: 1}", "loss.batch_dice must be true or false, got 1."),
        ("data: {cache: disc}", "data.cache must be one of auto, memory, disk, none, got 'disc'."),
        ("training: {early_stop: often}", "training.early_stop must be an integer or null, got 'often'."),
        ("patches: {size: [8, 8]}", "patches.size must be a list of 3 integers, got [8, 8]."),
        ("patches: {size: 8}", "patches.size must be a list of 3 integers, got 8."),
        ("network: {channels: [8, null]}", "network.channels must be a list of integers, got [8, None]."),
        ("network: {strides: [1, 2]}", "network.strides must be a list of lists of 3 integers, got [1, 2]."),
        (
            "network: {skip_bottleneck: {ratio: half}}",
            "network.skip_bottleneck.ratio must be a number or a list of numbers, got 'half'.",
        ),
        ("network: {skip_bottleneck: 0.5}", "network.skip_bottleneck must be a group of fields or null, got 0.5."),
        ("training: null", "training must be a group of fields, got null."),
        ("data: {normalization: [hu]}", "data.normalization must be a list of values of zscore, ct, none, got ['hu']."),
        ("completely_other: 1", "unknown field completely_other; see --help for those there are."),
        ("1: 2", "unknown field 1; see --help for those there are."),
        ("data.root: x", "data.root must be nested, one level per line, got a name with dots."),
    ],
)
def test_a_wrong_value_is_named_with_what_its_field_takes(write: Write, text: str, problem: str) -> None:
    assert problems_of(write(text)) == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- 1", "must hold fields and their values, got [1]."),
        ("seed: 1\nseed: 2", "must be valid YAML; line 2, column 1: seed is given twice."),
        ("seed: [1", "must be valid YAML; line 1, column 9: expected ',' or ']', but got '<stream end>'."),
        (
            "network: &n\n  skip_bottleneck: *n",
            "must be valid YAML; line 2, column 20: aliases are not read; write the value out.",
        ),
        (
            "seed: !!python/object/apply:os.getcwd []",
            "must be valid YAML; line 1, column 7: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'.",
        ),
        ("name: 2020-13-45", "must be valid YAML; month must be in 1..12."),
        (
            "schema_version: 2\nnew_field: 1",
            "was written by a newer version of seg: schema_version must be at most 1, got 2; update seg.",
        ),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(write: Write, text: str, problem: str) -> None:
    assert problems_of(write(text)) == [problem]


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "image.yaml"
    file.write_bytes(b"\xff\xd8\xff")
    assert problems_of(file) == ["must be UTF-8 text, got other bytes at position 0."]


def test_a_file_of_comments_changes_nothing(write: Write) -> None:
    assert load_config([write("# nothing\n")]) == ExperimentConfig()


def test_later_files_overlay_earlier_ones_field_by_field(write: Write) -> None:
    base = write("training: {steps: 1000, ema_decay: 0.5}\nnetwork: {channels: [8, 16, 32, 64]}")
    config = load_config([base, write("training: {steps: 400}")], {"training.ema_decay": "0.25"})
    assert (config.training.steps, config.training.ema_decay) == (400, 0.25)
    assert config.network.channels == (8, 16, 32, 64)


def test_an_overlay_takes_an_optional_section_away_and_brings_it_back(write: Write) -> None:
    base = write("network: {skip_bottleneck: {ratio: 0.5, norm: true}}")
    nothing = write("network: {skip_bottleneck: null}")
    again = write("network: {skip_bottleneck: {activation: relu}}")
    empty = write("network: {skip_bottleneck: {}}")
    assert load_config([base, nothing]).network.skip_bottleneck is None
    assert load_config([base, again]).network.skip_bottleneck == BottleneckConfig(
        ratio=0.5, norm=True, activation="relu"
    )
    assert load_config([base, nothing, again]).network.skip_bottleneck == BottleneckConfig(activation="relu")
    assert load_config([nothing, empty]).network.skip_bottleneck == BottleneckConfig()


def test_an_override_makes_or_clears_an_optional_section(write: Write) -> None:
    base = write("network: {skip_bottleneck: {ratio: 0.5}}")
    assert load_config([], {"network.skip_bottleneck.ratio": "0.125"}).network.skip_bottleneck == BottleneckConfig(
        ratio=0.125
    )
    assert load_config([base], {"network.skip_bottleneck": "null"}).network.skip_bottleneck is None
    assert load_config([base], {"network.skip_bottleneck": None}).network.skip_bottleneck is None
    assert load_config([base], {"network.skip_bottleneck": "{norm: true}"}).network.skip_bottleneck == BottleneckConfig(
        ratio=0.5, norm=True
    )
    both = {"network.skip_bottleneck": None, "network.skip_bottleneck.norm": True}
    assert load_config([base], both).network.skip_bottleneck == BottleneckConfig(norm=True)


def test_overrides_are_texts_or_values() -> None:
    texts = load_config([], {"patches.size": "[16, 32, 24]", "training.early_stop": "null", "name": "5"})
    values = load_config([], {"patches.size": (16, 32, 24), "training.early_stop": None, "name": "5"})
    assert texts == values
    assert texts.patches.size == (16, 32, 24)


def test_fields_without_default_must_be_given(write: Write) -> None:
    window = "{lower: [-100], upper: [300], mean: [40], std: [80]}"
    config = load_config([write(f"data: {{normalization: [ct], ct: {window}}}")])
    assert config.data.ct == CtConfig(lower=(-100.0,), upper=(300.0,), mean=(40.0,), std=(80.0,))
    assert problems_of(write("data: {normalization: [ct], ct: {lower: [0], upper: [1], mean: [0]}}")) == [
        "data.ct.std must be given where data.ct is, got none; add it or set data.ct to null."
    ]


def test_a_rule_is_not_judged_by_a_value_that_could_not_be_read(write: Write) -> None:
    # Three stages in two lists; by the default channels, of four stages, both would be wrong.
    stages = "strides: [[1,1,1],[2,2,2],[2,2,2]], kernel_sizes: [[3,3,3],[3,3,3],[3,3,3]]"
    assert problems_of(write(f"network: {{channels: [8, 16, x], {stages}}}")) == [
        "network.channels must be a list of integers, got [8, 16, 'x']."
    ]
    assert problems_of(write(f"network: {{chanels: [8, 16, 32], {stages}}}")) == [
        "unknown field network.chanels; did you mean network.channels?"
    ]
