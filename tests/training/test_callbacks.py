from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from seg.config import LossConfig, OptimizerConfig
from seg.training import callbacks
from seg.training.callbacks import Checkpoints, MovingAverage, Progress, Records
from seg.training.losses import build_loss
from seg.training.module import SegmentationModule

STEPS_PER_EPOCH = 3
DECAY = 0.6


class Weights(pl.Callback):
    """Keeps the weights after every step, and those that are validated."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(flat(pl_module))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.validated.append(flat(pl_module))


def flat(module):
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def batches(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.randn(1, 1, 3, 3, 3, generator=generator),
            "label": torch.randint(0, 2, (1, 1, 3, 3, 3), generator=generator),
            "case_id": ["a"],
        }
        for _ in range(count)
    ]


def train(run_dir: Path, epochs, *, resume=False, early_stop=None, extra=(), decay=DECAY):
    """Trains a network of one convolution; returns it and the records."""
    torch.manual_seed(0)
    network = nn.Conv3d(1, 2, 1)
    optimizer = OptimizerConfig(learning_rate=0.3, schedule="constant", warmup_steps=0)
    loss = build_loss(LossConfig(), ignore_index=None)
    module = SegmentationModule(
        network, loss, lambda net, image: net(image), num_classes=2, optimizer=optimizer, total_steps=99
    )
    folder = run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    records = Records(run_dir)
    callbacks = [MovingAverage(decay), records, Checkpoints(folder, records, early_stop), *extra]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    loaders = [DataLoader(batches(count, seed), batch_size=None) for count, seed in ((STEPS_PER_EPOCH, 1), (1, 2))]
    trainer.fit(module, *loaders, ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    return network, records


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three epochs that nothing interrupted."""
    run_dir, weights = tmp_path_factory.mktemp("whole"), Weights()
    network, records = train(run_dir, 3, extra=[weights])
    return SimpleNamespace(run_dir=run_dir, network=flat(network), records=records, weights=weights)


def test_the_moving_average_is_the_recursion(whole):
    average, averages = whole.weights.steps[0], []
    for count, current in enumerate(whole.weights.steps):
        if count:
            decay = min(DECAY, (1 + count) / (10 + count))
            average = decay * average + (1 - decay) * current
        averages.append(average)
    assert len(averages) == 9
    torch.testing.assert_close(whole.network, averages[-1])
    assert not torch.allclose(whole.network, whole.weights.steps[-1])
    for validated, expected in zip(whole.weights.validated, averages[2::3], strict=True):
        torch.testing.assert_close(validated, expected)


def test_the_decay_grows_to_its_long_run_value(tmp_path):
    weights = Weights()
    network, _ = train(tmp_path, 2, extra=[weights], decay=0.2)  # reached at the second update, (1 + 2) / (10 + 2)
    average = weights.steps[0]
    for decay, current in zip([2 / 11, 0.2, 0.2, 0.2, 0.2], weights.steps[1:], strict=True):
        average = decay * average + (1 - decay) * current
    torch.testing.assert_close(flat(network), average)


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_records_hold_a_row_per_validation(whole):
    table = rows(whole.run_dir)
    assert list(table[0]) == ["step", "seconds", "train_loss", "val_dice", "val_dice_1", "learning_rate"]
    assert [float(row["step"]) for row in table] == [3, 6, 9]
    assert all(float(row["val_dice"]) == float(row["val_dice_1"]) for row in table)
    assert {float(row["learning_rate"]) for row in table} == {0.3}
    assert all(float(a["seconds"]) <= float(b["seconds"]) for a, b in pairwise(table))
    assert [{k: float(v) for k, v in row.items()} for row in table] == whole.records.history


def test_the_recorded_loss_is_the_mean_over_the_epoch(tmp_path):
    records = Records(tmp_path)
    trainer = SimpleNamespace(
        global_step=4,
        callback_metrics={"val_dice": torch.tensor(0.25), "other": torch.tensor(1.0)},
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.125}])],
        logger=None,
    )
    records.on_train_start(trainer, None)
    for losses in ((1.0, 2.0, 6.0), (4.0,)):
        for value in losses:
            records.on_train_batch_end(trainer, None, {"loss": torch.tensor(value)}, None, 0)
        records.on_train_epoch_end(trainer, None)
    assert [row["train_loss"] for row in records.history] == [3, 4]
    assert [list(row) for row in records.history] == [
        ["step", "seconds", "train_loss", "val_dice", "learning_rate"]
    ] * 2


def test_records_travel_with_their_state(tmp_path, monkeypatch):
    tick = clock(monkeypatch, 3.0)
    records = Records(tmp_path)
    records.load_state_dict({"history": [{"step": 1.0, "seconds": 50.0}]})
    assert records.state_dict() == {"history": [{"step": 1.0, "seconds": 50.0}], "seconds": 50.0, "losses": []}
    trainer = SimpleNamespace(
        global_step=2, callback_metrics={}, optimizers=[SimpleNamespace(param_groups=[{"lr": 1}])], logger=None
    )
    records.on_train_start(trainer, None)
    tick()
    records.on_train_batch_end(trainer, None, {"loss": torch.tensor(1.0)}, None, 0)
    records.history[0] |= {"train_loss": 3.0, "learning_rate": 1.0}
    records.on_train_epoch_end(trainer, None)
    assert [row["step"] for row in records.history] == [1, 2]
    assert records.history[1]["seconds"] == 53


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(whole, tmp_path, done):
    train(tmp_path, done)
    (tmp_path / "checkpoints/last.ckpt.partial").write_bytes(b"half a checkpoi")
    (tmp_path / "metrics.csv").write_text("")  # its rows are in the checkpoint
    network, records = train(tmp_path, 3, resume=True)
    assert torch.equal(flat(network), whole.network)  # also where no step was left to take
    for row, expected in zip(records.history, whole.records.history, strict=True):
        assert row | {"seconds": 0} == expected | {"seconds": 0}
    assert len(rows(tmp_path)) == 3


def test_a_run_that_stopped_early_is_not_continued_by_a_resume(tmp_path):
    network, records = train(tmp_path, 9, early_stop=1)
    assert len(records.history) < 9  # a network of one convolution cannot learn noise
    again, resumed = train(tmp_path, 9, early_stop=1, resume=True)
    assert resumed.history == records.history
    assert torch.equal(flat(again), flat(network))


def clock(monkeypatch, seconds):
    """Sets the clock of the callbacks; returns a function that moves it."""
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])

    def tick(by=seconds):
        now[0] += by

    return tick


def progress_of(run_dir, steps, row=None):
    records = Records(run_dir)
    records.history = [row] if row else []
    return Progress(steps, batch=2, records=records)


@pytest.mark.parametrize(("start", "steps"), [(20, 60), (0, 3)])
def test_the_bar_on_a_terminal_shows_steps_loss_rate_and_dice(tmp_path, capsys, monkeypatch, start, steps):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tick = clock(monkeypatch, 0.5)
    trainer = SimpleNamespace(global_step=start, callback_metrics={"val_dice": torch.tensor(0.875)})
    progress = progress_of(tmp_path, steps)
    progress.on_train_start(trainer, None)
    for trainer.global_step in range(start + 1, steps + 1):
        tick()
        for _ in range(2):  # two batches to an optimiser step
            progress.on_train_batch_end(trainer, None, {"loss": torch.tensor(0.75)}, None, 0)
    progress.on_train_end(trainer, None)
    shown = capsys.readouterr().err
    assert f"{start}/{steps}" in shown
    last = shown.rstrip().split("\r")[-1]
    assert f"{steps}/{steps}" in last
    assert {"loss=0.750", "dice=0.8750", "patches/s=4.0"} <= set(re.split(r"[ ,\]]+", last))


def test_off_a_terminal_there_is_a_line_per_validation_and_no_carriage_return(tmp_path, caplog, capfd, monkeypatch):
    caplog.set_level("INFO", "seg")
    tick = clock(monkeypatch, 2.0)
    trainer = SimpleNamespace(global_step=0, callback_metrics={})
    row = {"step": 50.0, "seconds": 200.0, "train_loss": 0.5, "val_dice": 0.25}
    progress = progress_of(tmp_path, 100, row)
    progress.on_train_start(trainer, None)
    for trainer.global_step in range(1, 51):
        tick(20.0 if trainer.global_step == 1 else 2.0)  # the first step is slow
        progress.on_train_batch_end(trainer, None, {"loss": torch.tensor(1.0)}, None, 0)
    progress.on_train_epoch_end(trainer, None)
    progress.on_train_end(trainer, None)
    # 23 steps are taken when 20 have been measured at 2 s: 77 are left. At the validation it is 4 s a step.
    assert caplog.messages == [
        "about 3 min to train, validations not counted",
        "step 50 of 100: loss 0.500, Dice 0.2500, 3 min so far, about 3 min left",
    ]
    assert "\r" not in "".join(capfd.readouterr())  # other tests may have had messages shown on stderr
