"""The documentation page of all fields: ``python -m seg.config.page > docs/configuration.md``."""

from __future__ import annotations

from collections.abc import Iterator

from seg.config.experiment import ExperimentConfig
from seg.config.fields import REQUIRED, fields_of, range_in_words, type_in_words
from seg.config.study import AxisConfig, ContrastConfig, PointConfig, StudyConfig
from seg.config.text import as_yaml

OPENING = """\
# Configuration

Every field of an experiment and of a study, made by `python -m seg.config.page` from the classes in `seg/config/`.

A YAML file gives the fields that differ from their defaults, one level per line. Several files overlay one
another field by field: `seg train --config my.yaml --config gpu`; options such as `--training.steps 400` go
over all files. `null` in the place of an optional section removes the section, a mapping brings it back with
its defaults. YAML is read by its version 1.2: `yes` and `4:00:00` are texts, `010` is 10; tags, aliases and
merge keys are not read. All problems of all files are reported at once.

A relative path is relative to the file that gives it: `root: ../scans` in `configs/my.yaml` is the folder `scans`
beside `configs`. On the command line and in Python, in the configurations that come with the package, and in the
`config.yaml` of a run, it is relative to where you stand. `seg plan` writes the path that suits its output.
"""


def page() -> str:
    """Formats the page as Markdown."""
    lines = [OPENING, "## Experiment", "", *_table(ExperimentConfig)]
    lines += ["", "## Study", "", *_table(StudyConfig)]
    for title, cls in (("A point", PointConfig), ("An axis", AxisConfig), ("A contrast", ContrastConfig)):
        lines += ["", f"### {title}", "", *_table(cls)]
    return "\n".join(lines) + "\n"


def _table(cls: type) -> Iterator[str]:
    yield "| field | value | default | meaning |"
    yield "|---|---|---|---|"
    for path, field in fields_of(cls).items():
        optional = "a group of fields or null" if field.optional else "a group of fields"
        value = optional if field.section is not None else type_in_words(field.hint)
        limits = range_in_words(field.hint) if field.section is None else ""
        default = "" if field.section is not None and not field.optional else "null"
        if field.section is None:
            default = "to be given" if field.default is REQUIRED else f"`{as_yaml(field.default)}`"
        cells = (f"`{path}`", f"{value}, {limits}" if limits else value, default, field.description)
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    print(page(), end="")
