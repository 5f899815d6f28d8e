"""Moving average, history, checkpoints and progress of a run."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor
from tqdm import tqdm

from seg.errors import Problem, RunError
from seg.files import check_version, quoted, table_text, unwritable, write_text
from seg.runs import METRICS_FILE, check_archive, loading_fault
from seg.words import in_time

LOG = logging.getLogger(__name__)
CHECKPOINT_VERSION = 1
BEGIN_ANEW = "delete it to begin anew"
CHECKPOINT_SECONDS = 300.0
"""Wall time after which a checkpoint is written between validations."""
FIRST_STEPS, SHOWN_EVERY = 3, 20
"""Steps before the time of a step is measured, and steps over which it is measured."""


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, with a decay that grows over the first steps.

    The decay after ``n`` updates is ``min(decay, (1 + n) / (10 + n))``, so the initial weights are forgotten early.

    Args:
        decay: Decay in the long run, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            n = int(count)
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(multi_avg_fn=torch.no_grad()(update))

    @property
    def state_key(self) -> str:
        """Returns the name of the state in a checkpoint, which no renaming of the class may change."""
        return "MovingAverage"

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the averaged weights into the network, also where a resumed run had no step left to take."""
        self._copy_average_to_current(pl_module)


class Records(Callback):
    """Writes a row per validation to ``metrics.csv`` and the logger; the rows travel in the checkpoint.

    Args:
        run_dir: Run directory.

    Attributes:
        history: The rows: step, seconds of training so far, train_loss, val_dice, val_dice_K, learning_rate, which is
            that of the next step.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / METRICS_FILE
        self.history: list[dict[str, float]] = []
        self.begun = False
        self._started: float | None = None
        self._before = 0.0
        self._losses: list[Tensor] = []

    @property
    def state_key(self) -> str:
        """Returns the name of the state in a checkpoint, which no renaming of the class may change."""
        return "Records"

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the rows of the checkpoint, since the table may be gone."""
        if self.history:
            self._write()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock at the seconds of training that the checkpoint records."""
        self.begun = True
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self._before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the loss of the batch to those of the next row."""
        self._losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the row of this validation and rewrites the file."""
        scores = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if k.startswith("val_")}
        row = {
            "step": float(trainer.global_step),
            "seconds": round(self.seconds, 2),
            "train_loss": float(torch.stack(self._losses).mean()),
            **(scores or {"val_dice": math.nan}),  # a final model holds no case out
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
        }
        self._losses.clear()
        self.history.append(row)
        if trainer.logger is not None:
            trainer.logger.log_metrics({k: v for k, v in row.items() if k != "step"}, step=trainer.global_step)
        self._write()

    def _write(self) -> None:
        write_text(self.path, table_text(self.history, columns=list(self.history[-1])))

    def state_dict(self) -> dict[str, Any]:
        """Returns the rows, and what the next row needs."""
        return {"history": self.history, "seconds": self.seconds, "losses": [float(loss) for loss in self._losses]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the rows of a checkpoint."""
        self.history = list(state_dict["history"])
        # Earlier versions wrote checkpoints after validations alone, without the two others.
        self._before = state_dict.get("seconds", self.history[-1]["seconds"] if self.history else 0.0)
        self._losses = [torch.tensor(loss) for loss in state_dict.get("losses", [])]


class Checkpoints(Callback):
    """Writes ``last.ckpt`` after every validation and every few minutes, and stops a run early where that is asked for.

    The file is written beside its target, flushed to disk and renamed, so a killed run leaves a whole checkpoint.

    Args:
        folder: Folder of the checkpoints.
        records: Where the validation Dice is kept.
        early_stop: Validations without a better Dice after which training stops; None never stops.
    """

    def __init__(self, folder: Path, records: Records, early_stop: int | None) -> None:
        self.folder = folder
        self.records = records
        self.early_stop = early_stop
        self._written = time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Writes the version of the layout into the checkpoint."""
        checkpoint["schema_version"] = CHECKPOINT_VERSION

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends a resumed run that had stopped early before it was killed."""
        self._written = time.monotonic()
        self._stop_early(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a checkpoint where the last one is some minutes old and the optimiser has just taken a step.

        Raises:
            RunError: The folder cannot be written or the disk is full.
        """
        batches = batch_idx + 1
        stepped = batches % trainer.accumulate_grad_batches == 0 and batches < trainer.num_training_batches
        if stepped and time.monotonic() - self._written >= CHECKPOINT_SECONDS:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the checkpoint of this validation.

        Raises:
            RunError: The folder cannot be written or the disk is full.
        """
        self._write(trainer)
        self._stop_early(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        last, partial = self.folder / "last.ckpt", self.folder / "last.ckpt.partial"
        try:
            trainer.save_checkpoint(partial)
            _flush(partial)
            os.replace(partial, last)
        except OSError as error:
            raise unwritable(last, error) from error
        finally:
            # Left where writing failed or was interrupted; on a full disk it takes the room that is missing.
            partial.unlink(missing_ok=True)
        self._written = time.monotonic()

    def _since_best(self) -> int:
        """Returns the number of validations since the best Dice; NaN counts as the worst."""
        dice = [-1.0 if math.isnan(row["val_dice"]) else row["val_dice"] for row in self.records.history]
        return len(dice) - 1 - dice.index(max(dice)) if dice else 0

    def _stop_early(self, trainer: pl.Trainer) -> None:
        if self.early_stop is not None and self._since_best() >= self.early_stop:
            trainer.should_stop = True


def check_checkpoint(path: Path, module: pl.LightningModule, *, averaged: bool) -> None:
    """Checks that a run can be resumed from a checkpoint: the file is whole, of this project, and of this network.

    Without some parts, such as the moving average, Lightning goes on; without others it ends in a traceback.

    Raises:
        RunError: The file is damaged, incomplete, not a checkpoint of this network, or of a newer version.
    """
    check_archive(path, remedy=BEGIN_ANEW)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        version = int(content["schema_version"])
    except Exception as error:
        raise unusable_checkpoint(path, error) from error
    check_version(path, version, CHECKPOINT_VERSION)
    wanted = {name: (value.shape, value.dtype) for name, value in module.state_dict().items()}
    try:
        _check_parts(content, wanted, averaged)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise unusable_checkpoint(path, error) from error


def unusable_checkpoint(path: Path, error: Exception) -> RunError:
    """Returns the problem of a checkpoint from which nothing can be resumed."""
    rule = "must be a whole checkpoint of this run"
    return RunError(Problem(quoted(str(path)), "checkpoint", rule, loading_fault(error), BEGIN_ANEW))


def _check_parts(content: dict[str, Any], wanted: dict[str, tuple[torch.Size, torch.dtype]], averaged: bool) -> None:
    """Looks up each part that resuming needs; what is missing or of another kind raises by itself."""
    states = [content["state_dict"], *([content["current_model_state"]] if averaged else [])]
    if any({name: (value.shape, value.dtype) for name, value in state.items()} != wanted for state in states):
        raise ValueError("weights of another network")
    if averaged:
        int(content["averaging_state"]["n_averaged"])
    (optimizer,), (scheduler,) = content["optimizer_states"], content["lr_schedulers"]
    int(scheduler["last_epoch"])
    numbers = {number for group in optimizer["param_groups"] for number in group["params"]}
    if set(optimizer["state"]) not in (numbers, set()) or (not optimizer["state"] and content["global_step"] > 0):
        raise ValueError("an optimiser without the state of each parameter")
    if not content["loops"]["fit_loop"] or int(content["epoch"]) < 0 or int(content["global_step"]) < 0:
        raise ValueError("no place in the training")
    for row in content["callbacks"][Records.__name__]["history"]:
        if not {"step", "seconds", "val_dice"} <= {name for name, value in row.items() if isinstance(value, float)}:
            raise ValueError("a history without step, seconds and Dice")


class Progress(Callback):
    """Shows how far a run is: on a terminal a bar, elsewhere a line per validation.

    The bar's loss and rate are brought up to date on each of the first steps, then on every twentieth step: on a GPU,
    reading the loss waits for it. Elsewhere the time to expect is logged after the first steps, without validations,
    and with them beside every validation.

    Args:
        total_steps: Optimiser steps of the whole run.
        batch: Patches per optimiser step.
        records: Where the rows of the validations are kept; it comes before this callback.
    """

    def __init__(self, total_steps: int, batch: int, records: Records) -> None:
        self.total_steps = total_steps
        self.batch = batch
        self.records = records
        self._bar: tqdm[Any] | None = None
        self._resumed_at = 0
        self._started = 0.0
        self._measured_from: tuple[int, float] | None = None
        self._announced = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock and, on a terminal, shows the bar at the step of the checkpoint in a resumed run."""
        self._resumed_at = trainer.global_step
        self._started = time.perf_counter()
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self.total_steps, initial=trainer.global_step, unit="step", mininterval=0.5, dynamic_ncols=True
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar, or logs once how long the run will take."""
        if self._bar is None:
            self._log_time_to_expect(trainer.global_step)
        elif trainer.global_step > self._bar.n:
            taken = trainer.global_step - self._resumed_at
            elapsed = time.perf_counter() - self._started
            if elapsed > 0 and (taken < SHOWN_EVERY or trainer.global_step % SHOWN_EVERY == 0):
                dice = trainer.callback_metrics.get("val_dice")
                shown = {"loss": f"{float(outputs['loss']):.3f}", "patches/s": f"{taken * self.batch / elapsed:.1f}"}
                self._bar.set_postfix(
                    shown | ({"dice": f"{float(dice):.4f}"} if dice is not None else {}), refresh=False
                )
            self._bar.update(trainer.global_step - self._bar.n)

    def _log_time_to_expect(self, step: int) -> None:
        """Logs the time that the steps left will take, measured over some steps behind the first, slower ones."""
        now = time.perf_counter()
        if self._announced or step - self._resumed_at < FIRST_STEPS:
            return
        if self._measured_from is None:
            self._measured_from = step, now
        elif step >= self._measured_from[0] + SHOWN_EVERY:
            rate = (now - self._measured_from[1]) / (step - self._measured_from[0])
            LOG.info("about %s to train, validations not counted", in_time(rate * (self.total_steps - step)))
            self._announced = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs the last validation where there is no bar."""
        self._announced = True  # each line says what is left
        if self._bar is None:
            row = self.records.history[-1]
            rate = row["seconds"] / row["step"]
            left = self.total_steps - row["step"]
            LOG.info(
                "step %d of %d: loss %.3f%s, %s so far%s",
                row["step"],
                self.total_steps,
                row["train_loss"],
                "" if math.isnan(row["val_dice"]) else f", Dice {row['val_dice']:.4f}",
                in_time(row["seconds"]),
                f", about {in_time(rate * left)} left" if left else "",
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
