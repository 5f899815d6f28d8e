from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from seg.errors import RunError
from seg.training.callbacks import Checkpoints, Records, check_checkpoint
from tests.problems import refused


class FakeTrainer:
    """Writes the number of validations as the checkpoint."""

    def __init__(self, records):
        self.records = records
        self.should_stop = False

    def save_checkpoint(self, path):
        Path(path).write_text(str(len(self.records.history)))


def validate(folder, scores, early_stop=None):
    """Runs the callback over a list of Dice; returns the number of the last checkpoint and that of validations."""
    records = Records(folder)
    trainer, checkpoints = FakeTrainer(records), Checkpoints(folder, records, early_stop)
    while scores and not trainer.should_stop:
        records.history.append({"val_dice": scores[0]})
        checkpoints.on_train_epoch_end(trainer, None)
        scores = scores[1:]
    return int((folder / "last.ckpt").read_text()), len(records.history)


NAN = float("nan")


RISING_AND_FALLING = [0.1, 0.3, 0.2, 0.4, 0.3, 0.4, 0.3, 0.2]


@pytest.mark.parametrize(
    ("scores", "patience", "stop"),
    [
        (RISING_AND_FALLING, 1, 3),
        (RISING_AND_FALLING, 2, 6),
        (RISING_AND_FALLING, None, 8),
        ([NAN, 0.2, 0.1, 0.1, 0.1], 2, 4),
        ([0.1, NAN, NAN, 0.2], 2, 3),
        ([NAN, NAN, NAN, 0.1], 2, 3),
    ],
)
def test_early_stop_waits_for_a_better_dice(tmp_path, scores, patience, stop):
    assert validate(tmp_path, scores, patience) == (stop, stop)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_fails_leaves_the_last_one_whole(tmp_path):
    validate(tmp_path, [0.5])
    records = Records(tmp_path)
    records.history += [{"val_dice": 0.5}, {"val_dice": 0.9}]
    trainer = FakeTrainer(records)

    def fail(path):
        Path(path).write_text("hal")
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer.save_checkpoint = fail
    with refused((f"{tmp_path}/last.ckpt", "no_room", "'No space left on device'"), error=RunError):
        Checkpoints(tmp_path, records, None).on_train_epoch_end(trainer, None)
    assert (tmp_path / "last.ckpt").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


MODULE = pl.LightningModule()
MODULE.network = nn.Linear(3, 2)


def content() -> dict[str, Any]:
    """What Lightning writes, as far as resuming needs it."""
    weights = MODULE.state_dict()
    moments = {number: {"exp_avg": torch.zeros(value.shape)} for number, value in enumerate(weights.values())}
    return {
        "schema_version": 1,
        "epoch": 1,
        "global_step": 2,
        "state_dict": weights,
        "current_model_state": dict(weights),
        "averaging_state": {"n_averaged": torch.tensor(2)},
        "optimizer_states": [{"state": moments, "param_groups": [{"params": [0, 1]}]}],
        "lr_schedulers": [{"last_epoch": 2}],
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"Records": {"history": [{"step": 2.0, "seconds": 0.5, "val_dice": 0.1}]}},
    }


def kind(path: Path) -> str:
    with pytest.raises(RunError) as caught:
        check_checkpoint(path, MODULE, averaged=True)
    (problem,) = caught.value.problems
    assert problem.path.startswith(str(path))
    return problem.kind


def test_a_whole_checkpoint_is_taken(tmp_path):
    torch.save(content(), tmp_path / "last.ckpt")
    check_checkpoint(tmp_path / "last.ckpt", MODULE, averaged=True)
    plain = {name: value for name, value in content().items() if "av" not in name and "current" not in name}
    torch.save(plain, tmp_path / "last.ckpt")
    check_checkpoint(tmp_path / "last.ckpt", MODULE, averaged=False)


@pytest.mark.parametrize("missing", sorted(set(content()) - {"schema_version"}))
@pytest.mark.parametrize("change", ["missing", "empty", "another kind"])
def test_an_incomplete_checkpoint_is_named(tmp_path, missing, change):
    parts = content()
    if change == "missing":
        del parts[missing]
    elif change == "empty":
        parts[missing] = type(parts[missing])() if not isinstance(parts[missing], int) else -1
    else:
        parts[missing] = [] if isinstance(parts[missing], dict) else {"a": 1}
    torch.save(parts, tmp_path / "last.ckpt")
    assert kind(tmp_path / "last.ckpt") == "checkpoint"


def test_a_checkpoint_of_another_network_is_named(tmp_path):
    for other in (torch.zeros(2, 4), torch.zeros(2, 3).double()):
        parts = content()
        parts["state_dict"] = dict(parts["state_dict"]) | {"network.weight": other}
        torch.save(parts, tmp_path / "last.ckpt")
        assert kind(tmp_path / "last.ckpt") == "checkpoint"


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save(content(), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for length in (0, 1, *(rng.randrange(len(whole)) for _ in range(20)), len(whole) - 1):
        path.write_bytes(whole[:length])
        assert kind(path) == "damaged"
    kinds = set()
    for place in rng.sample(range(len(whole)), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            check_checkpoint(path, MODULE, averaged=True)
        except RunError as error:
            kinds |= {problem.kind for problem in error.problems}
    assert "damaged" in kinds
    assert kinds <= {"damaged", "checkpoint"}  # and no other exception; padding changes nothing


def test_what_is_no_checkpoint_is_named(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"not a checkpoint")
    assert kind(path) == "damaged"
    torch.save({"state_dict": {}}, path)
    assert kind(path) == "checkpoint"
    torch.save({"schema_version": 2}, path)
    assert kind(path) == "version"


class Harmful:
    """Makes a folder where something unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_does_not_run_and_nobody_is_told_to_let_it(tmp_path):
    torch.save({"schema_version": Harmful(tmp_path / "ran")}, tmp_path / "last.ckpt")
    with pytest.raises(RunError) as caught:
        check_checkpoint(tmp_path / "last.ckpt", MODULE, averaged=True)
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in str(caught.value)  # torch's own message advises to load such a file without it
