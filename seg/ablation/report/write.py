"""From the results of a study to the files of its report."""

from __future__ import annotations

from pathlib import Path

from seg.ablation.report.analysis import analyse
from seg.ablation.report.cases import FIGURES, case_pictures, shown_variant
from seg.ablation.report.compare import STUDIES_TABLE, read_evidence
from seg.ablation.report.frame import estimates, to_csv
from seg.ablation.report.page import make_report, to_html, to_markdown
from seg.ablation.store import read_results
from seg.errors import RunError
from seg.files import write_text

REPORT_FILE = "report.html"
MARKDOWN_FILE = "report.md"
TABLE_FILE = "results.csv"


def write_report(study_dir: Path, *, runs_dir: Path | None = None) -> Path:
    """Writes the report of a study from its results. Equal results give equal files.

    Written are report.html (one file that needs no network), report.md with figures/, and results.csv. Pictures of
    cases are drawn where run directories and data are at hand; else the pictures that an earlier report kept are shown.

    Args:
        study_dir: The study directory.
        runs_dir: Folder of the run directories; None is runs/ in the study directory.

    Returns:
        The path of report.html.

    Raises:
        RunError: Results are damaged, trials cannot be paired, or files cannot be written.
    """
    results = read_results(study_dir)
    if results.problems:
        raise RunError(results.problems)
    analysis = analyse(results)
    frame = estimates(analysis)
    variant = shown_variant(analysis)
    drawn = case_pictures(analysis, variant, study_dir, runs_dir or study_dir / "runs") if variant else ()
    evidence = read_evidence(study_dir.parent / STUDIES_TABLE, analysis.results.study)
    report = make_report(analysis, frame, study_dir, drawn, evidence)
    for picture in filter(None, (*report["pictures"].values(), *report["pareto"])):
        write_text(study_dir / FIGURES / f"{picture.name}.svg", picture.file)
    write_text(study_dir / TABLE_FILE, to_csv(frame))
    write_text(study_dir / MARKDOWN_FILE, to_markdown(report))
    write_text(study_dir / REPORT_FILE, to_html(report, study_dir))
    return study_dir / REPORT_FILE
