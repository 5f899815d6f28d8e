"""study.yaml: what the report finds in it, against networks that are built."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
import yaml

from seg.ablation import plan
from seg.ablation.plan import read_study, read_study_data, write_study_file
from seg.ablation.store import StoredTrial, TrialRecord
from seg.ablation.study import Study, choose_variants, plan_study
from seg.errors import DataError, RunError
from seg.networks import network_from_config

BASE = """
patches: {size: [16, 16, 8]}
network:
  channels: [4, 8]
  strides: [[1, 1, 1], [2, 2, 2]]
  kernel_sizes: [[3, 3, 3], [3, 3, 3]]
training: {steps: 20, validate_every: 10}
optimizer: {warmup_steps: 0}
"""
MANIFEST = {
    "name": "boxes",
    "licence": "CC0",
    "labels": {"background": 0, "box": 1, "ball": 2},
    "channel_names": ["x", "y"],
    "cases": [{"id": f"c{n}", "image": f"c{n}.nii", "label": f"l{n}.nii"} for n in range(7)],
}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of three variants on a manifest without files."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "base.yaml").write_text(BASE)
    fields = {
        "name": "widths",
        "base": "base.yaml",
        "set": {"data.root": str(tmp_path / "data")},
        "design": "sweep",
        "axes": [{"path": "network.skip_bottleneck.ratio", "label": "skip", "values": [0.5, 2]}],
        "seeds": [0, 1],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(fields))
    return plan_study(tmp_path / "study.yaml")


def written(study: Study, folder: Path) -> str:
    write_study_file(study, folder)
    return (folder / "study.yaml").read_text()


def results(study: Study, **values: Any) -> dict[str, StoredTrial]:
    """Results of all trials of a study."""
    record = TrialRecord(variant="baseline", fold=0, seed=0, status="finished")
    return {trial.id: StoredTrial(record=record, path=Path(), **values) for trial in study.trials}


def test_folders_of_a_machine_are_left_out(study: Study, tmp_path: Path) -> None:
    paths = {"data.splits": "/home/me/splits.json", "training.init_from": "/home/me/run"}
    config = replace(study.config, set=paths, baseline=replace(study.config.baseline, set=paths))
    write_study_file(replace(study, config=config), tmp_path / "out")
    text = (tmp_path / "out" / "study.yaml").read_text()
    assert text.count("splits.json") == 2
    assert "/home/me" not in text
    text = written(study, tmp_path / "out")
    assert str(tmp_path) not in text
    assert yaml.safe_load(text)["set"] == {"data.root": "data"}


def test_the_report_reads_what_was_planned(study: Study, tmp_path: Path) -> None:
    record = write_study_file(choose_variants(study, ["skip_2"]), tmp_path / "out")
    assert record == read_study(tmp_path / "out")
    assert (record.name, record.base, record.baseline) == ("widths", "base.yaml", "baseline")
    assert (record.margin, record.folds, record.seeds) == (0.005, (0,), (0, 1))
    # Variants that are left out this time belong to the study all the same.
    assert record.names == ("baseline", "skip_1-2", "skip_2")
    assert record.trials == tuple(f"{name}.fold_0.seed_{seed}" for seed in (0, 1) for name in record.names)
    assert [dict(variant.changes) for variant in record.variants] == [
        {},
        {"network.skip_bottleneck.ratio": 0.5},
        {"network.skip_bottleneck.ratio": 2},
    ]
    assert record.class_names == ("background", "box", "ball")
    assert {key: record.data[key] for key in ("name", "licence", "num_cases")} == {
        "name": "boxes",
        "licence": "CC0",
        "num_cases": 7,
    }
    assert record.training["patch_size"] == [16, 16, 8]
    assert (record.training["steps"], record.training["batch"]) == (20, 2)


def test_what_a_study_says_by_hand_reaches_the_report(study: Study, tmp_path: Path) -> None:
    for said in ({}, {"notes": ("One more seed.", "No budget."), "nominal_spacing": True, "pictures": False}):
        write_study_file(replace(study, config=replace(study.config, **said)), tmp_path)  # type: ignore[arg-type]
        record = read_study(tmp_path)
        found = {"notes": record.notes, "nominal_spacing": record.nominal_spacing, "pictures": record.pictures}
        assert found == (said or {"notes": (), "nominal_spacing": False, "pictures": True})


def test_the_committed_plans_say_what_the_studies_files_say() -> None:
    root = Path(__file__).parents[2]
    plans = sorted((root / "docs" / "results").glob("*/study.yaml"))
    assert plans
    for path in plans:
        study = read_study(path.parent)
        file = yaml.safe_load((root / study.command.split("--config ")[1].split()[0]).read_text())
        assert list(study.notes) == file.get("notes", [])
        assert study.nominal_spacing == file.get("nominal_spacing", False)
        assert study.pictures == file.get("pictures", True)
        assert study.pictures or not (path.parent / "figures" / "worst.json").exists()


def test_sizes_are_those_of_the_networks(study: Study, tmp_path: Path) -> None:
    content = yaml.safe_load(written(study, tmp_path / "out"))
    for entry, variant in zip(content["variants"], study.variants, strict=True):
        network = network_from_config(variant.config.network, 2, 3)
        assert entry["parameters"] == sum(parameter.numel() for parameter in network.parameters())
        assert entry["parameters"] == sum(stage["parameters"] for stage in entry["stages"])
        assert entry["macs"] == sum(stage["macs"] for stage in entry["stages"])
    # Skip 0 has 16 x 16 x 8 voxels of 4 channels, which a 1x1 narrows to 2, and widens to 8 and projects back.
    skips = [stage["macs"] for entry in content["variants"] for stage in entry["stages"] if stage["name"] == "skip 0"]
    assert skips == [0, 2048 * 4 * 2, 2048 * (4 * 8 + 8 * 4)]


def test_data_that_do_not_hold_the_study_are_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        read_study_data(replace(study, config=replace(study.config, folds=(0, 5))))
    assert [(one.path, one.kind, one.value) for one in caught.value.problems] == [("folds", "range", "5")]
    (tmp_path / "data" / "manifest.json").unlink()
    with pytest.raises(DataError, match="data"):
        write_study_file(study, tmp_path / "out")


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Gives a function that sets the day of October on which a plan is written."""

    class Clock(datetime):
        now_is = datetime(2026, 10, 1, tzinfo=UTC)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return cls.now_is

    monkeypatch.setattr(plan, "datetime", Clock)

    def choose(number: int) -> None:
        Clock.now_is = datetime(2026, 10, number, tzinfo=UTC)

    return choose


def test_what_is_named_is_frozen_with_the_first_result(
    study: Study, tmp_path: Path, day: Callable[[int], None]
) -> None:
    first = replace(study, config=replace(study.config, margin=0.02))
    day(1)
    write_study_file(first, tmp_path)
    day(2)  # no result is there, so nothing is frozen
    write_study_file(study, tmp_path)
    day(3)
    write_study_file(study, tmp_path, results(study))
    found = read_study(tmp_path)
    assert (found.margin_named, found.amended) == ("2026-10-02", ())
    later = replace(study.config, margin=0.01, seeds=(0, 1, 2), folds=(0, 1))
    write_study_file(replace(study, config=later, variants=study.variants[:2]), tmp_path, results(study))
    day(4)
    write_study_file(replace(study, config=later, variants=study.variants[:2]), tmp_path, results(study))
    found = read_study(tmp_path)
    assert (found.margin, found.margin_named) == (0.01, None)
    changes = ("margin from 0.005 to 0.01", "folds from [0] to [0, 1]", "seeds from [0, 1] to [0, 1, 2]")
    assert found.amended == (("2026-10-03", (*changes, "variant skip_2 removed")),)


@pytest.mark.parametrize("before", ["of an earlier version", "damaged", "absent"])
def test_what_no_record_names_has_no_day(study: Study, tmp_path: Path, before: str) -> None:
    path = tmp_path / "study.yaml"
    content = yaml.safe_load(written(study, tmp_path))
    del content["named"]
    path.write_text("{" if before == "damaged" else yaml.safe_dump(content))
    if before == "absent":
        path.unlink()
    write_study_file(study, tmp_path, results(study))
    assert read_study(tmp_path).margin_named is None
    assert read_study(tmp_path).amended == ()
    write_study_file(replace(study, config=replace(study.config, margin=0.5)), tmp_path, results(study))
    ((day, changes),) = read_study(tmp_path).amended
    assert (day, changes) == (datetime.now(UTC).date().isoformat(), ("margin from 0.005 to 0.5",))


def test_cases_that_a_trial_left_out_are_named(study: Study, tmp_path: Path) -> None:
    stored = results(study, data={f"c{number}": "digest" for number in range(5)})
    stored |= dict.fromkeys(list(stored)[:1], results(study, data=None).popitem()[1])  # of code that did not say
    assert write_study_file(study, tmp_path, stored).data["left_out"] == ["c5", "c6"]
    assert write_study_file(study, tmp_path).data["left_out"] == []
