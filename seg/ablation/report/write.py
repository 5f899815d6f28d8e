"""From the records of a study to the files of its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from seg.ablation.report.analysis import analyse
from seg.ablation.report.assemble import assemble
from seg.ablation.report.document import Block, Details, Figure
from seg.ablation.report.export import to_json
from seg.ablation.report.html import to_html
from seg.ablation.report.markdown import FIGURES, to_markdown
from seg.ablation.report.rows import to_csv
from seg.ablation.report.trials import read_records
from seg.files import write_bytes, write_json, write_text

REPORT_FILE = "report.html"
MARKDOWN_FILE = "report.md"
TABLE_FILE = "results.csv"
JSON_FILE = "results.json"


def write_report(study_dir: Path, *, runs_dir: Path | None = None) -> Path:
    """Writes the report of a study from its records alone. Equal records give equal bytes.

    Written are report.html (needs no other file and no network), report.md with figures/, results.csv and results.json.
    Pictures of cases are drawn where the run directories and the data are at hand; else those that an earlier report
    kept in figures/ are shown, with their licence, or the report says that there are none.

    Args:
        study_dir: The study directory, with study.json and trials/; speed.json where speed was measured.
        runs_dir: Folder of the run directories; None is runs/ in the study directory.

    Returns:
        The path of report.html.

    Raises:
        RunError: A record is damaged or of a newer version, trials cannot be paired, or files cannot be written.
    """
    analysis = analyse(read_records(study_dir))
    document = assemble(analysis, study_dir, study_dir / "runs" if runs_dir is None else runs_dir)
    for figure in _figures(document.blocks):
        for panel in figure.panels:
            write_bytes(study_dir / FIGURES / panel.file, panel.content)
    write_text(study_dir / TABLE_FILE, to_csv(analysis))
    write_json(study_dir / JSON_FILE, to_json(analysis))
    write_text(study_dir / MARKDOWN_FILE, to_markdown(document))
    write_text(study_dir / REPORT_FILE, to_html(document))
    return study_dir / REPORT_FILE


def _figures(blocks: Sequence[Block]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Details):
            yield from _figures(block.blocks)
