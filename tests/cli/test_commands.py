"""Options of each command: what arrives, and all that is wrong with them together."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seg import cli
from seg.cli import COMMANDS, changeable, read_command
from seg.config import BottleneckConfig, ExperimentConfig, dump_config, load_config
from seg.config.fields import REQUIRED, fields_of
from seg.config.text import as_yaml
from seg.errors import ConfigError, Problem, SegError
from tests.problems import refused

ROOT = Path(__file__).parents[2]
PREDICT = ["--run_dir", "r", "--input", "i", "--output", "o"]
FOLDERS = ["--predictions", "p", "--labels", "l"]


def read(name: str, *argv: object) -> Any:
    return read_command(name, [str(word) for word in argv])


def problems(name: str, *argv: object) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        read(name, *argv)
    return [(problem.path, problem.kind, problem.value) for problem in caught.value.problems]


def warned(caplog: pytest.LogCaptureFixture) -> list[Problem]:
    return [record.args[0] for record in caplog.records if record.args and isinstance(record.args[0], Problem)]  # type: ignore[index]


def places(name: str, *argv: object) -> list[tuple[str, str]]:
    return [(path, kind) for path, kind, _ in problems(name, *argv)]


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Names a file that leaves every field at its default but the fold."""
    file = tmp_path / "config.yaml"
    file.write_text("fold: 3\n")
    return str(file)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What training was called with, in place of a training."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("seg.workflows.train.train", lambda config, **given: calls.append({"config": config, **given}))
    return calls


def test_the_file_decides_where_the_command_line_is_silent(config: str, called: list[dict[str, Any]]) -> None:
    read("train", "--config", config).run()
    assert called == [{"config": load_config([Path(config)]), "folds": (3,), "run_dir": None, "resume": False}]


def test_options_go_over_all_files(config: str, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("training: {steps: 100, validate_every: 50}\noptimizer: {warmup_steps: 5}\n")
    argv = ["--config", config, "--config", other, "--training.steps=150", "--training.progress", "false"]
    lists = ["--network.strides", "[[1,1,1],[2,2,2],[2,2,2],[1,1,1]]", "--network.skip_bottleneck.ratio", "0.25"]
    found = read("train", *argv, *lists, "--name", "010", "--data.cache", "none").experiment()
    assert (found.fold, found.training.steps, found.training.progress, found.name) == (3, 150, False, "010")
    assert (found.network.strides[3], found.data.cache) == ((1, 1, 1), "none")
    assert found.network.skip_bottleneck == BottleneckConfig(ratio=0.25)


def test_the_last_of_two_options_wins(config: str, called: list[dict[str, Any]]) -> None:
    many = ["--config", config, "--network.skip_bottleneck", "null", "--network.skip_bottleneck.norm", "true"]
    assert read("train", *many).experiment().network.skip_bottleneck == BottleneckConfig(norm=True)
    assert read("train", *many, "--network.skip_bottleneck", "null").experiment().network.skip_bottleneck is None
    read("train", "--config", config, "--fold", "all", "--fold", "2").run()
    read("train", "--config", config, "--fold", "2", "--fold", "all").run()
    assert [call["folds"] for call in called] == [(2,), None]


def test_no_environment_variable_reaches_the_configuration(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEED", "seed", "SEG_SEED", "TRAINING__STEPS", "training.steps", "CONFIG"):
        monkeypatch.setenv(name, "7")
    assert read("train", "--config", config).experiment() == load_config([Path(config)])


def test_a_run_is_resumed_with_its_own_configuration(tmp_path: Path, called: list[dict[str, Any]]) -> None:
    own = load_config([], {"seed": 11})
    (tmp_path / "environment.json").touch()
    (tmp_path / "config.yaml").write_text(dump_config(own))
    read("train", "--run_dir", tmp_path, "--resume").run()
    assert called == [{"config": own, "folds": (0,), "run_dir": tmp_path, "resume": True}]


def test_a_cross_validation_is_resumed_with_the_configuration_of_its_folds(
    tmp_path: Path, called: list[dict[str, Any]]
) -> None:
    for fold in (0, 1):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "config.yaml").write_text(dump_config(load_config([], {"seed": 11, "fold": fold})))
    read("train", "--run_dir", tmp_path, "--resume").run()
    read("train", "--run_dir", tmp_path, "--resume", "--fold", "1").run()
    assert [(call["config"].seed, call["folds"]) for call in called] == [(11, None), (11, (1,))]


@pytest.mark.parametrize(
    ("given", "folds"),
    [("0,1", (0, 1)), ("4,0,4", (4, 0)), ("1,1", (1,)), ("2", (2,)), ("all", None), ("none", (None,))],
)
def test_folds_are_listed(
    config: str, called: list[dict[str, Any]], given: str, folds: tuple[int | None, ...] | None
) -> None:
    read("train", "--config", config, "--fold", given).run()
    assert [call["folds"] for call in called] == [folds]


@pytest.mark.parametrize("given", ["0,", "0,x", "0, 1", "1.5,2"])
def test_a_list_of_other_things_is_no_list_of_folds(config: str, given: str) -> None:
    assert places("train", "--config", config, "--fold", given) == [("fold", "type")]


def test_misuse_of_train_is_reported_all_at_once(config: str, tmp_path: Path) -> None:
    file = tmp_path / "dataset.json"
    file.write_text("{}")
    argv = ["--config", config, "--sed", "3", "extra=1", "--network.chanels=[1]", "more", "--fold", "first"]
    found = places("train", *argv, "--init_from", "absent", "--patches.size", "[41,48,40]", "--network", "null")
    assert {("--sed", "unknown"), ("--network.chanels", "unknown"), ("--network", "unknown")} <= set(found)
    assert {("--init_from", "folder"), ("fold", "type"), ("patches.size[0]", "divisible")} <= set(found)
    assert places("train", "--config", config, "--data.root", file) == [("data.root", "folder")]
    assert places("train") == [("--config", "missing")]


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("--optimizer.lr", "--optimizer has name, learning_rate, "),  # no name of the section is like it
        ("--optimizer.learnin_rate", "did you mean --optimizer.learning_rate?"),
        ("--optimiser.learning_rate", "did you mean --optimizer.learning_rate?"),
    ],
)
def test_an_unknown_option_is_answered_from_its_own_section(config: str, given: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("train", "--config", config, given, "1")
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == (given, "unknown")
    assert problem.remedy.startswith(remedy)


def test_configurations_of_the_package_are_found_by_name() -> None:
    assert read("train", "--config", "phantom").experiment() == load_config([ROOT / "configs" / "phantom.yaml"])
    with pytest.raises(ConfigError, match=r"did you mean phantom\?") as caught:
        read("train", "--config", "fantom")
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("--config fantom", "unknown")]


@pytest.mark.parametrize("name", ["a" * 300, "x/" + "b" * 256, "\udcff"])
def test_names_that_no_file_can_have_are_refused(name: str, config: str) -> None:
    for argv in (
        ("train", "--config", name),
        ("train", "--config", config, "--run_dir", name),
        ("train", "--config", config, "--data.root", name),
        ("predict", "--run_dir", "r", "--input", name, "--output", "o"),
    ):
        ((_, kind),) = places(*argv)
        assert kind in ("name", "text")


def test_every_default_can_be_typed_in() -> None:
    typed = {
        path: as_yaml(field.default)
        for path, field in fields_of(ExperimentConfig).items()
        if field.section is None and field.default is not REQUIRED
        if "bottleneck." not in path and ".widths." not in path
    }
    assert load_config([], typed) == ExperimentConfig()


def test_predict() -> None:
    found = read("predict", *PREDICT, "--run_dir", "s", "--device", "cpu", "--tta", "--skip_existing")
    assert (found.run_dir, found.input, found.output) == ((Path("r"), Path("s")), Path("i"), Path("o"))
    assert (found.device, found.precision, found.tta, found.probabilities) == ("cpu", "auto", True, False)
    assert sorted(problems("predict", *PREDICT, "--precision", "fp16", "--device", "tpu")) == [
        ("--device", "type", "'tpu'"),
        ("--precision", "type", "'fp16'"),
    ]
    assert places("predict", "--tta", "--skip_existing", "--overwrite", "--imput", "x") == [
        ("--imput", "unknown"),
        ("--run_dir", "missing"),
        ("--input", "missing"),
        ("--output", "missing"),
        ("--skip_existing", "conflict"),
    ]


def test_the_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = read("predict", "--run_dir", "~/a", "b/~", "--input", "~/scans", "--output=~/labels")
    assert found.run_dir == (Path("/home/me/a"), Path("b/~"))
    assert (found.input, found.output) == (Path("/home/me/scans"), Path("/home/me/labels"))


def test_evaluate_of_two_folders() -> None:
    argv = [*FOLDERS, "--class_names", "liver, tumour", "--ignore_label", "-1", "--nsd_tolerance_mm", "2.5"]
    found = read("evaluate", *argv, "--patient_pattern", r"(p\d+)_", "--workers", "2")
    assert (found.ignore_label, found.nsd_tolerance_mm, found.workers) == (-1, 2.5, 2)
    assert found._names() == ("background", "liver", "tumour")


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ([*FOLDERS, "--workers", "0"], [("--workers", "range")]),
        ([*FOLDERS, "--class_names", "liver,,tumour"], [("--class_names", "names")]),
        ([*FOLDERS, "--class_names", "a,b,a"], [("--class_names", "names")]),
        ([*FOLDERS, "--class_names", "background,a"], [("--class_names", "names")]),
        ([*FOLDERS, "--class_names", "a,b", "--ignore_label", "2"], [("--ignore_label", "conflict")]),
        ([*FOLDERS, "--ignore_label", "x"], [("--ignore_label", "type")]),
        ([*FOLDERS, "--nsd_tolerance_mm", "nan"], [("--nsd_tolerance_mm", "type")]),
        ([*FOLDERS, "--patient_pattern", "p"], [("--patient_pattern", "pattern")]),
        ([*FOLDERS, "--data.root", "d"], [("--data.root", "conflict")]),
        (["--run_dir", "r", "--ignore_label", "0"], [("--ignore_label", "conflict")]),
        (["--run_dir", "r", "--ignore_label", "1"], [("--ignore_label", "conflict")]),
        ([], [("--run_dir", "missing")]),
        (FOLDERS[:2], [("--run_dir", "missing")]),
        (
            ["--run_dir", "r", "--class_names", "a", "--workers", "2", "--leave_out", *FOLDERS[:2], "--lables", "l"],
            [("--lables", "unknown")]
            + [(f"--{name}", "conflict") for name in ("predictions", "class_names", "workers", "leave_out")],
        ),
    ],
)
def test_misuse_of_evaluate(argv: list[str], found: list[tuple[str, str]]) -> None:
    assert places("evaluate", *argv) == found


def test_plan(tmp_path: Path) -> None:
    found = read("plan", "--data.root", tmp_path, "--data.layout", "msd", "--memory_gib", "2", "--output", "new.yaml")
    assert (found.data__root, found.data__layout, found.memory_gib) == (tmp_path, "msd", 2.0)
    file = tmp_path / "there.yaml"
    file.write_text("")
    assert places("plan", "--data.root", file, "--memory_gib", "0", "--output", file, "--data.layout", "x") == [
        ("--data.layout", "type"),
        ("--memory_gib", "range"),
        ("--data.root", "folder"),
        ("--output", "exists"),
    ]
    assert read("plan", "--data.root", "d", "--output", file, "--overwrite").overwrite
    assert places("plan", "--data.root", "d", "--output", "new/") == [("--output", "name")]
    assert places("plan", "--output", tmp_path, "--data_root", "x") == [
        ("--data_root", "unknown"),
        ("--data.root", "missing"),
        ("--output", "file"),
    ]


def test_ablate() -> None:
    argv = ["--config", "s.yaml", "--only", "a", "--only", "b", "--launch.workers", "2", "--folds", "[0,1]"]
    found = read("ablate", *argv, "--set", "training.steps=70", "--set=network.merge=add", "--data.root", "d")
    assert (found.config, found.only, found.set) == (
        Path("s.yaml"),
        ("a", "b"),
        ("training.steps=70", "network.merge=add"),
    )
    assert (found.changes, found.data__root) == ({"launch.workers": "2", "folds": "[0,1]"}, "d")
    assert places("ablate", "--dry_run", "--speed_only", "--set", "=3", "--lauch.workers", "2") == [
        ("--lauch.workers", "unknown"),
        ("--config", "missing"),
        ("--dry_run", "conflict"),
        ("--set", "form"),
    ]
    assert places("ablate", "--config", "s.yaml", "--ablation_dir", __file__) == [("--ablation_dir", "folder")]


def test_report(tmp_path: Path) -> None:
    assert read("report", "--ablation_dir", tmp_path).ablation_dir == tmp_path
    assert read("report", "--compare", tmp_path, tmp_path, "--output", "o.md").compare == (tmp_path, tmp_path)
    assert places("report") == [("--ablation_dir", "missing")]
    assert places("report", "--ablation_dir", "none", "--runs", "none", "--output", "o") == [
        ("--output", "conflict"),
        ("--runs", "folder"),
        ("--ablation_dir", "folder"),
    ]
    assert places("report", "--compare", "none", "--runs", tmp_path) == [
        ("--compare", "length"),
        ("--output", "missing"),
        ("--runs", "conflict"),
        ("--compare", "folder"),
    ]


def test_compare(tmp_path: Path) -> None:
    found = read("compare", "--baseline", "a", "b", "--variant", "c", "d", "--margin", "0.01")
    assert (found.baseline, found.variant, found.margin) == ((Path("a"), Path("b")), (Path("c"), Path("d")), 0.01)
    assert places("compare", "--base") == [("--base", "unknown"), ("--baseline", "missing"), ("--variant", "missing")]
    assert places("compare", "--baseline", "a", "b", "--variant", "c") == [("--variant", "length")]
    assert places("compare", "--baseline", "a", "--variant", "./a") == [(f"{Path('a').resolve()}", "repeated")]
    for seed in (0, 1):
        (tmp_path / f"run_{seed}").mkdir()
        (tmp_path / f"run_{seed}" / "config.yaml").write_text(f"seed: {seed}")
    argv = ("--baseline", tmp_path / "run_0", "--variant", tmp_path / "run_1")
    assert places("compare", *argv) == [("pair 1", "seeds")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cases.csv", "garbage\n"),
        ("config.yaml", ""),
        ("evaluation.json", '{"schema_version": 1}'),
        ("environment.json", '{"schema_version": 1}'),
        ("environment.json", '{"schema_version": 1, "data": 3}'),
    ],
)
def test_a_damaged_file_of_a_compared_run_is_named(tmp_path: Path, name: str, content: str) -> None:
    finished = Path(__file__).parents[1] / "compatibility/finished"
    for run in ("a", "b"):
        shutil.copytree(finished, tmp_path / run, ignore=shutil.ignore_patterns("predictions", "checkpoints"))
    (tmp_path / "b" / name).write_text(content)
    with pytest.raises(SegError) as caught:
        read("compare", "--baseline", tmp_path / "a", "--variant", tmp_path / "b").run()
    assert all(str(tmp_path / "b" / name) in problem.path for problem in caught.value.problems)


def scored_folds(folder: Path, *folds: int) -> Path:
    """Makes a run with two cases, each of another patient, in each fold."""
    folder.mkdir()
    rows = [f"case_{fold}{case},p_{fold}{case},{fold},1,a,0.5" for fold in folds for case in (0, 1)]
    (folder / "cases.csv").write_text("\n".join(["case_id,patient,fold,class_index,class_name,dice", *rows]) + "\n")
    return folder


def test_folds_that_one_side_of_a_comparison_lacks_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = [scored_folds(tmp_path / "a", 0, 1, 2), scored_folds(tmp_path / "b", 1)]
    after = [scored_folds(tmp_path / "c", 1, 3), scored_folds(tmp_path / "d", 1)]
    read("compare", "--baseline", *before, "--variant", *after).run()
    named = [(problem.path, problem.kind, problem.value) for problem in warned(caplog)]
    assert named == [(str(before[0]), "folds", "3"), (str(after[0]), "folds", "0, 2")]


def test_runs_without_a_common_fold_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [scored_folds(tmp_path / "a", 0), scored_folds(tmp_path / "b", 1)]
    after = [scored_folds(tmp_path / "c", 1), scored_folds(tmp_path / "d", 0)]  # seeds in another order
    with refused(("--variant", "folds")):
        read("compare", "--baseline", *before, "--variant", *after).run()
    assert capsys.readouterr().out == ""


def test_benchmark_keeps_networks_in_the_order_given(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    argv = ["--run_dir", tmp_path, "--config", config, "--run_dir", other, "--rounds", 4, "--device", "cpu", "--peers"]
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "seg.benchmark.run.benchmark", lambda targets, **given: calls.append({"targets": targets, **given})
    )
    read("benchmark", *argv).run()
    assert calls[0]["targets"] == [tmp_path, Path(config), other]
    assert (calls[0]["rounds"], calls[0]["device"], calls[0]["peers"], calls[0]["num_channels"]) == (4, "cpu", True, 1)
    volume = ["--config", config, "--volume_shape", 4, 5, 6, "--num_classes", 3, "--volume_spacing", 1, 0.5, 2]
    found = read("benchmark", *volume)
    assert (found.volume_shape, found.volume_spacing) == ((4, 5, 6), (1.0, 0.5, 2.0))


def test_misuse_of_benchmark(tmp_path: Path, config: str) -> None:
    assert places("benchmark") == [("--run_dir", "missing")]
    assert places("benchmark", "--plan", "record") == [("--plan record", "conflict")]
    assert places("benchmark", "--config", config, "--num_channels", 2) == [("--num_channels", "conflict")]
    assert places("benchmark", "--config", config, "--volume_spacing", 1, 0, "x") == [("--volume_spacing", "type")]
    argv = ("--run_dir", "nowhere", "--config", config, "--config", config, "--data.root", "gone", "--rounds", 2)
    more = ("--cases", -1, "--warmup", "some", "--volume_shape", 1, 0, 2, "--peers", "--output", tmp_path)
    assert sorted(places("benchmark", *argv, *more, "--data_root", "x")) == [
        ("--cases", "range"),
        ("--config", "repeated"),
        ("--data.root", "folder"),
        ("--data_root", "unknown"),
        ("--output", "file"),
        ("--rounds", "range"),
        ("--run_dir", "folder"),
        ("--volume_shape[1]", "range"),
        ("--warmup", "type"),
    ]


UNREAD = {"engines": "openvino", "rounds": 15, "cases": 77, "warmup": 9}


@pytest.mark.parametrize(
    ("instead", "unread"),
    [
        (("--volume_shape", 4, 5, 6), UNREAD),
        (("--plan", "tiny"), UNREAD | {"num_classes": 7, "num_channels": 2}),
    ],
)
def test_options_of_what_benchmark_does_not_measure_are_refused(
    config: str, instead: tuple[object, ...], unread: dict[str, object]
) -> None:
    assert read("benchmark", "--config", config, *instead, "--device", "cpu").device == "cpu"
    for name, value in unread.items():
        more = ("--num_classes", 3) if name == "num_channels" else ()
        found = places("benchmark", "--config", config, *instead, f"--{name}", value, *more)
        assert (f"--{name}", "conflict") in found
        assert len(found) == 1 + bool(more)
    words = [word for name, value in unread.items() for word in (f"--{name}", value)]
    assert sorted(places("benchmark", "--config", config, *instead, *words)) == sorted(
        (f"--{name}", "conflict") for name in unread
    )


def test_publish() -> None:
    assert read("publish", "--ablation_dir", "a").output is None
    assert places("publish", "--ablation_dir", "") == [("--ablation_dir", "name")]
    assert places("publish", "--output", "b") == [("--ablation_dir", "missing")]


def test_certify(tmp_path: Path) -> None:
    both = ("--run_dir", tmp_path, "--original", tmp_path)
    assert read("certify", *both, "--output", "o").margin == 0.005
    assert places("certify", *both) == [("--output", "missing")]
    assert places("certify", "--run_dir", tmp_path, "--output", "o") == [("--original", "missing")]
    gone = ("--run_dir", tmp_path / "none", "--original", tmp_path / "gone")
    assert places("certify", *gone, "--output", "o") == [("--run_dir", "folder"), ("--original", "folder")]
    assert places("certify", *both, "--output", "o", "--margin", "0") == [("--margin", "range")]


def test_compress(tmp_path: Path) -> None:
    assert read("compress", "--run_dir", tmp_path, "--output", "o", "--target", "macs=0.5,0.2").target == "macs=0.5,0.2"
    assert places("compress", "--run_dir", tmp_path, "--output", "o", "--target", "size=2") == [("--target", "unknown")]
    assert places("compress", "--run_dir", tmp_path) == [("--output", "missing")]
    assert places("compress", "--run_dir", tmp_path, "--output", "o", "--int8") == [("--int8", "conflict")]
    assert places("compress", "--run_dir", tmp_path / "none", "--output", "o") == [("--run_dir", "folder")]
    assert places("compress", "--run_dir", tmp_path, "--output", "o", "--margin", "1", "--cases", "0") == [
        ("--margin", "range"),
        ("--cases", "range"),
    ]


def test_widths(tmp_path: Path) -> None:
    found = read("widths", "--run_dir", tmp_path, "--no_timing")
    assert (found.output, found.margin, found.no_timing) == (None, 0.005, True)
    assert places("widths", "--margin", "0", "--cases", "1", "--record", "r", "--run_dir", tmp_path / "none") == [
        ("--record", "unknown"),
        ("--margin", "range"),
        ("--cases", "range"),
        ("--run_dir", "folder"),
    ]


def test_fetch() -> None:
    assert read("fetch", "phantom", "--root", "x").root == Path("x")
    assert places("fetch", "heart", "--rot", "x") == [("--rot", "unknown"), ("NAME", "unknown")]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_with_range_default_and_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        read(name, "--help")
    assert caught.value.code == 0
    text = "".join(capsys.readouterr().out.split())
    command = COMMANDS[name]
    for path, field in [*cli._options(command).items(), *changeable(command).items()]:
        assert ("NAME" if name == "fetch" and path == "name" else f"--{path}") in text
        assert field.description
        assert "".join(field.description.removesuffix(".").split()) in text
    assert all("".join(example.split()) in text for example in command.examples)
    for example in command.examples:
        assert example.startswith(f"seg {name} ")


def test_help_of_train_states_ranges_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("train", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "null keeps each volume's own grid, > 0. (default: null)" in text
    assert "--fold N|N,N,...|all|none Fold whose validation cases" in text
    assert "--network.strides [[INT,INT,INT],...] " in text
    assert "in (0, 4]. (default once network.skip_bottleneck is given: 0.25)" in text
    assert "(to be given where data.ct is)" in text


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["ablate", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy = ("torch", "monai", "lightning", "pytorch_lightning", "numpy", "nibabel", "matplotlib", "scipy", "pandas")
    probe = (
        "import sys\nimport seg\nfrom seg.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('loaded:', [name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded: []\n")


@pytest.mark.parametrize("name", [*COMMANDS])
def test_each_script_is_its_command(name: str) -> None:
    text = (ROOT / "scripts" / f"{name}.py").read_text()
    assert f'main(["{name}", *sys.argv[1:]])' in text
    assert text.startswith(f'"""{COMMANDS[name].__doc__.splitlines()[0]}')


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["--format", "onnx", "--int8"], [("--int8", "conflict")]),
        (["--format", "openvino", "--margin", "0.01"], [("--margin", "conflict")]),
        (["--format", "openvino", "--int8", "--margin", "0"], [("--margin", "range")]),
        (
            ["--format", "zip", "--allow_inferior", "--data.root", "d"],
            [("--allow_inferior", "conflict"), ("--data.root", "conflict")],
        ),
    ],
)
def test_options_of_int8_belong_to_it(argv: list[str], found: list[tuple[str, str]], tmp_path: Path) -> None:
    assert places("export", "--run_dir", tmp_path, *argv) == found


def test_an_export_in_int8_has_its_own_margin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("seg.compression.int8.export_int8", lambda run_dir, **options: seen.append(options))
    for words in ([], ["--margin", "0.01", "--allow_inferior"]):
        read("export", "--run_dir", tmp_path, "--format", "openvino", "--int8", *words).run()
    assert [(one["margin"], one["allow_inferior"]) for one in seen] == [(0.002, False), (0.01, True)]
