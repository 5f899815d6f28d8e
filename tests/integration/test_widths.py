"""What the command writes of a trained run: tables, a page that stands alone, and networks that can be trained."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import seg
from seg.ablation.study import plan_study
from seg.compression import drawing, widths
from seg.compression.widths import Findings, find_widths, to_html, write_findings
from seg.config import ExperimentConfig, load_config
from seg.errors import SegError
from seg.figures.svg import Picture
from seg.files import locked
from tests.costs import checked_complexity
from tests.integration.conftest import tell_costs
from tests.pages import Page

HOSTILE = '<script>alert(1)</script>" onload="alert(2)'


@pytest.fixture(scope="module")
def run(tiny: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from seg.workflows.train import train  # not above: torch would begin before its threads are set

    run_dir = tmp_path_factory.mktemp("widths") / "run"
    train(tiny, run_dir=run_dir, folds=[0])
    return run_dir


@pytest.fixture(scope="module")
def found(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return find_widths(run, tmp_path_factory.mktemp("found"), margin=0.3, cases=3, timing=False)


@pytest.fixture
def uncurved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures of a page empty, which take seconds."""
    empty = Picture(name="empty", alt="", file="<svg/>\n", inline="<svg></svg>")
    monkeypatch.setattr(drawing, "to_picture", lambda *_: empty)


def test_the_files_say_the_same(run: Path, tmp_path: Path, script: Callable[..., Any]) -> None:
    ended = script("widths", "--run_dir", run, "--margin", 0.3, "--cases", 3, "--output", tmp_path / "out")
    assert ended.code == 0
    names = {"widths.json", "widths.csv", "widths.html", "points.yaml", "network.yaml"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    record = json.loads((tmp_path / "out" / "widths.json").read_text())
    assert (record["schema_version"], record["patients"], len(record["cases"])) == (1, 3, 3)
    rows = list(csv.DictReader((tmp_path / "out" / "widths.csv").open()))
    by_place: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_place.setdefault(row["place"], []).append(row)
    assert list(by_place) == [place["name"] for place in record["places"]]
    for place in record["places"]:
        assert place["name"] in ended.out
        assert place["widths"][-1] == place["channels"]
        own = by_place[place["name"]]
        assert {row["class"] for row in own} == {"box", "corner"}
        assert min(int(row["width"]) for row in own if row["safe"] == "1") == place["safe_alone"]
        worst = max(float(row["high"]) for row in own if int(row["width"]) == place["safe_alone"])
        assert worst < 0.3
        assert place["safe_alone"] <= place["safe_together"]
        timed = place["milliseconds"]
        assert (timed is not None) == (place["safe_alone"] < place["channels"])
        assert timed is None or (timed["full_ms"] > 0 and timed["speedup"] > 0)
    assert any(place["milliseconds"] for place in record["places"])


@pytest.mark.usefixtures("uncurved", "undrawn")
def test_the_networks_train_from_scratch(run: Path, found: Findings, tmp_path: Path) -> None:
    write_findings(found, tmp_path)
    config = load_config([run / "config.yaml", tmp_path / "network.yaml"])
    assert config.network == found.points[0].network
    study = {"name": "widths", "base": str(run / "config.yaml"), "baseline": {"name": "plain"}}
    points = yaml.safe_load((tmp_path / "points.yaml").read_text())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**study, "points": points, "folds": [0], "seeds": [0]}))
    planned = plan_study(tmp_path / "study.yaml")
    assert {point["name"] for point in points} <= {variant.name for variant in planned.variants}
    for point in found.points:
        cost = checked_complexity(1, 3, point.network, shape=config.patches.size)
        assert (point.macs, point.parameters) == (cost.macs, cost.parameters)
    small = seg.train(replace(config, fold=0), run_dir=tmp_path / "small")
    assert seg.load_run(small).config.network == found.points[0].network


def test_the_page_stands_alone_and_runs_nothing(found: Findings) -> None:
    run = replace(
        found.run,
        class_names=("background", HOSTILE, "corner"),
        config=replace(found.run.config, name=HOSTILE),
    )
    page = Page(to_html(replace(found, run=run, cases=[HOSTILE])))
    assert page.all("script") == []
    assert page.all("link") == page.all("img") == page.all("iframe") == []
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src", "xlink:href"):
            target = attributes.get(name, "#")
            assert target.startswith("#") or target in ("widths.json", "widths.csv", "points.yaml", "network.yaml")
    policy = next(meta["content"] for meta in page.all("meta") if "content" in meta and "http-equiv" in meta)
    digest = base64.b64encode(hashlib.sha256(page.inline["style"].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "script-src 'none'" in policy
    assert HOSTILE in page.text
    assert "not measured" in page.text


def test_the_page_shows_what_was_found(found: Findings) -> None:
    page = Page(to_html(found))
    rows = page.rows("Safe alone")
    assert {name: (int(row["Channels now"]), int(row["Safe alone"])) for name, row in rows.items()} == {
        row.site.name: (row.site.channels, row.alone) for row in found.maps
    }
    assert len(page.all("svg")) == 1 + len(found.maps) + len(found.kernels)
    told = [float(number) for number in re.findall(r"([0-9.]+) M parameters", page.text)]
    counts = [found.parameters, *(point.parameters for point in found.points)]
    assert told == pytest.approx([count / 1e6 for count in counts], rel=0.005)


@pytest.mark.usefixtures("uncurved", "undrawn")
def test_where_nothing_can_be_narrower_no_point_is_made(
    run: Path, found: Findings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = find_widths(run, tmp_path, margin=1e-12, timing=False)
    assert {point.network for point in none.points} == {found.run.config.network}
    assert "next:" not in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "points.yaml").read_text()) is None
    assert load_config([run / "config.yaml", tmp_path / "network.yaml"]).network == found.run.config.network


@pytest.mark.usefixtures("undrawn")
def test_what_cannot_be_used_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds(run_dir: Path, **options: Any) -> list[tuple[str, str]]:
        with pytest.raises(SegError) as caught:
            seg.widths(run_dir, tmp_path / "out", timing=False, **options)
        return [(problem.path, problem.kind) for problem in caught.value.problems]

    shutil.copytree(run, tmp_path / "folds" / "fold_0")
    assert kinds(tmp_path / "folds") == [(str(tmp_path / "folds"), "folds")]
    with pytest.raises(SegError) as caught:
        find_widths(run, tmp_path / "out", cases=1)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [("cases", "patients")]
    tell_costs(monkeypatch)
    seg.compress(tmp_path / "folds" / "fold_0", tmp_path / "small", target="macs=0.8", cases=2, tune_steps=0)
    (small,) = (path.parent for path in (tmp_path / "small").glob("*/config.yaml"))
    assert kinds(small) == [(str(small), "compressed")]
    assert not (tmp_path / "out").exists()


def test_the_folder_is_looked_at_before_anything_is_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widths, "predict_maps", lambda *_, **__: pytest.fail("measured"))
    out = tmp_path / "out"
    (out / "widths.lock").mkdir(parents=True)  # as unwritable as a folder of another user
    with pytest.raises(SegError) as caught:
        find_widths(run, out)
    assert [problem.kind for problem in caught.value.problems] == ["unwritable"]
    (out / "widths.lock").rmdir()
    with locked(out / "widths.lock"), pytest.raises(SegError) as caught:
        find_widths(run, out)
    assert [problem.kind for problem in caught.value.problems] == ["locked"]


def test_another_data_set_of_the_same_names_is_named(
    run: Path, tiny_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Path(shutil.copytree(tiny_root, tmp_path / "other"))
    for path in list(other.rglob("case_*")):
        path.rename(path.with_name(path.name.replace("case_", "other_")))
    description = (other / "dataset.json").read_text()
    (other / "dataset.json").write_text(description.replace("case_", "other_"))
    with pytest.raises(SegError) as caught:
        seg.widths(run, tmp_path / "out", data_root=other)
    assert "--data.root" in caught.value.problems[0].remedy
    assert [one.levelname for one in caplog.records if str(other) in one.getMessage()] == ["WARNING"]


@pytest.mark.usefixtures("uncurved")
def test_a_home_folder_is_found(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.parent))
    seg.widths(f"~/{run.name}", "~/found", margin=0.3, cases=2, timing=False)
    assert (run.parent / "found" / "widths.html").is_file()
