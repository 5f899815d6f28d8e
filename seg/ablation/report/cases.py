"""Differences of each case, and pictures of the hardest cases."""

from __future__ import annotations

import base64
import io
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import BaseModel

from seg.ablation.report.analysis import Analysis
from seg.ablation.store import run_path
from seg.errors import Problem, RunError, SegError
from seg.files import read_json, write_bytes, write_json
from seg.runs import CONFIG_FILE, PREDICTIONS
from seg.words import fixed

if TYPE_CHECKING:
    from seg.data.cases import Case, Dataset
    from seg.figures import CaseView

LOG = logging.getLogger(__name__)

FIGURES = "figures"
KEPT_FILE = "worst.json"
HARDEST, LOST = 1, 2
"""Cases with a picture: the lowest Dice of the baseline, and the largest losses."""
EMBEDDED_WIDTH = 1200
"""Largest width of a picture inside the page, in pixels."""


class CasePicture(BaseModel, frozen=True):
    """A picture of a case, as ``figures/worst.json`` keeps it.

    Attributes:
        file: Name of the PNG in the folder of figures.
        alt: What the picture shows.
        source: Data set, licence and attribution.
        case: The case; empty in older lists.
    """

    file: str
    alt: str
    source: str
    case: str = ""


class _KeptPictures(BaseModel):
    pictures: list[CasePicture]


def shown_variant(analysis: Analysis) -> str | None:
    """Returns the variant whose cases are shown: the recommended one, else the one of fewest multiply-accumulates.

    A variant of which a run failed comes last: its cases would show the failure, not what the bottleneck does.
    """
    if analysis.recommended is not None:
        return analysis.recommended
    failed = {variant for variant, _, _ in analysis.failed}
    macs = {variant.name: variant.macs for variant in analysis.results.study.variants}
    compared = [name for name, one in analysis.comparisons.items() if one.dice is not None]
    return min(compared, key=lambda name: (name in failed, macs[name] or math.inf, name), default=None)


def case_differences(analysis: Analysis, variant: str) -> pd.DataFrame:
    """Returns the mean Dice of each case over classes and the runs that both have, and what the variant changes.

    Returns:
        A row for each case, the largest loss first: case, baseline, variant, difference.
    """
    scores = analysis.results.scores
    dice = scores[scores.metric == "dice"].dropna(subset=["value"])
    keys = ["case", "class_index", "fold", "seed"]
    sides = [dice[dice.variant == name].set_index(keys)["value"] for name in (analysis.baseline, variant)]
    both = pd.concat(sides, axis=1, keys=["baseline", "variant"], join="inner")
    frame = both.groupby("case").mean().reset_index()
    frame["difference"] = frame["variant"] - frame["baseline"]
    return frame.sort_values(["difference", "case"], ignore_index=True)


def chosen_cases(frame: pd.DataFrame) -> dict[str, str]:
    """Returns the cases to show, with the reason: the hardest for the baseline, then the largest loss."""
    hardest = frame.sort_values(["baseline", "case"])["case"].head(HARDEST).tolist()
    lost = [case for case in frame["case"] if case not in hardest][:LOST]
    return dict.fromkeys(hardest, "among the lowest Dice of the baseline") | dict.fromkeys(lost, "loses most")


def case_pictures(analysis: Analysis, variant: str, study_dir: Path, runs_dir: Path) -> tuple[CasePicture, ...]:
    """Draws the chosen cases where runs and data are at hand; else returns the pictures that an earlier report kept."""
    if not analysis.results.study.pictures:
        return ()
    if not runs_dir.is_dir():
        return kept_pictures(study_dir)
    try:
        return _draw(analysis, variant, study_dir, runs_dir)
    except SegError as error:
        LOG.warning("the hardest cases are not drawn anew: %s", " ".join(error.sentences))
        return kept_pictures(study_dir)


def kept_pictures(study_dir: Path) -> tuple[CasePicture, ...]:
    """Reads which pictures an earlier report kept; names that leave the folder, and links, are refused.

    Raises:
        RunError: The list is damaged, of a newer version, or names a file that it must not name.
    """
    folder = study_dir / FIGURES
    path = folder / KEPT_FILE
    if not path.is_file():
        return ()
    remedy = "remove the list, or draw the pictures again"
    pictures = read_json(path, _KeptPictures, newest=1, remedy=remedy).pictures
    for picture in pictures:
        file = folder / picture.file
        if not re.fullmatch(r"worst_[0-9]+\.png", picture.file) or any(map(Path.is_symlink, (folder, path, file))):
            rule = "must name pictures of the study itself, such as worst_1.png"
            raise RunError(Problem(str(path), "name", rule, repr(picture.file), remedy))
    return tuple(picture for picture in pictures if (folder / picture.file).is_file())


def embedded(path: Path) -> str:
    """Returns a picture as a data URI, smaller than its file."""
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as picture:
        shown = picture.convert("RGB")
    if shown.width > EMBEDDED_WIDTH:
        shown = shown.resize((EMBEDDED_WIDTH, round(shown.height * EMBEDDED_WIDTH / shown.width)))
    content = io.BytesIO()
    shown.save(content, format="WEBP", quality=80, method=6)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def _draw(analysis: Analysis, variant: str, study_dir: Path, runs_dir: Path) -> tuple[CasePicture, ...]:
    """Draws the chosen cases and keeps the pictures.

    Raises:
        SegError: A run directory, a prediction or the data cannot be read.
    """
    # Only pictures need readers of images, which a report without runs does without.
    from seg.figures import case_title, draw_cases

    pictures: list[CasePicture] = []
    data: dict[Path, tuple[Dataset, dict[str, Case]]] = {}
    for case, why in chosen_cases(case_differences(analysis, variant)).items():
        fold, seed, dice = _shown_run(analysis, variant, case)
        titled = []
        for name in (analysis.baseline, variant):
            run_dir = run_path(runs_dir, name, fold, seed)
            if run_dir not in data:
                data[run_dir] = _read_data(run_dir)
            dataset, cases = data[run_dir]
            label = analysis.labels[name].text
            title = case_title(case, dice[name], dataset.class_names, f"{label}, seed {seed}")
            titled.append((title, _read_view(run_dir, dataset, cases, case)))
        file = f"worst_{len(pictures) + 1}.png"
        write_bytes(study_dir / FIGURES / file, draw_cases(titled, dataset.class_names))
        means = {name: fixed(sum(values.values()) / len(values), 3) for name, values in dice.items()}
        pictures.append(
            CasePicture(
                file=file,
                case=case,
                alt=f"Case {case} ({why}), fold {fold}, seed {seed}: baseline with Dice {means[analysis.baseline]}, "
                f"below it {analysis.labels[variant].text} with Dice {means[variant]}.",
                source=f"Data set: {dataset.name}; licence: {dataset.licence}; attribution: {dataset.attribution}. "
                "Pictures are derived from the data (slices of scans, brightness adjusted, label maps added).",
            )
        )
    kept = _KeptPictures(pictures=pictures).model_dump()
    write_json(study_dir / FIGURES / KEPT_FILE, {"schema_version": 1, **kept})
    return tuple(pictures)


def _shown_run(analysis: Analysis, variant: str, case: str) -> tuple[int, int, dict[str, dict[int, float]]]:
    """Returns fold, seed and Dice by variant and class of the first run that scored a case in both variants.

    Runs that failed to train come last.
    """
    scores, names = analysis.results.scores, (analysis.baseline, variant)
    own = scores[(scores.metric == "dice") & (scores.case == case)].dropna(subset=["value"])
    own = own.set_index(["variant", "fold", "seed", "class_index"])["value"].sort_index()
    runs = [set(own[name].index.droplevel("class_index")) for name in names]
    fold, seed = min(
        runs[0] & runs[1], key=lambda pair: (any((name, *pair) in analysis.failed for name in names), pair)
    )
    return int(fold), int(seed), {name: own[name, fold, seed].to_dict() for name in names}


def _read_data(run_dir: Path) -> tuple[Dataset, dict[str, Case]]:
    from seg.config import load_config
    from seg.data.datasets import read_configured

    if not (run_dir / CONFIG_FILE).is_file():
        rule, remedy = "must be a run directory, for a picture of a case", "name the folder of the runs with --runs"
        raise RunError(Problem(str(run_dir), "missing", rule, remedy=remedy))
    dataset = read_configured(load_config([run_dir / CONFIG_FILE]).data)
    return dataset, {case.id: case for case in dataset.cases}


def _read_view(run_dir: Path, dataset: Dataset, cases: Mapping[str, Case], case_id: str) -> CaseView:
    from seg.figures import CaseFiles, read_case

    case = cases.get(case_id)
    prediction = run_dir / PREDICTIONS / f"{case_id}.nii.gz"
    if case is None or case.label is None or not prediction.is_file():
        rule = f"must hold the prediction of {case_id}, whose label must be in the data"
        raise RunError(Problem(str(run_dir), "missing", rule, remedy="restore them"))
    return read_case(case_id, CaseFiles.of(case, prediction), ignore_label=dataset.ignore_label)
