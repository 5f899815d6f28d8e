"""When the manifest of a run is written."""

from __future__ import annotations

import pytest

from seg.errors import RunError
from seg.prediction import pipeline, predict
from tests.prediction.test_pipeline import arguments, names


def test_a_manifest_that_cannot_be_written_again_does_not_stop_the_cases(make_run, scans, tmp_path, monkeypatch):
    write, calls = pipeline.write_manifest, []

    def fail(*args, **values):
        calls.append(args)
        if len(calls) > 1:
            raise RunError("disk full")
        write(*args, **values)

    monkeypatch.setattr(pipeline, "write_manifest", fail)
    monkeypatch.setattr(pipeline, "SAVE_SECONDS", 0.0)
    with pytest.raises(RunError, match="disk full"):
        predict(arguments(make_run(), scans, tmp_path / "out"))
    assert names(tmp_path / "out") == ["predictions.json", "scan_0.nii.gz", "scan_1.nii.gz", "scan_2.nii.gz"]


def test_the_manifest_names_the_networks_before_the_first_label_map(make_run, scans, tmp_path, monkeypatch):
    written = []

    def write(path, header, records, seconds, *, complete):
        written.append((names(path.parent) if path.parent.is_dir() else [], len(header.models), complete))

    monkeypatch.setattr(pipeline, "write_manifest", write)
    predict(arguments(make_run(), scans, tmp_path / "out"))
    assert written[0] == ([], 1, False)
