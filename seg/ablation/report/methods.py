"""How a study was done, what it was done with, and each of its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Block, Bullets, Code, Details, Table, Text, row
from seg.ablation.report.numbers import NOT_MEASURED, NOTHING, counted, figures, listed
from seg.ablation.report.preserved import THRESHOLD
from seg.ablation.report.study import NOT_STATED, StudyRecord
from seg.ablation.report.tables_class import NO_DISTANCES
from seg.ablation.report.trials import TrialData
from seg.ablation.statistics import MIN_RUNS, Pair

ENVIRONMENT = ("device", "precision", "threads", "cores", "platform", "python", "packages", "revision")
"""What is shown of an environment; the digests of its cases are left to the file."""
MOST_BUT = 4
"""Most variants that are named as those left out of all."""


def methods(analysis: Analysis) -> list[Block]:
    """Says how the study was done."""
    study = analysis.records.study
    data, training = study.data, study.training
    patch = " x ".join(map(str, training["patch_size"])) if training.get("patch_size") else NOT_STATED
    classes = listed(study.class_names[1:])
    return [
        Bullets(
            items=(
                f"Design: {counted(len(study.variants), 'variant')} of {study.base}, "
                f"{counted(len(study.folds), 'fold')} ({', '.join(map(str, study.folds))}), "
                f"{counted(len(study.seeds), 'seed')} ({', '.join(map(str, study.seeds))}). Every variant has the same "
                "cases, order of data, augmentation and, where shapes agree, initial weights.",
                f"Data: {data.get('name', NOT_STATED)}, {data.get('num_cases', NOT_STATED)} cases, of which "
                f"{analysis.records.num_scored} are scored{_trained_on(training)}; classes {classes}; "
                f"licence: {data.get('licence', NOT_STATED)}; attribution: {data.get('attribution', NOT_STATED)}.",
                f"Training: {training.get('steps', NOT_STATED)} steps of {training.get('batch', NOT_STATED)} patches "
                f"of {patch} voxels, for every variant alike. Scored are the averaged weights at the end of the "
                "schedule, never a checkpoint chosen on the scored cases.",
                "Dice: where both masks are empty a case is left out and counted, where one is empty its Dice is 0. "
                f"Mean Dice is the mean over classes. {_distances(study)}",
                "Differences are paired by patient, fold and seed, and have folds, training runs and patients as "
                "random effects (variance components of crossed effects, Satterthwaite's degrees of freedom; in "
                "intervals, runs and residual are pooled where runs differ by less than the residual alone would have "
                "them). A missing trial takes its pair out of the comparison of its variant alone.",
                f"Non-inferiority: one-sided 97.5 % at the margin {study.margin:g}, named before the study ran; every "
                "class must pass (intersection-union test), and Holm's procedure corrects for the number of variants. "
                "The test never pools mean squares, so it is stricter than the intervals. "
                f"A variant with fewer than {MIN_RUNS} training runs never passes.",
                "Recommendation: of the variants that are not inferior, the one of lowest batch-1 latency on the named "
                "device; the narrowest of a path is that of the smallest share of channels. Devices never mix.",
                "Ranks: runs and patients are resampled, one fewer than there are, the same for all variants.",
                f"Preservation: moments over all voxels of the held-out cases; probes are fitted on the cases of every "
                f"second patient and tested on the others, both ways round. Predicted widths keep "
                f"{100 * THRESHOLD:.0f} % of the variance, a share that was fixed before a narrow network was trained.",
                "Convergence: the validation Dice of each trial; seconds are steps times the time of a step measured "
                "apart, so they do not depend on what else a machine did.",
            )
        ),
        *_notes(study.notes),
    ]


def _notes(notes: tuple[str, ...]) -> list[Block]:
    """Gives what no record says."""
    return [Text(text="Notes on this study:"), Bullets(items=notes)] if notes else []


def _trained_on(training: Mapping[str, Any]) -> str:
    cases = training.get("train_cases")
    return f"; {counted(cases, 'training case')}, the same for every variant and seed" if cases else ""


def _distances(study: StudyRecord) -> str:
    return NO_DISTANCES if study.nominal_spacing else "HD95 and NSD weight surface elements by area."


def environments(analysis: Analysis) -> list[Block]:
    """Gives what trials and speed were computed with, each environment once."""
    groups: dict[str, list[str]] = {}
    for trial_id, trial in analysis.records.trials.items():
        if trial.record.status == "finished":
            known = {key: (trial.environment or {}).get(key) for key in ENVIRONMENT}
            groups.setdefault(json.dumps(known, sort_keys=True), []).append(trial_id)
    parts: list[Block] = []
    described = {content: {k: v for k, v in json.loads(content).items() if v is not None} for content in groups}
    common = _common(list(described.values()))
    for content, trials in groups.items():
        known = {key: value for key, value in described[content].items() if key not in common}
        words = f"Trained with this: {counted(len(trials), 'trial')}"
        if len(groups) > 1:
            words += f" ({grouped(trials, analysis)})"
        parts += [Text(text=f"{words}."), _values(known)]
    if common:
        parts += [Text(text="Common to all trials:"), _values(common)]
    for device in analysis.records.speed:
        known = {key: value for key, value in dict(device.about.get("environment") or {}).items() if key in ENVIRONMENT}
        parts += [Text(text=f"Speed was measured on {device.label}."), _values(known)]
    if len(groups) > 1:
        parts.insert(0, Text(role="notice", text="Trials were trained with different environments."))
    return parts or [Text(text=f"Environment: {NOT_MEASURED}.")]


def _common(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Gives what several environments have in common; of one alone nothing is apart from the rest."""
    if len(environments) < 2:
        return {}
    first, *others = environments
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def grouped(trial_ids: Sequence[str], analysis: Analysis) -> str:
    """Names many trials in few words: the seeds of which all variants are among them, then the others by seed."""
    study, records = analysis.records.study, analysis.records
    by_run: dict[Pair, list[str]] = {}
    for trial_id in trial_ids:
        by_run.setdefault(records.trials[trial_id].pair, []).append(records.trials[trial_id].record.variant)
    by_names: dict[tuple[str, ...], list[Pair]] = {}
    for pair, names in sorted(by_run.items()):
        by_names.setdefault(tuple(names), []).append(pair)
    said = []
    for group, pairs in by_names.items():
        names = list(group)
        rest = [name for name in study.names if name not in names]
        if not rest:
            which = "all variants"
        elif len(rest) < len(names) and len(rest) <= MOST_BUT:
            which = f"all variants but {listed(rest)}"
        else:
            which = listed(names)
        said.append(f"{_runs(pairs, several=len(study.folds) > 1)}: {which}")
    return "; ".join(said)


def _runs(pairs: Sequence[Pair], *, several: bool) -> str:
    """Names runs by fold and seed, where there are several folds, else by seed."""
    if several:
        return listed([f"fold {fold} seed {seed}" for fold, seed in pairs])
    seeds = [seed for _, seed in pairs]
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {listed(list(map(str, seeds)))}"


def _values(known: Mapping[str, Any]) -> Block:
    if not known:
        return Text(text=f"Environment: {NOT_STATED}.")
    return Bullets(items=tuple(f"{key}: {_plain(known[key])}" for key in ENVIRONMENT if key in known))


def _plain(value: Any) -> str:
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)


def trial_list(analysis: Analysis) -> list[Block]:
    """Gives every trial with its fingerprint and its configuration, folded up."""
    records = analysis.records
    missing = {trial.id: trial.reason for trial in records.missing}
    rows = []
    for trial_id in records.study.trials:
        trial = records.trials.get(trial_id)
        rows.append(
            row(
                trial_id,
                missing.get(trial_id, "finished"),
                figures(trial.record.seconds if trial else None),
                figures(trial.record.peak_memory_mib if trial else None),
                str(trial.record.attempts) if trial else "0",
                *(_digest(trial, key) for key in ("config", "data", "code")),
            )
        )
    table = Table(
        columns=("Trial", "Status", "Seconds", "Peak memory (MiB)", "Attempts", "Config", "Data", "Code"),
        rows=tuple(rows),
        caption="Every planned trial; the last three columns are the beginnings of its fingerprint (SHA-256). Seconds "
        "are those of the whole trial, whatever else the machine did meanwhile: trials cannot be compared by them; the "
        "speed of variants stands under Speed and memory.",
    )
    folded = [_details(trial_id, trial) for trial_id, trial in records.trials.items()]
    return [table, Details(summary=f"Configuration of {counted(len(folded), 'trial')}", blocks=tuple(folded))]


def _digest(trial: TrialData | None, key: str) -> str:
    return getattr(trial.record.fingerprint, key)[:12] if trial else NOTHING


def _details(trial_id: str, trial: TrialData) -> Details:
    record = trial.record
    changes = "; ".join(f"{path} = {value}" for path, value in record.changes.items()) or "none, the baseline"
    prints = record.fingerprint
    blocks: list[Block] = [
        Text(text=f"Changes: {changes}."),
        Text(text=f"Fingerprint: config {prints.config}, data {prints.data}, code {prints.code}."),
    ]
    if trial.failure:
        blocks.append(Code(text=trial.failure))
    blocks.append(Code(text=trial.config) if trial.config else Text(text="Configuration: not recorded."))
    return Details(summary=trial_id, blocks=tuple(blocks))
