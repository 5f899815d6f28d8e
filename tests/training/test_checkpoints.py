from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from seg.errors import RunError
from seg.training.callbacks import Checkpoints, Records, check_checkpoint


class FakeTrainer:
    """Writes the number of validations as the checkpoint."""

    def __init__(self, records):
        self.records = records
        self.should_stop = False

    def save_checkpoint(self, path):
        Path(path).write_text(str(len(self.records.history)))


def validate(folder, scores, early_stop=None):
    """Runs the callback over a list of Dice; returns numbers of the best and last checkpoint and of stopping."""
    records = Records(folder)
    trainer, checkpoints = FakeTrainer(records), Checkpoints(folder, records, early_stop)
    while scores and not trainer.should_stop:
        records.history.append({"val_dice": scores[0]})
        checkpoints.on_train_epoch_end(trainer, None)
        scores = scores[1:]
    return int((folder / "best.ckpt").read_text()), int((folder / "last.ckpt").read_text()), len(records.history)


NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.2, 0.3], 3),
        ([0.3, 0.2, 0.1], 1),
        ([0.1, 0.3, 0.3], 2),
        ([NAN, 0.2, 0.1], 2),
        ([0.1, NAN, NAN], 1),
        ([NAN, NAN], 1),
    ],
)
def test_best_and_last_checkpoints(tmp_path, scores, best):
    assert validate(tmp_path, scores) == (best, len(scores), len(scores))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(("patience", "stop"), [(1, 3), (2, 6), (None, 8)])
def test_early_stop_waits_for_a_better_dice(tmp_path, patience, stop):
    scores = [0.1, 0.3, 0.2, 0.4, 0.3, 0.4, 0.3, 0.2]
    assert validate(tmp_path, scores, patience) == (2 if stop == 3 else 4, stop, stop)


def test_a_checkpoint_that_fails_leaves_the_last_one_whole(tmp_path):
    validate(tmp_path, [0.5])
    records = Records(tmp_path)
    records.history += [{"val_dice": 0.5}, {"val_dice": 0.9}]
    trainer = FakeTrainer(records)

    def fail(path):
        Path(path).write_text("hal")
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer.save_checkpoint = fail
    with pytest.raises(RunError) as caught:
        Checkpoints(tmp_path, records, None).on_train_epoch_end(trainer, None)
    assert caught.value.sentences == (
        f"{tmp_path}/last.ckpt must be writable, got 'No space left on device'; free space or choose another folder.",
    )
    assert (tmp_path / "last.ckpt").read_text() == (tmp_path / "best.ckpt").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "RuntimeError"),
        (b"not a checkpoint", "RuntimeError"),
        ("half", "RuntimeError"),
        ({"state_dict": {}}, "KeyError"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_named(tmp_path, content, kind):
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    if content == "half":
        path.write_bytes(path.read_bytes()[:-100])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        check_checkpoint(path)
    assert str(caught.value) == (
        f"{path}: must be a whole checkpoint of this project, got {kind}; delete it to begin anew."
    )


def test_a_newer_checkpoint_is_refused(tmp_path):
    torch.save({"schema_version": 2}, tmp_path / "last.ckpt")
    with pytest.raises(RunError) as caught:
        check_checkpoint(tmp_path / "last.ckpt")
    assert str(caught.value) == (
        f"{tmp_path}/last.ckpt: schema version must be at most 1, got 2; it was written by a newer release, update seg."
    )
