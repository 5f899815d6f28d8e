"""What figures draw, read from the figures themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seg.ablation.report import drawing, plots_cost, plots_dice, plots_pareto, plots_preserved
from seg.ablation.report.analysis import Analysis, analyse
from seg.ablation.report.document import Panel
from seg.ablation.report.failures import failed_runs, split
from seg.ablation.report.plots_preserved import ratio_words
from seg.ablation.report.trials import read_records
from tests.ablation.report.studies import VARIANTS, Made, lower, make_study

Drawn = dict[str, Axes]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The first axis of every panel that is drawn, by file."""
    found: Drawn = {}

    def keep(figure: Figure, file: str, alt: str) -> Panel:
        if figure.axes:
            found[file] = figure.axes[0]
        return drawing.panel(figure, file, alt)

    for module in (plots_cost, plots_dice, plots_pareto, plots_preserved):
        monkeypatch.setattr(module, "panel", keep)
    return found


@pytest.fixture(scope="module")
def analysis(whole: Path) -> Analysis:
    return analyse(read_records(whole))


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """A study in which one run of one variant failed to learn, and no variant is recommended."""
    losses = {"skip_1-4": 0.02, "skip_1-16": 0.02, "decoder_1-2": 0.02}
    study = make_study(tmp_path_factory.mktemp("failing"), Made(losses=losses))
    lower(study, "decoder_1-4.fold_0.seed_1", 0.3)
    return analyse(read_records(study))


def test_a_run_far_below_the_others_of_its_variant_failed(failing: Analysis, analysis: Analysis) -> None:
    assert failed_runs(failing.records) == {("decoder_1-4", 0, 1)}
    assert failed_runs(analysis.records) == frozenset()
    sound, failed = split(failing.records)
    assert list(failed.trials) == ["decoder_1-4.fold_0.seed_1"]
    assert {*sound.trials, *failed.trials} == set(failing.records.trials)
    assert not set(sound.trials) & set(failed.trials)


def test_the_front_the_baseline_and_the_recommended_variant_have_their_names(analysis: Analysis, drawn: Drawn) -> None:
    plots_pareto.pareto(analysis)
    names = [text.get_text() for text in drawn["pareto_latency_cpu2"].texts]
    # skip_1-16 is slower than decoder_1-2 and has less Dice; what lies off the scale has its value.
    near, beyond = names[:3], sorted(name.rpartition(" ")[0] for name in names[3:])
    assert sorted(near) == ["baseline", "decoder_1-2", "skip_1-4"]
    assert beyond == ["decoder_1-4", "flat_16", "skip_1-4_decoder_1-4"]
    minus = "\N{MINUS SIGN}"
    assert all(re.fullmatch(rf"\S+ {minus}0\.0\d\d", name) for name in names[3:])


def test_costs_that_differ_much_stand_on_a_logarithmic_axis(analysis: Analysis, drawn: Drawn) -> None:
    plots_pareto.pareto(analysis)
    axis = drawn["pareto_latency_cpu2"]
    assert axis.get_xscale() == "log"  # 60 to 180 ms
    assert [label.get_text() for label in axis.get_xticklabels()] == ["70", "100", "200"]


def test_no_scale_and_no_interval_shows_a_dice_that_cannot_be(tmp_path: Path, drawn: Drawn) -> None:
    # Two runs that differ by much make intervals of more than the whole range.
    losses = {row[0]: 0.4 for row in VARIANTS[1:]}
    wild = analyse(read_records(make_study(tmp_path, Made(losses=losses, noise=0.1, seeds=(0, 1)))))
    plots_pareto.pareto(wild)
    plots_dice.forest(wild)
    base = wild.mean_dice["baseline"].difference
    assert any(one.ci95 is not None and base + one.ci95[1] > 1 for one in wild.comparisons.values())
    for file, axis in drawn.items():
        if file.startswith("pareto"):
            low, high = axis.get_ylim()
            assert -base - 1e-9 <= low < high <= 1 - base + 1e-9
            for ends in (path for bar in axis.collections for path in bar.get_segments()):
                assert ends[:, 1].min() >= -base - 1e-9
                assert ends[:, 1].max() <= 1 - base + 1e-9
        if file == "forest_mean":
            for ends in (path for bar in axis.collections for path in bar.get_segments()):
                assert ends[:, 0].max() <= 1 - base + 1e-9


@pytest.mark.parametrize(
    ("draw", "file"),
    [
        (plots_dice.forest, "forest_mean"),
        (lambda analysis: plots_cost.speed(analysis.device, analysis.records.study), "speed_cuda"),
    ],
    ids=["forest", "speed"],
)
def test_rows_go_by_family_and_width(
    analysis: Analysis, drawn: Drawn, draw: Callable[[Analysis], object], file: str
) -> None:
    draw(analysis)
    names = [label.get_text().split()[0] for label in drawn[file].get_yticklabels()]
    assert names == ["skip_1-4", "skip_1-16", "decoder_1-2", "decoder_1-4", "skip_1-4_decoder_1-4", "flat_16"]


def test_the_baseline_and_the_recommended_variant_stand_out_among_curves(analysis: Analysis, drawn: Drawn) -> None:
    plots_cost.curves(analysis)
    axis = drawn["convergence_steps"]
    thick = {line.get_color() for line in axis.lines if line.get_linewidth() > 1.5}
    styles = drawing.looks(analysis.records.study.names)
    assert thick == {styles[name].colour for name in ("baseline", "decoder_1-2")}
    ends = {text.get_text(): text.xy for text in axis.texts}
    assert ends["baseline"] == pytest.approx((1000, axis.lines[0].get_ydata()[-1]))


def test_ratios_have_powers_of_two_as_ticks(analysis: Analysis, drawn: Drawn) -> None:
    plots_preserved.preserved(analysis)
    labels = [label.get_text() for label in drawn["preserved_r2_skip"].get_xticklabels()]
    assert labels == ["1/16", "1/8", "1/4"]
    assert [ratio_words(power) for power in (-3, 0, 1)] == ["1/8", "1", "2"]


def test_a_line_joins_widths_of_one_path_without_failed_runs(failing: Analysis, drawn: Drawn) -> None:
    figure = plots_preserved.preserved(failing)
    assert figure is not None
    assert "Crosses are runs that failed to learn" in figure.caption
    axis = drawn["preserved_r2_decoder"]
    joined = [line for line in axis.lines if line.get_linestyle() == "-" and line.get_label() == "stage 0, kept"]
    assert [list(line.get_xdata()) for line in joined] == [[0.25, 0.5]]
    # Seeds 0 and 2 alone: the place's R² falls by 0.002 of the ceiling with each seed, so that their mean is seed 1's.
    (failed,) = (line for line in axis.lines[:4] if line.get_marker() == "x")
    assert list(failed.get_xdata()) == [0.25]
    assert joined[0].get_ydata()[0] == pytest.approx(failed.get_ydata()[0])
    assert not any(line.get_marker() == "x" for line in drawn["preserved_r2_skip"].lines if len(line.get_xdata()))
