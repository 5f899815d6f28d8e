"""Widths from a spectrum whose answer is known, and the point of a study that they make."""

import itertools
import json
import logging

import pytest
import yaml

from seg.ablation.preservation import SafeWidths, predict_safe_widths, read_preservation, spectrum_point, write_point
from seg.cli import main
from seg.config import BottleneckConfig
from seg.errors import ConfigError, RunError
from seg.networks.bottleneck import width


def place(path, stage, shares, channels, narrow=None):
    return {
        "name": f"{path}_{stage}",
        "path": path,
        "stage": stage,
        "channels": channels,
        "wide": len(shares),
        "narrow": narrow,
        "r2_by_width": shares,
    }


def record(**changes):
    bottlenecks = [
        # Not in the order of the stages: a record need not be.
        place("skip", 1, [0.5, 0.7, 0.8, 0.9, 0.96, 1.0], 6),
        place("skip", 0, [0.94, 0.95, 0.99, 1.0], 4),
        place("decoder", 0, [0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 0.99, 1.0], 4),
        place("decoder", 1, [0.99, *[1.0] * 11], 6),
    ]
    return {"schema_version": 1, "bottlenecks": bottlenecks} | changes


def test_the_narrowest_width_that_reaches_the_threshold():
    safe = predict_safe_widths(record(), 0.95)
    assert safe == SafeWidths(threshold=0.95, channels=(4, 6), skip=(2, 5), decoder=(6, 1))
    assert safe.skip_ratio == (0.5, 5 / 6)
    assert safe.decoder_ratio == (1.5, 1 / 6)
    assert predict_safe_widths(record(), 0.5).skip == (1, 1)
    assert predict_safe_widths(record(), 1).decoder == (8, 2)


def test_a_higher_threshold_never_narrows():
    widths = [predict_safe_widths(record(), share / 100) for share in range(1, 101)]
    for lower, higher in itertools.pairwise(widths):
        assert all(a <= b for a, b in zip(lower.skip + lower.decoder, higher.skip + higher.decoder, strict=True))


def test_rounding_of_the_last_share_is_no_obstacle():
    shares = [0.5, 1 - 1e-16 * 3, 1 - 1e-16 * 3]
    bottlenecks = [place("skip", 0, shares, 3), place("decoder", 0, shares, 3)]
    assert predict_safe_widths(record(bottlenecks=bottlenecks), 1.0).skip == (2,)


@pytest.mark.parametrize("channels", [3, 10, 16, 33, 320])
def test_ratios_give_back_every_width(channels):
    # A network makes round(ratio x channels) of it.
    for wanted in range(1, 2 * channels + 1):
        safe = SafeWidths(threshold=0.95, channels=(channels,), skip=(wanted,), decoder=(wanted,))
        assert width(channels, safe.skip_ratio[0]) == width(channels, safe.decoder_ratio[0]) == wanted


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_threshold_out_of_range(threshold):
    with pytest.raises(ConfigError) as error:
        predict_safe_widths(record(), threshold)
    assert str(error.value) == f"threshold must be in (0, 1], got {threshold}; it is a share of variance."


def test_only_a_baseline_predicts():
    bottlenecks = [place("skip", 0, [0.9, 1.0], 2, narrow=1), place("decoder", 0, [0.9, 1.0], 2)]
    with pytest.raises(RunError) as error:
        predict_safe_widths(record(bottlenecks=bottlenecks))
    assert str(error.value) == (
        "preservation record must be of a network without bottlenecks, got one with skip_0; take the baseline's."
    )


def test_features_that_do_not_vary_predict_nothing():
    bottlenecks = [place("skip", 0, [None, None], 2), place("decoder", 0, [0.9, 1.0], 2)]
    with pytest.raises(RunError) as error:
        predict_safe_widths(record(bottlenecks=bottlenecks))
    assert str(error.value) == (
        "preservation record must have features that vary at skip_0, got a variance of 0; take a trained network."
    )


def test_the_point_sets_what_a_configuration_takes():
    point = spectrum_point(predict_safe_widths(record(), 0.95))
    assert point["name"] == "spectrum"
    assert point["set"] == {
        "network.skip_bottleneck.ratio": [0.5, 5 / 6],
        "network.decoder_bottleneck.ratio": [1.5, 1 / 6],
    }
    assert BottleneckConfig(ratio=tuple(point["set"]["network.skip_bottleneck.ratio"])).ratio == (0.5, 5 / 6)


def test_the_snippet_is_a_list_of_points(tmp_path):
    (tmp_path / "preservation.json").write_text(json.dumps(record()))
    output = tmp_path / "spectrum.yaml"
    safe = write_point(tmp_path / "preservation.json", output, 0.95)
    assert safe.skip == (2, 5)
    assert yaml.safe_load(output.read_text()) == [spectrum_point(safe)]
    assert output.read_text().startswith(
        "# Narrowest widths that can keep 95% of the variance of the baseline's features:\n"
        "# skip [2, 5], decoder [6, 1] of [4, 6] channels.\n"
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [(None, "missing"), ("{", "json"), ('{"schema_version": 2}', "version"), ('{"schema_version": 1}', "missing")],
)
def test_records_that_cannot_be_read(tmp_path, text, kind):
    path = tmp_path / "preservation.json"
    if text:
        path.write_text(text)
    with pytest.raises(RunError) as error:
        read_preservation(path)
    (problem,) = error.value.problems
    assert (problem.path.split(":")[0], problem.kind) == (str(path), kind)


def call(monkeypatch, capsys, *argv):
    monkeypatch.setattr(logging.getLogger("seg"), "handlers", [])
    with pytest.raises(SystemExit) as ended:
        main(["widths", *map(str, argv)])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    path, output = tmp_path / "preservation.json", tmp_path / "spectrum.yaml"
    path.write_text(json.dumps(record()))
    code, out, _ = call(monkeypatch, capsys, "--record", path, "--output", output)
    assert code == 0
    assert out == f"channels [4, 6]: skip [2, 5], decoder [6, 1]\npoint: {output}\n"
    assert yaml.safe_load(output.read_text())[0]["name"] == "spectrum"
    code, out, err = call(monkeypatch, capsys, "--record", path, "--output", output, "--threshold", "2")
    assert (code, out) == (2, "")
    assert err.startswith("error: --threshold must be in (0, 1], got 2")
