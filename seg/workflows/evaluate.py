"""Prediction and scores of the held-out cases of trained runs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tqdm import tqdm

from seg.config import ExperimentConfig
from seg.config.loading import config_digest
from seg.data.cache import case_digest
from seg.data.cases import Case, Dataset
from seg.data.datasets import PATIENTS, read_folds
from seg.data.geometry import voxel_ml_of
from seg.data.splits import Split, check_folds
from seg.data.volumes import read_classes, write_labels
from seg.errors import DataError, Problem, RunError, about
from seg.evaluation.metrics import ClassScores, distance_doubts, score_case
from seg.evaluation.scores import (
    CASES_FILE,
    EVALUATION_FILE,
    CaseScore,
    Evaluation,
    case_scores,
    read_cases,
    read_evaluation,
    write_evaluation,
)
from seg.evaluation.summary import format_evaluation, summarise
from seg.figures import PAGE_FILE, About, CaseFiles, draw_predictions, write_page
from seg.files import file_problems, read_json, remove_partial, write_json
from seg.hardware import choose_device, choose_precision, environment
from seg.inference.choice import CHOICE_FILE, choose, write_choice
from seg.inference.predictor import Predictor, load_model, predict_case, predictor_of
from seg.runs import (
    CONFIG_FILE,
    MODEL_FILE,
    MODEL_VERSION,
    NOTICE,
    PICTURE_FILE,
    PREDICTIONS,
    SCORING_FILE,
    TrainedRun,
    changed_data,
    check_scored_into,
    check_task,
    fold_directories,
    other_settings,
    read_config,
    read_description,
    read_origin,
    trained_steps,
    weights_digest,
)
from seg.words import counted, some
from seg.workflows.inputs import read_checked, read_splits, seen_among

LOG = logging.getLogger(__name__)
RESULTS = (EVALUATION_FILE, CASES_FILE, PAGE_FILE, PICTURE_FILE, CHOICE_FILE, SCORING_FILE, MODEL_FILE)
"""Files that scoring writes into its output folder."""


def score_run(
    run_dir: Path,
    config: ExperimentConfig,
    dataset: Dataset,
    split: Split,
    *,
    output: Path | None = None,
    reuse: bool = False,
    alone: bool = True,
) -> None:
    """Predicts and scores the held-out cases of a trained run, and prints the table.

    Args:
        run_dir: Run directory with final weights.
        config: Its experiment, with the folder where the data set lies now.
        dataset: The data set, of the run's channels and classes.
        split: The run's training and held-out cases.
        output: Folder of the results, which are replaced there; None is the run directory.
        reuse: Whether results that are there already are taken for the run's own and not computed again.
        alone: Whether post-processing is chosen on these cases; else :func:`summarise_folds` chooses.

    Raises:
        DataError: Cases cannot be read.
        RunError: There are no final weights, or results cannot be written.
    """
    output = output or run_dir
    if reuse and (output / EVALUATION_FILE).exists():
        evaluation = read_evaluation(output / EVALUATION_FILE)
    else:
        evaluation = _score(run_dir, output, config, dataset, split, alone=alone)
    print(f"{format_evaluation(evaluation)}\nrun directory: {run_dir}\npicture: {output / PICTURE_FILE}")
    if (output / PAGE_FILE).exists():  # runs of earlier versions have none
        print(f"cases: {output / PAGE_FILE}")


def _score(
    run_dir: Path, output: Path, config: ExperimentConfig, dataset: Dataset, split: Split, *, alone: bool
) -> Evaluation:
    remove_partial(output, of=RESULTS)
    remove_partial(output / PREDICTIONS, of={label_map(output, case).name for case in split.validation})
    steps = trained_steps(run_dir)  # a damaged table ends the command before anything is predicted
    predictor = run_predictor(run_dir, config, dataset)
    held_out = set(split.validation)
    cases = [case for case in dataset.cases if case.id in held_out]
    digests = {case.id: case_digest(case) for case in cases}
    origin = read_origin(run_dir)
    if origin is not None and (changed := changed_data(origin, digests)):
        LOG.warning("%s: held-out cases have other files than when the run began: %s", config.data.root, some(changed))
    predictions = {case.id: label_map(output / PREDICTIONS, case.id) for case in cases}
    # Removed first and written last: without this record, scores are made anew.
    (output / SCORING_FILE).unlink(missing_ok=True)
    scores = score_cases(predictor, config, dataset, cases, output / PREDICTIONS, "evaluate")
    evaluation = replace(
        _summarise(config, dataset, scores),
        seen=() if origin is None else seen_among(split.validation, dataset.cases, origin.data, origin.seen),
    )
    draw_predictions(output / PICTURE_FILE, cases, output / PREDICTIONS, scores, dataset)
    _write_page(output, evaluation, scores, predictions, dataset, f"{config.name}, fold {config.fold}")
    # environment.json says what the run was trained with and on; scoring may happen elsewhere.
    computed_with = environment(predictor.models[0].device, predictor.models[0].precision)
    model = describe_model(run_dir, config, dataset, steps)
    write_json(output / MODEL_FILE, model)
    if alone:
        _choose(output, config, dataset, predictions, [model["weights_sha256"]])
    # A run directory is complete when the evaluation is there.
    write_evaluation(output, evaluation, scores)
    write_json(output / SCORING_FILE, {"schema_version": 1, **computed_with, "data": digests})
    return evaluation


def run_predictor(run_dir: Path, config: ExperimentConfig, dataset: Dataset) -> Predictor:
    """Loads the network of a run by torch, as its held-out cases are predicted."""
    device = choose_device(config.training.device)
    run = TrainedRun(path=run_dir, config=config, channel_names=dataset.channel_names, class_names=dataset.class_names)
    return predictor_of(run, [load_model(run, device, choose_precision(config.training.precision, device))])


def scored_otherwise(run_dir: Path, predictor: Predictor, dataset: Dataset, split: Split) -> list[str]:
    """Lists what has changed since a run was scored, such as its packages, its device or its data.

    An empty list means that the predictor would get the same scores here.

    Raises:
        RunError: The record or the scores are damaged.
    """
    path, model, held_out = run_dir / SCORING_FILE, predictor.models[0], set(split.validation)
    if not all(file.is_file() for file in (path, run_dir / CASES_FILE, run_dir / EVALUATION_FILE)):
        return ["files"]
    recorded = read_json(path, _Scoring, newest=1, remedy="evaluate the run again")
    now = environment(model.device, model.precision)
    digests = {case.id: case_digest(case) for case in dataset.cases if case.id in held_out}
    apart = [name for name, value in recorded.model_dump(exclude={"data"}).items() if value != now[name]]
    scored = {score.case_id: score.patient for score in read_cases(run_dir)}
    patients = {case.id: case.patient_or_id for case in dataset.cases if case.id in scored}
    changed = {
        "data": recorded.data != digests,
        "cases": scored.keys() != held_out,
        "patients": any(scored[case] != patient for case, patient in patients.items()),
    }
    return apart + [name for name, is_other in changed.items() if is_other]


class _Scoring(BaseModel, extra="ignore"):
    """How a run was scored: code, device and data, as scoring_environment.json says; None for fields that it lacks."""

    version: str | None = None
    revision: str | None = None
    packages: dict[str, str] | None = None
    device: str | None = None
    instruction_sets: list[str] | None = None
    precision: str | None = None
    data: dict[str, str] | None = None


def _choose(
    output: Path,
    config: ExperimentConfig,
    dataset: Dataset,
    predictions: Mapping[str, Path],
    models: Iterable[str],
) -> None:
    """Chooses post-processing, writes and prints the choice; not where the configuration states what is kept.

    ``models`` gives the SHA-256 of the weights of each run; it is not asked where nothing is chosen.
    """
    if config.postprocessing.largest_component is not None:
        return
    choice = choose(
        [case for case in dataset.cases if case.id in predictions],
        predictions,
        class_names=dataset.class_names,
        ignore_label=dataset.ignore_label,
        models=tuple(models),
    )
    write_choice(output, choice)
    print(choice)
    if len(choice.models) == 1:
        LOG.warning(
            "post-processing was chosen on %s of one fold; train all folds to choose it on every case",
            counted(choice.cases, "held-out case"),
        )


def finish_final(run_dir: Path, config: ExperimentConfig, dataset: Dataset) -> None:
    """Describes a final model, which is complete then, and says that it has no scores."""
    write_json(run_dir / MODEL_FILE, describe_model(run_dir, config, dataset, trained_steps(run_dir)))
    cases = counted(sum(case.label is not None for case in dataset.cases), "labelled case")
    print(f"final model, trained on all {cases}: none is held out, so it has no scores\nrun directory: {run_dir}")


def _summarise(config: ExperimentConfig, dataset: Dataset, scores: Sequence[CaseScore]) -> Evaluation:
    return summarise(
        scores,
        class_names=dataset.score_names,
        nsd_tolerance_mm=config.evaluation.nsd_tolerance_mm,
        bootstrap_samples=config.evaluation.bootstrap_samples,
    )


def describe_model(run_dir: Path, config: ExperimentConfig, dataset: Dataset, steps: int | None) -> dict[str, Any]:
    """Returns the content of model.json, which describes a network to whoever is handed its run directory.

    Args:
        run_dir: Run directory with final weights and configuration.
        config: Its experiment.
        dataset: The data set that it was trained on.
        steps: Last step of training; None where it is not known.
    """
    digest = weights_digest(run_dir)
    earlier = read_description(run_dir) if (run_dir / MODEL_FILE).is_file() else None
    # What a certificate says of these weights stays true however often they are scored.
    certificate = earlier.certificate if earlier is not None and earlier.weights_sha256 == digest else None
    return {
        "schema_version": MODEL_VERSION,
        "notice": NOTICE,
        "name": config.name,
        "channel_names": list(dataset.channel_names),
        "class_names": list(dataset.class_names),
        "label_values": [list(group) for group in dataset.class_map.groups],
        "data_set": dataset.name,
        "data_licence": dataset.licence,
        "network": asdict(config.network),
        "patch_size": list(config.patches.size),
        "weights_sha256": digest,
        "config_sha256": config_digest((run_dir / CONFIG_FILE).read_text(encoding="utf-8")),
        "stopped_early_at_step": steps if steps is not None and steps < config.training.steps else None,
        **({} if certificate is None else {"certificate": certificate}),
    }


def score_prediction(
    predictor: Predictor, case: Case, written: Path, dataset: Dataset, *, nsd_tolerance_mm: float
) -> dict[int, ClassScores]:
    """Predicts a case, writes its label map and scores that.

    Returns:
        Scores by index of the foreground class or region, as :attr:`Dataset.scored` has them.

    Raises:
        SegError: A file cannot be read or written, the case has no label, or the network cannot segment it; the case
            is named.
    """
    with about(f"case {case.id}"):
        if case.label is None:
            raise DataError(
                Problem("label", "missing", "must be there to be scored", "none", "add one to the data set")
            )
        predicted = predict_case(predictor, case.images)
        write_labels(written, predicted.labels, predicted.geometry, case.classes)
        # Read back like its reference, so a label stored in another orientation than its image is met.
        reference = read_classes(case.label, classes=case.classes, on=case.label_on)
        voxel_ml = voxel_ml_of(reference.affine)
        for doubt in distance_doubts(reference.spacing_mm, voxel_ml):
            _announce_doubt(case.label, doubt)
        return score_case(
            read_classes(written, reference.affine, case.classes).array,
            reference.array,
            spacing_mm=reference.spacing_mm,
            voxel_ml=voxel_ml,
            num_classes=len(dataset.class_names),
            nsd_tolerance_mm=nsd_tolerance_mm,
            ignore_label=dataset.ignore_label,
            scored=dataset.scored,
        )


@cache
def _announce_doubt(label: Path, doubt: str) -> None:
    """Logs a warning about the scores of a case, once, however often the case is scored."""
    LOG.warning("%s: %s", label, doubt)


def predictor_scores(
    predictor: Predictor, config: ExperimentConfig, dataset: Dataset, split: Split, what: str
) -> list[CaseScore]:
    """Predicts and scores the held-out cases of a run and keeps no label map; ``what`` is what the bar says."""
    held_out = set(split.validation)
    cases = [case for case in dataset.cases if case.id in held_out]
    with tempfile.TemporaryDirectory() as folder:
        return score_cases(predictor, config, dataset, cases, Path(folder), what)


def label_map(folder: Path, case_id: str) -> Path:
    """Returns the path of the label map of a case in a folder."""
    return folder / f"{case_id}.nii.gz"


def score_cases(
    predictor: Predictor, config: ExperimentConfig, dataset: Dataset, cases: Sequence[Case], folder: Path, what: str
) -> list[CaseScore]:
    """Predicts cases in their order, writes their label maps into a folder and scores them.

    Args:
        predictor: The network.
        config: The experiment.
        dataset: The data set.
        cases: The cases.
        folder: Folder of the label maps.
        what: What the progress bar says.

    Raises:
        SegError: See :func:`score_prediction`.
    """
    tolerance = config.evaluation.nsd_tolerance_mm
    scores: list[CaseScore] = []
    for case in tqdm(cases, desc=what, unit="case", disable=None if config.training.progress else True):
        written = label_map(folder, case.id)
        by_class = score_prediction(predictor, case, written, dataset, nsd_tolerance_mm=tolerance)
        scores += case_scores(
            by_class, case_id=case.id, class_names=dataset.score_names, patient=case.patient, fold=config.fold
        )
    return scores


def summarise_folds(
    config: ExperimentConfig,
    dataset: Dataset,
    output: Path,
    directories: Mapping[int, Path],
    run_dirs: Sequence[Path],
) -> None:
    """Pools the cases of folds, each scored by the network that did not see it, and chooses post-processing on them.

    Args:
        config: The experiment.
        dataset: The data set.
        output: Folder in which results are replaced.
        directories: Folder of each fold's results.
        run_dirs: Run directories of the folds.

    Raises:
        RunError: The scores of a fold cannot be read, or results cannot be written.
    """
    scores = [score for directory in directories.values() for score in read_cases(directory / CASES_FILE)]
    remove_partial(output, of=RESULTS)
    seen = [case for directory in directories.values() for case in read_evaluation(directory).seen]
    evaluation = replace(_summarise(config, dataset, scores), seen=tuple(seen))
    predictions = {
        score.case_id: directories[score.fold] / PREDICTIONS / f"{score.case_id}.nii.gz"
        for score in scores
        if score.fold is not None
    }
    title = f"{config.name}, {counted(len(directories), 'fold')}"
    _write_page(output, evaluation, scores, predictions, dataset, title)
    _choose(output, config, dataset, predictions, map(weights_digest, run_dirs))
    write_evaluation(output, evaluation, scores)
    print(f"{format_evaluation(evaluation)}\nrun directory: {output}\ncases: {output / PAGE_FILE}")


@file_problems()
def evaluate_run(run_dir: Path, *, output: Path | None = None, data_root: Path | None = None) -> int:
    """Predicts and scores the held-out cases of a trained run, or of every fold of a cross-validation.

    Args:
        run_dir: Run directory with final weights, or one that holds ``fold_0``, ``fold_1``, ... of one experiment.
        output: Folder of the results, which are replaced there; None is the run directory. The folds of a
            cross-validation lie in it as in that, with their summary beside them.
        data_root: Folder of the data set; None is the one in the run's config.

    Returns:
        The exit code: 0, or 1 where faulty cases were left out of the data set.

    Raises:
        DataError: Cases are faulty, or cannot be read.
        RunError: A run is not finished, folds are not of one experiment, the data set is not the runs' own, the output
            holds another run, or results cannot be written. All is checked before the first run is scored.
    """
    if output is not None or run_dir.is_dir():  # else the run is what is missing
        check_scored_into(output or run_dir, run_dir)
    folds = fold_directories(run_dir)
    paths = list(folds.values()) or [run_dir]
    configs, dataset, splits, left_out = read_held_out(paths, data_root=data_root, networks_differ=True)
    first = next(iter(configs.values()))
    check_apart(folds, configs, splits)
    for path, config in configs.items():
        target = None if output is None else output / path.name if folds else output
        score_run(path, config, dataset, splits[path], output=target, alone=not folds)
    if folds:
        target = output or run_dir
        results = {fold: target / path.name for fold, path in folds.items()}
        summarise_folds(first, dataset, target, results, list(folds.values()))
    return 1 if left_out else 0


def read_held_out(
    run_dirs: Sequence[Path], *, data_root: Path | None = None, networks_differ: bool = False
) -> tuple[dict[Path, ExperimentConfig], Dataset, dict[Path, Split], list[str]]:
    """Reads what runs of one experiment were trained on and what they held out.

    Args:
        run_dirs: The run directories.
        data_root: Folder of the data set; None is the one in the runs' configurations.
        networks_differ: Whether runs may have different networks, as compressed folds have; a warning names others.

    Returns:
        The configuration of each run, with the folder where the data set lies now; the data set, every file of which
        was checked; the cases of each run; and the ids of faulty cases that were left out.

    Raises:
        DataError: Cases are faulty.
        RunError: A run is none, or holds nothing out, or runs are not of one experiment, or the data set is not theirs.
    """
    configs = _read_configs(run_dirs, data_root, networks_differ)
    first = next(iter(configs.values()))
    _check_names(configs, first)
    dataset, left_out = read_checked(first.data, progress=first.training.progress)
    splits = {path: _find_split(path, config, dataset, left_out) for path, config in configs.items()}
    return configs, dataset, splits, left_out


def _read_configs(
    run_dirs: Iterable[Path], data_root: Path | None, networks_differ: bool
) -> dict[Path, ExperimentConfig]:
    """Reads the configurations of runs of one experiment, with the folder where their data set lies now."""
    problems, apart = [], []
    found: dict[Path, ExperimentConfig] = {}
    for path in run_dirs:
        if not (path / CONFIG_FILE).is_file():
            rule = "must be a run directory"
            problems.append(Problem(str(path), "missing", rule, f"no {CONFIG_FILE}", "check the path"))
            continue
        config = read_config(path)
        if config.fold is None:
            problems.append(nothing_held_out(path))
            continue
        root = config.data.root if data_root is None else str(data_root)
        found[path] = replace(config, data=replace(config.data, root=root))
        first = next(iter(found))
        other = [name for name in other_settings(found[path], found[first]) if name != "fold"]
        of_network = [name for name in other if name.startswith("network.")]
        if networks_differ and of_network:
            made = _compressed_from(path)
            if made is None or made != _compressed_from(first):
                apart.append(path.name)
            other = [name for name in other if name not in of_network]
        if other:
            rule = f"must have the configuration of {first} to be scored with it"
            value = f"other values of {', '.join(other)}"
            problems.append(Problem(str(path), "settings", rule, value, "evaluate each fold on its own"))
    if problems:
        raise RunError(problems)
    if apart:
        LOG.warning("other networks than that of %s: %s", next(iter(found)).name, ", ".join(apart))
    return found


def _compressed_from(run_dir: Path) -> tuple[str, ...] | None:
    """Returns the originals of a compressed network, none where its step was not tested; None for another network."""
    claim = read_description(run_dir).claim if (run_dir / MODEL_FILE).is_file() else None
    return None if claim is None else () if claim.original is None else claim.original.sha256


def check_unseen(splits: Mapping[Path, Split], dataset: Dataset) -> None:
    """Refuses held-out patients whom a run or its initial weights were trained on, or whom a second run holds out.

    Args:
        splits: Cases of each run, by its directory.
        dataset: The data set, which names the patients.

    Raises:
        RunError: There are such patients, all runs are named; or folds contradict the table of patients.
    """
    patients = {case.id: case.patient_or_id for case in dataset.cases}
    by_patient = "train it on folds by patient"
    held_out: dict[str, Path] = {}
    problems = []
    if shared := dataset.unused_patients:
        rule = "must be on one side of each fold, as patients are what a certificate counts"
        remedy = "correct the table or the folds, or remove the table"
        problems.append(Problem(str(dataset.root / PATIENTS), "patients", rule, some(shared), remedy))
    for path, split in splits.items():
        origin, own = read_origin(path), {patients[case] for case in split.validation}
        if origin is not None and (before := seen_among(split.validation, dataset.cases, origin.data, origin.seen)):
            rule, remedy = (
                "must hold out patients that no weights before were trained on",
                "give a run without such cases",
            )
            problems.append(Problem(str(path), "seen", rule, some(before), remedy))
        if seen := sorted(own & {patients[case] for case in split.train if case in patients}):
            rule = "must hold out patients that it was not trained on"
            problems.append(Problem(str(path), "seen", rule, some(seen), by_patient))
        if twice := sorted(own & held_out.keys()):
            rule = f"must hold out other patients than {held_out[twice[0]].name}"
            problems.append(Problem(str(path), "twice", rule, some(twice), by_patient))
        held_out |= dict.fromkeys(own, path)
    if problems:
        raise RunError(problems)


def nothing_held_out(run_dir: Path) -> Problem:
    """Returns the problem that a run cannot be scored, since it was trained on all cases and holds none out."""
    rule, value = "must have held-out cases to be scored", "a final model, trained on all"
    return Problem(str(run_dir), "held_out", rule, value, "give a run that was trained with --fold N or --fold all")


def _check_names(run_dirs: Iterable[Path], config: ExperimentConfig) -> None:
    """Checks that runs were trained on a data set's channels and classes, before its voxels are read."""
    declared, _ = read_folds(config.data)
    problems: list[Problem] = []
    for path in run_dirs:
        try:
            check_task(
                path,
                channel_names=declared.channel_names,
                class_names=declared.class_names,
                source=config.data.root,
                remedy="it is another data set, check --data.root",
            )
        except RunError as error:
            problems += error.problems
    if problems:
        raise RunError(problems)


def check_apart(
    folds: Mapping[int, Path], configs: Mapping[Path, ExperimentConfig], splits: Mapping[Path, Split]
) -> None:
    """Checks that no case would count twice in a common summary; cases that no fold holds out are announced.

    Args:
        folds: Directories of a cross-validation by the fold that their names say; none for a single run.
        configs: Configuration of each run.
        splits: Cases of each run.

    Raises:
        RunError: A directory holds another fold than its name says, or two runs hold out one case.
    """
    held_out: dict[str, Path] = {}
    problems = []
    for fold, path in folds.items():
        if configs[path].fold != fold:
            rule, own = f"must hold fold {fold}, as its name says", configs[path].fold
            remedy = f"train fold {fold} there, or take the folder away" if own in folds else f"name it fold_{own}"
            problems.append(Problem(str(path), "fold", rule, f"fold {own}", remedy))
    for path, split in splits.items():
        if both := sorted(set(split.validation) & held_out.keys()):
            rule = f"must hold out other cases than {held_out[both[0]].name} to be scored with it"
            problems.append(Problem(str(path), "twice", rule, some(both), "evaluate each fold on its own"))
        held_out |= dict.fromkeys(split.validation, path)
    if problems:
        raise RunError(problems)
    known = {case for split in splits.values() for case in (*split.train, *split.validation)}
    if folds and (missing := known - held_out.keys()):
        LOG.warning(
            "%s of %d are held out by none of the folds %s: what follows does not speak for them",
            *(counted(len(missing), "case"), len(known), ", ".join(map(str, folds))),
        )


def _find_split(run_dir: Path, config: ExperimentConfig, dataset: Dataset, left_out: list[str]) -> Split:
    """Returns the cases that a run trained on and held out."""
    origin = read_origin(run_dir)
    if origin is not None and origin.split is not None:
        known = {case.id for case in dataset.cases}
        if gone := sorted(set(origin.split.validation) - known):
            rule, value = "must have the cases that the run held out", f"none of {some(gone)}"
            remedy = "it is another data set, or these cases were removed or left out"
            raise RunError(Problem(config.data.root, "cases", rule, value, remedy))
        return origin.split
    LOG.warning("%s: has no record of its cases; those of its fold are found anew", run_dir)
    splits = read_splits(config, left_out)
    assert config.fold is not None
    if config.fold >= len(splits):
        rule, remedy = f"must have the run's fold {config.fold}", "it is another data set, or its splits changed"
        raise RunError(Problem(config.data.root, "folds", rule, f"{len(splits)} folds", remedy))
    check_folds(splits, [config.fold], left_out)
    return splits[config.fold]


def _write_page(
    output: Path,
    evaluation: Evaluation,
    scores: Sequence[CaseScore],
    predictions: Mapping[str, Path],
    dataset: Dataset,
    title: str,
) -> None:
    """Writes cases.html of a run, or of several folds."""
    files = {
        case.id: CaseFiles.of(case, predictions[case.id])
        for case in dataset.cases
        if case.label is not None and case.id in predictions
    }
    about_data = About(
        title=title,
        data_set=dataset.name,
        licence=dataset.licence,
        attribution=dataset.attribution,
        channel=dataset.channel_names[0],
        ignore_label=dataset.ignore_label,
        class_names=dataset.class_names,
    )
    write_page(output / PAGE_FILE, evaluation, scores, files, about_data)
