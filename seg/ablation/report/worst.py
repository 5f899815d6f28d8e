"""Pictures of the hardest cases: drawn where runs and data are at hand, and kept for a report that has neither."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Panel
from seg.ablation.report.failures import failed_runs
from seg.ablation.report.markdown import FIGURES
from seg.ablation.report.numbers import fixed
from seg.ablation.report.study import read_record_file
from seg.ablation.report.trials import TrialData
from seg.ablation.statistics import Pair
from seg.config import load_config
from seg.data.cases import Case, Dataset
from seg.data.readers import read_configured
from seg.errors import RunError, SegError
from seg.figures import CaseFiles, CaseView, case_title, draw_cases, read_case
from seg.files import write_bytes, write_text
from seg.runs import CONFIG_FILE, PREDICTIONS

LOG = logging.getLogger(__name__)

KEPT_FILE = "worst.json"
HARDEST, LOST = 2, 1
"""Cases shown: those with the lowest Dice of the baseline, and those that lose most."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of one case, as it is kept beside its file.

    Attributes:
        file: Its name in the folder of figures.
        alt: What it shows.
        source: Data set, licence and attribution.
    """

    file: str
    alt: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A case to draw.

    Attributes:
        case_id: The case.
        why: Why it is shown.
        pair: Fold and seed whose predictions are shown.
        dice: Dice by class of the baseline and of the variant.
    """

    case_id: str
    why: str
    pair: Pair
    dice: tuple[Mapping[int, float], Mapping[int, float]]


def worst_cases(analysis: Analysis, study_dir: Path, runs_dir: Path) -> tuple[tuple[Panel, ...], str]:
    """Draws the hardest cases, or takes the pictures that were kept.

    Args:
        analysis: What the records show.
        study_dir: The study directory, in whose folder of figures pictures are kept.
        runs_dir: Folder of the run directories, which may be absent.

    Returns:
        The pictures, and a paragraph on them: how to read them with their source, or why there are none.
    """
    variant = shown_variant(analysis)
    if variant is None:
        return (), "Pictures of cases are left out: no variant could be compared with the baseline."
    try:
        pictures = _draw(analysis, variant, study_dir, runs_dir)
    except SegError as error:
        LOG.warning("the hardest cases are not drawn anew: %s", " ".join(error.sentences))
        pictures = kept_pictures(study_dir)
    if not pictures:
        return (), (
            "Pictures of cases are left out: they need the run directories and the data, which were not at hand when "
            "this report was written."
        )
    panels = tuple(
        Panel(file=one.file, content=(study_dir / FIGURES / one.file).read_bytes(), alt=one.alt, caption=one.alt)
        for one in pictures
    )
    sources = " ".join(dict.fromkeys(one.source for one in pictures))
    return panels, (
        f"The hardest cases for the baseline, and the one that loses most with the variant below it. Predictions are "
        "filled, with stripes where they are wrong; references are outlined; the patient's right is on the left. "
        f"{sources}"
    )


def shown_variant(analysis: Analysis) -> str | None:
    """Gives the variant that is drawn beside the baseline: the recommended one, else the one of fewest operations.

    Without a recommendation a variant of which a run failed to learn is shown only where every variant has such a run:
    a picture of that run would show the failure, and not what the bottleneck does.
    """
    if analysis.recommended is not None:
        return analysis.recommended
    unsound = {variant for variant, _, _ in failed_runs(analysis.records)}
    compared = [name for name, one in analysis.comparisons.items() if one.difference is not None]
    return min(compared, key=lambda name: (name in unsound, analysis.macs(name) or math.inf, name), default=None)


def kept_pictures(study_dir: Path) -> list[Picture]:
    """Reads which pictures an earlier report kept; those whose file is gone are left out.

    Raises:
        RunError: Their list is damaged or of a newer version.
    """
    path = study_dir / FIGURES / KEPT_FILE
    if not path.is_file():
        return []
    content = read_record_file(path, "a list of pictures", "draw them again")
    try:
        pictures = [Picture(**entry) for entry in content["pictures"]]
    except (KeyError, TypeError) as error:
        raise RunError(f"{path}: must be a list of pictures, got {type(error).__name__}; remove it.") from error
    return [one for one in pictures if Path(one.file).name == one.file and (path.parent / one.file).is_file()]


def choose(analysis: Analysis, variant: str) -> list[Chosen]:
    """Chooses the cases that are shown: the hardest for the baseline, then those that lose most."""
    sides = [{trial.pair: trial for trial in analysis.records.finished(name)} for name in (analysis.baseline, variant)]
    failed = failed_runs(analysis.records)
    pairs = sorted(
        set(sides[0]) & set(sides[1]),
        key=lambda pair: (any((name, *pair) in failed for name in (analysis.baseline, variant)), pair),
    )
    dice = [tuple(_dice(side[pair]) for side in sides) for pair in pairs]
    means = [_means(side) for side in zip(*dice, strict=True)] or [{}, {}]
    common = sorted(set(means[0]) & set(means[1]))
    hardest = sorted(common, key=lambda case: (means[0][case], case))[:HARDEST]
    lost = sorted(common, key=lambda case: (means[1][case] - means[0][case], case))
    found = [(case, "among the lowest Dice of the baseline") for case in hardest]
    found += [(case, "loses most with the variant") for case in [c for c in lost if c not in hardest][:LOST]]
    chosen = []
    for case, why in found:
        for pair, (base, own) in zip(pairs, dice, strict=True):
            shown = base.get(case, {}), own.get(case, {})
            if all(map(_finite, shown)):  # both have a Dice in the same trial
                chosen.append(Chosen(case_id=case, why=why, pair=pair, dice=shown))
                break
    return chosen


def _dice(trial: TrialData) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for score in trial.scores:
        found.setdefault(score.case_id, {})[score.class_index] = score.scores.dice
    return found


def _means(trials: Sequence[Mapping[str, Mapping[int, float]]]) -> dict[str, float]:
    """Averages the Dice of each case over trials and classes; cases without one are left out."""
    found: dict[str, list[float]] = {}
    for by_case in trials:
        for case, by_class in by_case.items():
            found.setdefault(case, []).extend(_finite(by_class))
    return {case: fmean(values) for case, values in found.items() if values}


def _finite(by_class: Mapping[int, float]) -> list[float]:
    return [value for value in by_class.values() if not math.isnan(value)]


def _draw(analysis: Analysis, variant: str, study_dir: Path, runs_dir: Path) -> list[Picture]:
    """Draws the chosen cases and keeps them.

    Raises:
        SegError: A run directory, a prediction or the data cannot be read.
    """
    pictures: list[Picture] = []
    data: dict[Path, tuple[Dataset, dict[str, Case]]] = {}
    for chosen in choose(analysis, variant):
        titled = []
        for name, dice in zip((analysis.baseline, variant), chosen.dice, strict=True):
            run_dir = runs_dir / name / f"fold_{chosen.pair[0]}_seed_{chosen.pair[1]}"
            if run_dir not in data:
                data[run_dir] = _read_data(run_dir)
            dataset, cases = data[run_dir]
            title = case_title(chosen.case_id, dice, dataset.class_names, f"{name}, seed {chosen.pair[1]}")
            titled.append((title, _read_view(run_dir, dataset, cases, chosen.case_id)))
        file = f"worst_{len(pictures) + 1}.png"
        write_bytes(study_dir / FIGURES / file, draw_cases(titled, dataset.class_names))
        means = [fmean(_finite(dice)) for dice in chosen.dice]
        pictures.append(
            Picture(
                file=file,
                alt=f"Case {chosen.case_id} ({chosen.why}), fold {chosen.pair[0]}, seed {chosen.pair[1]}, in three "
                f"slices: {analysis.baseline} with Dice {fixed(means[0], 3)}, below it {variant} with Dice "
                f"{fixed(means[1], 3)}.",
                source=f"Data set: {dataset.name}; licence: {dataset.licence}; attribution: {dataset.attribution}. "
                "Pictures are derived from it (images cut to slices, brightness adjusted, label maps added).",
            )
        )
    content = json.dumps({"schema_version": 1, "pictures": [asdict(one) for one in pictures]}, indent=2)
    write_text(study_dir / FIGURES / KEPT_FILE, content + "\n")
    return pictures


def _read_data(run_dir: Path) -> tuple[Dataset, dict[str, Case]]:
    if not (run_dir / CONFIG_FILE).is_file():
        raise RunError(f"{run_dir}: a picture needs the run directory, got none; name its folder with --runs.")
    dataset = read_configured(load_config([run_dir / CONFIG_FILE]).data)
    return dataset, {case.id: case for case in dataset.cases}


def _read_view(run_dir: Path, dataset: Dataset, cases: Mapping[str, Case], case_id: str) -> CaseView:
    """Reads what is shown of a case of one run."""
    case = cases.get(case_id)
    prediction = run_dir / PREDICTIONS / f"{case_id}.nii.gz"
    if case is None or case.label is None or not prediction.is_file():
        raise RunError(
            f"{run_dir}: a picture of {case_id} needs its label and its prediction, got no such files; restore them."
        )
    files = CaseFiles(prediction=prediction, label=case.label, images=case.images)
    return read_case(case_id, files, ignore_label=dataset.ignore_label)
