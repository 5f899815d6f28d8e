"""The commands as functions, for scripts and notebooks; what is wrong raises :class:`seg.errors.SegError`."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, TypeAdapter, ValidationError

from seg.compression import CASES, TUNE_STEPS
from seg.config import DeviceName, EvaluationConfig, ExperimentConfig, PrecisionName, dump_config, load_config
from seg.config.fields import AtLeastOne, Positive
from seg.config.loading import RANGE_ERRORS, find_config, own_config
from seg.config.study import MARGIN
from seg.config.text import parse_yaml
from seg.errors import ConfigError, Problem, RunError, shown
from seg.planning import MEMORY_GIB
from seg.processes import name_user

if TYPE_CHECKING:
    from torch import nn

    from seg.compression.certificate import Certificate
    from seg.compression.widths import Findings

PathLike = str | Path
CHECKED = ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)


F = TypeVar("F", bound=Callable[..., Any])
CheckedMargin = Annotated[StrictFloat, Field(gt=0, lt=1)]


def _checked(function: F) -> F:
    """Has the arguments of a function checked by their annotations, so that wrong ones are problems that name them."""
    signature = inspect.signature(function)

    @cache
    def adapters() -> dict[str, TypeAdapter[Any]]:
        # Types of results are known to type checkers alone.
        own = {name: hint for name, hint in function.__annotations__.items() if name not in ("return", "changes")}
        hints = get_type_hints(SimpleNamespace(__annotations__=own), function.__globals__, include_extras=True)
        return {name: TypeAdapter(hint, config=CHECKED) for name, hint in hints.items()}

    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        found: list[Problem] = []
        for name, value in signature.bind(*given, **named).arguments.items():
            try:
                if name in adapters():
                    adapters()[name].validate_python(value)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                rule = first["msg"].replace("Input should be", "must be")
                kind = "range" if first["type"] in RANGE_ERRORS else "type"
                found.append(Problem(name, kind, rule, shown(value), f"see help(seg.{function.__name__})"))
        if found:
            raise ConfigError(found)
        name_user()
        return function(*given, **named)

    return cast(F, call)


def _path(given: PathLike) -> Path:
    """Returns a path, with the home folder in the place of a leading ~, as commands read it."""
    return Path(given).expanduser()


def _optional(given: PathLike | None) -> Path | None:
    return None if given is None else _path(given)


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


@_checked
def load_run(run_dir: PathLike) -> LoadedRun:
    """Loads a finished run of one fold: its network, configuration, channels and classes.

    Raises:
        RunError: The directory holds no finished run, several folds, or damaged weights.
    """
    from seg.runs import read_run

    run = read_run(_path(run_dir))
    return LoadedRun(
        network=run.network(), config=run.config, channel_names=run.channel_names, class_names=run.class_names
    )


@_checked
def plan(
    data_root: PathLike,
    output: PathLike,
    *,
    layout: Literal["auto", "msd", "nnunet", "manifest"] = "auto",
    memory_gib: Positive = MEMORY_GIB,
    patient_pattern: str | None = None,
    classes: Sequence[str] | None = None,
    label_grid: Literal["own", "image"] = "own",
    nan: Literal["refuse", "background"] = "refuse",
    overwrite: StrictBool = False,
) -> ExperimentConfig:
    """Reads a data set and writes a configuration that trains on it.

    Args:
        data_root: Folder of the data set.
        output: YAML file to write.
        layout: Layout of the folder.
        memory_gib: Memory that training may take, in GiB.
        patient_pattern: Regular expression whose first group is the patient in a case id; None finds it in the ids.
        classes: Names of the classes to plan for; None takes all.
        label_grid: Where a label lies: where its own header says, or on the image's grid.
        nan: What voxels that are not a number are: a fault, or background.
        overwrite: Whether a file that is there is replaced.

    Raises:
        SegError: The data set cannot be used, or the file is there or cannot be written.
    """
    from seg.files import write_text
    from seg.planning.plan import plan_dataset

    target = _path(output)
    if not overwrite and os.path.lexists(target):
        raise RunError(
            Problem(str(target), "exists", "must be new", "an existing file", "replace it by overwrite=True")
        )
    text = plan_dataset(
        _path(data_root),
        layout=layout,
        memory_gib=memory_gib,
        patient_pattern=patient_pattern,
        classes=classes,
        label_grid=label_grid,
        nan=nan,
        output=target,
    )
    write_text(target, text)
    return load_config([target])


@_checked
def train(
    config: ExperimentConfig | PathLike | Sequence[PathLike] | None = None,
    *,
    run_dir: PathLike | None = None,
    folds: Sequence[int] | Literal["all", "none"] | None = None,
    resume: StrictBool = False,
    init_from: PathLike | None = None,
    classes: Sequence[str] | None = None,
    **changes: Any,
) -> Path:
    """Trains on a data set, then predicts, scores and draws the held-out cases.

    Args:
        config: A configuration, its YAML file, or the name of a configuration of the package, such as ``phantom``;
            or several files, later ones over earlier ones. None goes on with a run by its own configuration.
        run_dir: Run directory; None is ``NAME/seed_S/fold_F`` in ``training.runs_dir``.
        folds: Folds to train; "none" trains a final model on all labelled cases; None is the configuration's own.
        resume: Whether to continue an unfinished run.
        init_from: Run directory whose weights are the initial ones, as ``training__init_from``.
        classes: Names of the classes to train and predict, as ``data__classes``; others are background.
        changes: Other values of fields, two underscores in the place of a dot: ``training__steps=100``.

    Returns:
        The directory of the run; of all folds where there are several.

    Raises:
        SegError: The configuration or the data set cannot be used.
        TypeError: There is no configuration, and no run to resume.
    """
    from seg.workflows.train import train as train_folds

    given = _optional(run_dir)
    values = {name.replace("__", "."): value for name, value in changes.items()}
    values |= {} if init_from is None else {"training.init_from": str(_path(init_from))}
    values |= {} if classes is None else {"data.classes": list(classes)}
    values |= {"fold": None} if folds == "none" else {}
    if isinstance(config, ExperimentConfig):
        experiment = load_config([], parse_yaml(dump_config(config)), values)
    elif config is not None:
        several = [config] if isinstance(config, str | Path) else config
        experiment = load_config([find_config(_path(file)) for file in several], values)
    elif resume and given is not None:
        file, of_folds = own_config(given)
        experiment = load_config([file], values)
        folds = "all" if of_folds and folds is None and "fold" not in changes else folds
    else:
        raise TypeError("train() takes a configuration, or resume=True and run_dir")
    own = folds is None or folds == "none"
    chosen = None if folds == "all" else (experiment.fold,) if own else tuple(map(int, folds or ()))
    train_folds(experiment, run_dir=given, folds=chosen, resume=resume)
    root = given or Path("runs") / experiment.name / f"seed_{experiment.seed}"
    if given is not None or chosen is None or len(chosen) != 1:
        return root
    return root / ("final" if chosen[0] is None else f"fold_{chosen[0]}")


@_checked
def predict(
    run_dirs: PathLike | Sequence[PathLike],
    input: PathLike,
    output: PathLike,
    *,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    tta: StrictBool = False,
    probabilities: StrictBool = False,
    existing: Literal["refuse", "skip", "overwrite"] = "refuse",
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] | None = None,
) -> Path:
    """Segments scans: label maps on the scans' own grids, and predictions.json beside them.

    Args:
        run_dirs: Run directory or what :func:`export` made of it, or several whose networks are averaged.
        input: Scan, folder of scans, or text file that lists scans.
        output: File of the label map for one scan, else folder of the label maps; it is returned.
        device: Where to compute; auto takes a GPU where there is one, mps being Apple's.
        precision: Arithmetic of the networks; auto is that of each run's configuration in torch, and in other engines
            fp32, or int8 of a network in int8.
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

    target = _path(output)
    several = [run_dirs] if isinstance(run_dirs, str | Path) else run_dirs
    code = predict_files(
        run_dirs=[_path(run_dir) for run_dir in several],
        input=_path(input),
        output=target,
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
    return target


@_checked
def export(
    run_dir: PathLike,
    output: PathLike | None = None,
    *,
    format: Literal["onnx", "openvino", "zip"] = "onnx",
    overwrite: StrictBool = False,
    int8: StrictBool = False,
    margin: CheckedMargin = 0.002,
    allow_inferior: StrictBool = False,
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

    target = _optional(output)
    if int8:
        if format != "openvino":
            raise TypeError("export() writes int8 in the format openvino")
        from seg.compression.int8 import export_int8

        return export_int8(
            _path(run_dir),
            output=target,
            overwrite=overwrite,
            data_root=_optional(data_root),
            margin=margin,
            allow_inferior=allow_inferior,
        )
    return export_run(_path(run_dir), format=format, output=target, overwrite=overwrite)


@_checked
def widths(
    run_dir: PathLike,
    output: PathLike | None = None,
    *,
    margin: CheckedMargin = MARGIN,
    cases: Annotated[StrictInt, Field(ge=2)] = CASES,
    timing: StrictBool = True,
    data_root: PathLike | None = None,
) -> Findings:
    """Predicts how narrow each map of a trained network can be, and measures what that saves.

    Args:
        run_dir: Finished run of one fold.
        output: Folder of the page, the tables and the points of a study; None is ``widths`` in the run directory.
        margin: Loss of Dice, of each class, that counts as safe.
        cases: Training cases that are measured, >= 2.
        timing: Whether milliseconds are measured.
        data_root: Folder of the data set; None is that of the run.

    Returns:
        What was found, place by place.

    Raises:
        SegError: The run or its data set cannot be used.
    """
    from seg.compression.widths import find_widths

    return find_widths(
        _path(run_dir),
        _optional(output),
        margin=margin,
        cases=cases,
        timing=timing,
        data_root=_optional(data_root),
    )


@_checked
def compress(
    run_dir: PathLike,
    output: PathLike,
    *,
    target: str | None = None,
    engine: Literal["torch", "openvino", "onnxruntime"] = "torch",
    int8: StrictBool = False,
    margin: CheckedMargin = MARGIN,
    cases: AtLeastOne = CASES,
    multiple: AtLeastOne | None = None,
    tune_steps: Annotated[StrictInt, Field(ge=0)] = TUNE_STEPS,
    data_root: PathLike | None = None,
) -> Certificate:
    """Makes smaller networks from a trained one, and certifies them on the patients that it did not see.

    Args:
        run_dir: Finished run of one fold, with its scores, or a cross-validation of such runs.
        output: New folder of the run directories, one for each step; or one that the same call began.
        target: What the steps keep of the original's latency, macs or parameters, such as ``latency=0.5`` or
            ``macs=0.5,0.25``; None makes networks of less and less work as far as held-back training patients allow.
        engine: What runs both networks where they are timed and scored.
        int8: Whether the smallest step is made in int8 too, and tested last; by the engine openvino alone.
        margin: Loss of Dice that still counts as not inferior.
        cases: Training cases that are measured.
        multiple: All widths but those of the 1x1 before kernels are multiples of this number; None is 8 where a
            latency is the target, else 1.
        tune_steps: Steps of training towards the original's probabilities at most, for a step that loses more than a
            quarter of the margin on held-back patients; 0 trains nothing.
        data_root: Folder of the data set; None is that of the run.

    Returns:
        The certificate, as in certificate.json. Its ``passed`` names the strongest step that passed, and ``certified``
        too at a first look; else they are None.

    Raises:
        SegError: The run cannot be compressed.
    """
    from seg.compression.compress import compress as compress_run
    from seg.compression.target import read_target

    return compress_run(
        _path(run_dir),
        _path(output),
        target=None if target is None else read_target(target),
        engine=engine,
        int8=int8,
        margin=margin,
        cases=cases,
        multiple=multiple,
        tune_steps=tune_steps,
        data_root=_optional(data_root),
    )


@_checked
def certify(
    run_dir: PathLike,
    original: PathLike,
    output: PathLike,
    *,
    engine: Literal["torch", "openvino", "onnxruntime"] = "torch",
    margin: CheckedMargin = MARGIN,
    data_root: PathLike | None = None,
) -> Certificate:
    """Certifies that a network loses less Dice than a margin against another one, on patients that both held out.

    Args:
        run_dir: Finished run of one fold, or a cross-validation of such runs.
        original: What it is compared with: finished runs of the same folds.
        output: Folder of certificate.json and certificate.md, without a certificate yet.
        engine: What runs both networks where they are timed and scored.
        margin: Loss of Dice that still counts as not inferior.
        data_root: Folder of the data set; None is that of each run.

    Returns:
        The certificate; its ``certified`` is ``changed`` where the network passed at a first look, or None.

    Raises:
        SegError: The two cannot be compared.
    """
    from seg.compression.certify import certify_run

    return certify_run(
        _path(run_dir),
        _path(original),
        _path(output),
        engine=engine,
        margin=margin,
        data_root=_optional(data_root),
    )


@_checked
def evaluate(
    run_dir: PathLike | None = None,
    *,
    predictions: PathLike | None = None,
    labels: PathLike | None = None,
    output: PathLike | None = None,
    data_root: PathLike | None = None,
    images: PathLike | None = None,
    class_names: Sequence[str] | None = None,
    nsd_tolerance_mm: Positive | None = None,
    ignore_label: StrictInt | None = None,
    patient_pattern: str | None = None,
    workers: AtLeastOne | None = None,
    leave_out: StrictBool = False,
) -> dict[str, Any]:
    """Scores a run's held-out cases, or one folder of label maps against another.

    What is said of two folders a run says itself.

    Args:
        run_dir: Run directory; in its place predictions and labels.
        predictions: Folder of predicted label maps.
        labels: Folder of references with the same case ids.
        output: Folder of the results; None is the run directory or the folder of predictions.
        data_root: Folder of the run's data set, where it moved.
        images: Folder of images on which cases.html draws two folders.
        class_names: Names of classes 1, 2, ... of two folders; None takes every value found.
        nsd_tolerance_mm: Tolerance of the normalised surface Dice of two folders, in mm; None is the default of a run.
        ignore_label: Value of reference voxels of two folders that count for neither side.
        patient_pattern: Regular expression whose first group is the patient in a case id of two folders; intervals
            resample patients. None takes each case as a patient of its own.
        workers: Processes that score cases of two folders, at most one for each case and core; None is 1.
        leave_out: Whether cases of two folders that cannot be scored are left out, and named in the result.

    Returns:
        The content of evaluation.json.

    Raises:
        SegError: Cases cannot be scored.
        TypeError: Neither a run nor two folders are given, or both, or what the other of the two takes.
    """
    folders = (predictions, labels, images, class_names, nsd_tolerance_mm, ignore_label, patient_pattern, workers)
    if run_dir is not None:
        from seg.workflows.evaluate import evaluate_run

        if leave_out or any(one is not None for one in folders):
            raise TypeError("evaluate() of a run takes output and data_root alone")
        folder = _path(run_dir if output is None else output)
        evaluate_run(_path(run_dir), output=None if output is None else folder, data_root=_optional(data_root))
    else:
        from seg.workflows.folders import evaluate_folders

        if predictions is None or labels is None or data_root is not None:
            raise TypeError("evaluate() takes a run directory, or predictions and labels without data_root")
        folder = _path(predictions if output is None else output)
        evaluate_folders(
            _path(predictions),
            _path(labels),
            folder,
            images=_optional(images),
            nsd_tolerance_mm=EvaluationConfig().nsd_tolerance_mm if nsd_tolerance_mm is None else nsd_tolerance_mm,
            class_names=None if class_names is None else ("background", *class_names),
            ignore_label=ignore_label,
            patient_pattern=patient_pattern,
            workers=workers or 1,
            leave_out=leave_out,
        )
    content: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return content


@_checked
def ablate(
    config: PathLike,
    *,
    ablation_dir: PathLike | None = None,
    runs_dir: PathLike | None = None,
    dry_run: StrictBool = False,
    only: Sequence[str] = (),
    speed_only: StrictBool = False,
    data_root: PathLike | None = None,
    **changes: Any,
) -> Path:
    """Runs an ablation study, or continues it.

    Args:
        config: YAML file of the study, or the name of a study of the package, such as ``phantom``.
        ablation_dir: Study directory; None is ``ablation/NAME`` in ``training.runs_dir``.
        runs_dir: Folder of the run directories; None is ``runs/`` in the study directory.
        dry_run: Whether every trial is printed with parameters, GMAC and predicted time, and none is run.
        only: Variants to run alone; none runs all.
        speed_only: Whether nothing is trained and speed is measured nevertheless.
        data_root: Folder of the data set; None is that of the study.
        changes: Other values of the study's fields, two underscores in the place of a dot: ``launch__workers=2``, and
            of all experiments after ``set__``: ``set__training__steps=700``.

    Returns:
        The study directory, with report.html.

    Raises:
        SegError: The study cannot be used, or trials failed.
        TypeError: Both a dry run and a measurement of speed are asked for.
    """
    if dry_run and speed_only:
        raise TypeError("ablate() takes dry_run or speed_only, not both")
    from seg.ablation.run import run_study
    from seg.ablation.store import read_trials
    from seg.ablation.study import choose_variants, plan_study

    values = {name.replace("__", "."): value for name, value in changes.items()}
    values |= {} if data_root is None else {"set.data.root": str(_path(data_root))}
    study = choose_variants(plan_study(find_config(_path(config), study=True), values), only)
    study_dir = study.default_directory if ablation_dir is None else _path(ablation_dir)
    if dry_run:
        from seg.ablation.preview import preview_study

        print(preview_study(study, study_dir, runs_dir=_optional(runs_dir)))
        return study_dir
    run_study(study, study_dir, runs_dir=_optional(runs_dir), speed_only=speed_only)
    if failed := sorted(name for name, trial in read_trials(study_dir).items() if trial.record.status == "failed"):
        rule, remedy = "must hold finished trials alone", "the messages above say why they failed"
        raise RunError(Problem(str(study_dir), "failed", rule, f"failures of {', '.join(failed)}", remedy))
    return study_dir
