"""The commands as functions, for scripts and notebooks; what is wrong raises :class:`seg.errors.SegError`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seg.compression import CASES, TUNE_STEPS
from seg.config import DeviceName, EvaluationConfig, ExperimentConfig, dump_config, load_config
from seg.config.loading import find_config
from seg.config.study import MARGIN
from seg.config.text import parse_yaml
from seg.errors import Problem, RunError
from seg.planning import MEMORY_GIB

if TYPE_CHECKING:
    from torch import nn

    from seg.compression.certificate import Certificate

PathLike = str | Path


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A trained network and what it was trained on.

    Attributes:
        network: The network with its final weights, in evaluation mode on the processor. It maps a normalised image,
            float (B, C, X, Y, Z), to logits, float (B, K, X, Y, Z).
        config: The experiment.
        channel_names: Channels of an image.
        class_names: Classes, the background first.
    """

    network: nn.Module
    config: ExperimentConfig
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]


def load_run(run_dir: PathLike) -> LoadedRun:
    """Loads a finished run of one fold: its network, configuration, channels and classes.

    Raises:
        RunError: The directory holds no finished run, several folds, or damaged weights.
    """
    from seg.runs import read_runs, trained_network

    runs = read_runs([Path(run_dir)])
    if len(runs) > 1:
        rule, value = "must be a single run", f"{len(runs)} folds"
        raise RunError(Problem(f"{run_dir}", "folds", rule, value, "give one of them"))
    (run,) = runs
    network = trained_network(run.config.network, len(run.channel_names), len(run.class_names), run.path)
    return LoadedRun(network=network, config=run.config, channel_names=run.channel_names, class_names=run.class_names)


def plan(
    data_root: PathLike,
    output: PathLike,
    *,
    layout: Literal["auto", "msd", "nnunet", "manifest"] = "auto",
    memory_gib: float = MEMORY_GIB,
    patient_pattern: str | None = None,
    classes: Sequence[str] | None = None,
) -> ExperimentConfig:
    """Reads a data set and writes a configuration that trains on it.

    Args:
        data_root: Folder of the data set.
        output: YAML file to write; replaced where it exists.
        layout: Layout of the folder.
        memory_gib: Memory that training may take, in GiB.
        patient_pattern: Regular expression whose first group is the patient in a case id; None finds it in the ids.
        classes: Names of the classes to plan for; None takes all.

    Raises:
        SegError: The data set cannot be used, or the file cannot be written.
    """
    from seg.files import write_text
    from seg.planning.plan import plan_dataset

    text = plan_dataset(
        Path(data_root),
        layout=layout,
        memory_gib=memory_gib,
        patient_pattern=patient_pattern,
        classes=classes,
        output=Path(output),
    )
    write_text(Path(output), text)
    return load_config([Path(output)])


def train(
    config: ExperimentConfig | PathLike,
    *,
    run_dir: PathLike | None = None,
    folds: Sequence[int] | Literal["all"] | None = None,
    resume: bool = False,
    **changes: Any,
) -> Path:
    """Trains on a data set, then predicts, scores and draws the held-out cases.

    Args:
        config: A configuration, its YAML file, or the name of a configuration of the package, such as ``phantom``.
        run_dir: Run directory; None is ``runs/NAME/seed_S/fold_F``.
        folds: Folds to train; None is the configuration's own.
        resume: Whether to continue an unfinished run.
        changes: Other values of fields, two underscores in the place of a dot: ``training__steps=100``.

    Returns:
        The directory of the run; of all folds where there are several.

    Raises:
        SegError: The configuration or the data set cannot be used.
    """
    from seg.workflows.train import train as train_folds

    values = {name.replace("__", "."): value for name, value in changes.items()}
    if isinstance(config, ExperimentConfig):
        experiment = load_config([], parse_yaml(dump_config(config)), values)
    else:
        experiment = load_config([find_config(Path(config))], values)
    chosen = None if folds == "all" else (experiment.fold,) if folds is None else tuple(folds)
    root = Path("runs") / experiment.name / f"seed_{experiment.seed}" if run_dir is None else Path(run_dir)
    train_folds(experiment, run_dir=None if run_dir is None else root, folds=chosen, resume=resume)
    single = run_dir is None and chosen is not None and len(chosen) == 1
    return root / f"fold_{chosen[0]}" if single and chosen else root


def predict(
    run_dirs: PathLike | Sequence[PathLike],
    input: PathLike,
    output: PathLike,
    *,
    device: DeviceName = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    tta: bool = False,
    probabilities: bool = False,
    existing: Literal["refuse", "skip", "overwrite"] = "refuse",
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] | None = None,
) -> Path:
    """Segments scans: label maps on the scans' own grids, and predictions.json beside them.

    Args:
        run_dirs: Run directory or what :func:`export` made of it, or several whose networks are averaged.
        input: Scan, folder of scans, or text file that lists scans.
        output: File of the label map for one scan, else folder of the label maps; it is returned.
        device: Where to compute; auto takes a GPU where there is one, mps being Apple's.
        precision: Arithmetic of the networks; auto is that of each run's configuration.
        tta: Whether logits are averaged over mirrored copies.
        probabilities: Whether probabilities are written too.
        existing: What is done about label maps that are there already.
        engine: What runs the networks; ``auto`` takes the fastest that is installed. None is torch for run
            directories, auto for exported networks.

    Raises:
        RunError: Scans could not be segmented; the others were, and predictions.json names each.
        SegError: Nothing can be begun.
    """
    from seg.workflows.predict import predict as predict_files

    several = [run_dirs] if isinstance(run_dirs, str | Path) else run_dirs
    code = predict_files(
        run_dirs=[Path(run_dir) for run_dir in several],
        input=Path(input),
        output=Path(output),
        device=device,
        precision=precision,
        tta=tta,
        probabilities=probabilities,
        existing=existing,
        engine=engine,
    )
    if code:
        remedy = "predictions.json names them"
        raise RunError(Problem(f"{output}", "failed", "must hold all label maps", "failures", remedy))
    return Path(output)


def export(
    run_dir: PathLike,
    output: PathLike | None = None,
    *,
    format: Literal["onnx", "openvino", "zip"] = "onnx",
    overwrite: bool = False,
    int8: bool = False,
    margin: float = 0.002,
    allow_inferior: bool = False,
    data_root: PathLike | None = None,
) -> Path:
    """Writes a trained network for other engines, checked against torch, or packs a run into one file.

    Args:
        run_dir: Run directory.
        output: The file; None is the run directory's name with the ending of the format, beside it.
        format: ``onnx``, ``openvino``, or ``zip`` for the run itself.
        overwrite: Whether files that are there are replaced.
        int8: Whether convolutions are quantised, with ``openvino`` alone; a certificate lies beside the file.
        margin: Loss of Dice in a class that int8 may not have on held-out patients, > 0.
        allow_inferior: Whether int8 is written also where these do not show it.
        data_root: Folder of the run's data set for int8, where it moved.

    Returns:
        The file, which :func:`predict` takes in the place of a run directory.

    Raises:
        SegError: The run cannot be exported, or int8 is not shown to lose less than the margin.
        TypeError: int8 is asked for in another format than openvino.
    """
    from seg.workflows.export import export as export_run

    target = None if output is None else Path(output)
    if int8:
        if format != "openvino":
            raise TypeError("export() writes int8 in the format openvino")
        from seg.compression.int8 import export_int8

        return export_int8(
            Path(run_dir),
            output=target,
            overwrite=overwrite,
            data_root=None if data_root is None else Path(data_root),
            margin=margin,
            allow_inferior=allow_inferior,
        )
    return export_run(Path(run_dir), format=format, output=target, overwrite=overwrite)


def compress(
    run_dir: PathLike,
    output: PathLike,
    *,
    target: str | None = None,
    engine: Literal["torch", "openvino", "onnxruntime"] = "torch",
    margin: float = MARGIN,
    cases: int = CASES,
    multiple: int | None = None,
    tune_steps: int = TUNE_STEPS,
    data_root: PathLike | None = None,
) -> Certificate:
    """Makes smaller networks from a trained one, and certifies them on the patients that it did not see.

    Args:
        run_dir: Finished run of one fold, with its scores, or a cross-validation of such runs.
        output: New folder of the run directories, one for each step; or one that the same call began.
        target: What the steps keep of the original's latency, macs or parameters, such as ``latency=0.5`` or
            ``macs=0.5,0.25``; None makes networks of less and less work as far as held-back training patients allow.
        engine: What runs both networks where they are timed and scored.
        margin: Loss of Dice that still counts as not inferior.
        cases: Training cases that are measured.
        multiple: Widths are multiples of this number; None is 8 where a latency is the target, else 1.
        tune_steps: Steps of training towards the original's probabilities at most, for a step that loses more than a
            quarter of the margin on held-back patients; 0 trains nothing.
        data_root: Folder of the data set; None is that of the run.

    Returns:
        The certificate, as in certificate.json; its ``certified`` names the strongest step that passed, or is None.

    Raises:
        SegError: The run cannot be compressed.
    """
    from seg.compression.compress import compress as compress_run
    from seg.compression.target import read_target

    certificate = compress_run(
        Path(run_dir),
        Path(output),
        target=None if target is None else read_target(target),
        engine=engine,
        margin=margin,
        cases=cases,
        multiple=multiple,
        tune_steps=tune_steps,
        data_root=None if data_root is None else Path(data_root),
    )
    assert certificate is not None
    return certificate


def evaluate(
    run_dir: PathLike | None = None,
    *,
    predictions: PathLike | None = None,
    labels: PathLike | None = None,
    output: PathLike | None = None,
    class_names: Sequence[str] | None = None,
    nsd_tolerance_mm: float = EvaluationConfig().nsd_tolerance_mm,
) -> dict[str, Any]:
    """Scores a run's held-out cases, or one folder of label maps against another.

    Args:
        run_dir: Run directory; in its place predictions and labels.
        predictions: Folder of predicted label maps.
        labels: Folder of references with the same case ids.
        output: Folder of the results; None is the run directory or the folder of predictions.
        class_names: Names of classes 1, 2, ... of two folders; None takes every value found.
        nsd_tolerance_mm: Tolerance of the normalised surface Dice of two folders, in mm.

    Returns:
        The content of evaluation.json.

    Raises:
        SegError: Cases cannot be scored.
        TypeError: Neither a run nor two folders are given, or both.
    """
    if (run_dir is None) == (predictions is None or labels is None):
        raise TypeError("evaluate() takes a run directory, or predictions and labels")
    if run_dir is not None:
        from seg.workflows.evaluate import evaluate_run

        folder = Path(run_dir if output is None else output)
        evaluate_run(Path(run_dir), output=None if output is None else folder)
    else:
        from seg.workflows.folders import evaluate_folders

        assert predictions is not None
        assert labels is not None
        folder = Path(predictions if output is None else output)
        names = None if class_names is None else ("background", *class_names)
        evaluate_folders(Path(predictions), Path(labels), folder, nsd_tolerance_mm=nsd_tolerance_mm, class_names=names)
    content: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return content


def ablate(
    config: PathLike, *, ablation_dir: PathLike | None = None, runs_dir: PathLike | None = None, **changes: Any
) -> Path:
    """Runs an ablation study, or continues it.

    Args:
        config: YAML file of the study, or the name of a study of the package, such as ``phantom``.
        ablation_dir: Study directory; None is ``runs/ablation/NAME``.
        runs_dir: Folder of the run directories; None is ``runs/`` in the study directory.
        changes: Other values of the study's fields, two underscores in the place of a dot: ``launch__workers=2``, and
            of all experiments after ``set__``: ``set__training__steps=700``.

    Returns:
        The study directory, with report.html.

    Raises:
        SegError: The study cannot be used, or trials failed.
    """
    from seg.ablation.run import run_study
    from seg.ablation.store import read_trials
    from seg.ablation.study import plan_study

    values = {name.replace("__", "."): value for name, value in changes.items()}
    study = plan_study(find_config(Path(config), study=True), values)
    study_dir = Path("runs/ablation") / study.config.name if ablation_dir is None else Path(ablation_dir)
    run_study(study, study_dir, runs_dir=None if runs_dir is None else Path(runs_dir))
    if failed := sorted(name for name, trial in read_trials(study_dir).items() if trial.record.status == "failed"):
        rule, remedy = "must hold finished trials alone", "the messages above say why they failed"
        raise RunError(Problem(str(study_dir), "failed", rule, f"failures of {', '.join(failed)}", remedy))
    return study_dir
