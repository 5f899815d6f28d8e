"""Training of one fold: builds the network, fits it with Lightning and saves its weights."""

from __future__ import annotations

import logging
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from seg.config import ExperimentConfig
from seg.data.cases import Dataset
from seg.data.datamodule import SegmentationData
from seg.data.splits import Split
from seg.files import NO_ROOM, file_problems
from seg.hardware import choose_device, choose_precision, keep_heap
from seg.inference.apple import agreed_device, on_processor
from seg.inference.model import processor
from seg.inference.windows import predict_logits
from seg.networks import network_from_config
from seg.networks.blocks import initialise
from seg.networks.conv import MEMORY_FORMATS
from seg.runs import LAST_CHECKPOINT, copy_weights, save_weights
from seg.training.callbacks import Checkpoints, MovingAverage, Progress, Records, check_checkpoint, unusable_checkpoint
from seg.training.losses import build_loss
from seg.training.module import SegmentationModule, not_finite, remedies
from seg.training.optim import build_optimizer
from seg.words import counted, dimensions

if TYPE_CHECKING:
    from seg.inference.apple import Work

LOG = logging.getLogger(__name__)
LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The network with its final (averaged) weights, and a row per validation."""

    network: nn.Module
    history: list[dict[str, float]]


def train_fold(
    config: ExperimentConfig,
    dataset: Dataset,
    split: Split,
    run_dir: Path,
    *,
    resume: bool = False,
    cache_dir: Path | None = None,
) -> Trained:
    """Trains one fold and leaves ``checkpoints/`` and ``metrics.csv`` in the run directory.

    The final weights are a function of config, seed and data on one device, with one version of torch and one number
    of threads; another device, version or number of threads may change their last digits. After a kill at any moment,
    ``resume`` continues from the last whole checkpoint and ends with the same weights, given as many threads
    (``torch.get_num_threads()``).

    Args:
        config: The experiment.
        dataset: The data set.
        split: Case ids of both sides.
        run_dir: Run directory, present.
        resume: Whether to continue from ``checkpoints/last.ckpt`` where there is one.
        cache_dir: Folder of the disk cache where the config names none; None is ``cache`` in the run directory.

    Raises:
        RunError: Loss, predictions or final weights are not finite, a checkpoint cannot be used, or the run directory
            cannot be written.
    """
    device = choose_device(config.training.device)
    if device.type == "cpu":
        keep_heap()
    network = network_from_config(config.network, len(dataset.channel_names), len(dataset.class_names))
    initialise(network, config.seed)
    memory_format = MEMORY_FORMATS["contiguous" if device.type == "mps" else config.training.memory_format]
    network.to(memory_format=memory_format)  # type: ignore[call-overload]
    module = SegmentationModule(
        network,
        build_loss(config.loss, ignore_index=dataset.ignore_label),
        lambda network, image: (
            predict_logits(on_processor(network, device), image.to(processor()), config.window, config.inference)
            if device.type == "mps"
            else predict_logits(network, image, config.window, config.inference)
        ),
        num_classes=len(dataset.class_names),
        optimizer=config.optimizer,
        total_steps=config.training.steps,
        memory_format=memory_format,
    )
    checkpoint = run_dir / LAST_CHECKPOINT
    resumes = resume and checkpoint.exists()
    if resumes:
        check_checkpoint(checkpoint, module, averaged=config.training.ema_decay > 0)
    elif config.training.init_from is not None:
        copy_weights(network, Path(config.training.init_from), dataset.class_names)
    if config.training.early_stop is not None:
        LOG.warning(
            "early stop: after %d validations without a better Dice on the held-out cases, which are scored too; "
            "leave training.early_stop null for unbiased scores",
            config.training.early_stop,
        )
    if config.training.progress:
        _announce(config, network, dataset, split, run_dir)
    records = Records(run_dir)
    data = SegmentationData(config, dataset, split, cache_dir or run_dir / "cache")
    with _quiet(), _interruptible(), _full_disk_in_threads(run_dir), file_problems(run_dir):
        trainer = _trainer(config, run_dir, device, records, validates=bool(split.validation))
        try:
            trainer.fit(module, data, ckpt_path=str(checkpoint) if resumes else None, weights_only=True)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if records.begun or not _while_resuming(error):
                raise
            raise unusable_checkpoint(checkpoint, error) from error
    if records.history[-1]["step"] < config.training.steps:
        LOG.warning("stopped early at step %d of %d", records.history[-1]["step"], config.training.steps)
    _check_finite(network, config, int(records.history[-1]["step"]))
    save_weights(network, run_dir, channel_names=dataset.channel_names, class_names=dataset.class_names)
    return Trained(network=network, history=records.history)


def training_device(config: ExperimentConfig, dataset: Dataset) -> torch.device:
    """Returns where to train; an Apple GPU only where a training step gives there what it gives on the processor."""
    device = choose_device(config.training.device)
    if device.type != "mps":
        return device
    network = network_from_config(config.network, len(dataset.channel_names), len(dataset.class_names))
    initialise(network, config.seed)
    return agreed_device([(network, training_step(config, dataset))], device)[0]


def training_step(config: ExperimentConfig, dataset: Dataset) -> Work:
    """Returns the work of a training step on a patch of noise: its loss and gradients.

    The optimiser steps too, so that it is known to run. What it makes of gradients near zero depends on their rounding,
    so weights behind its step are not compared.
    """
    classes, size = len(dataset.class_names), (1, len(dataset.channel_names), *config.patches.size)

    def work(network: nn.Module, device: torch.device) -> list[torch.Tensor]:
        stream = torch.Generator().manual_seed(config.seed)
        image = torch.randn(size, generator=stream).to(device)
        label = torch.randint(classes, (1, 1, *size[2:]), generator=stream).to(device)
        network.train()
        loss = build_loss(config.loss, ignore_index=dataset.ignore_label)(network(image), label)
        loss.backward()
        gradients = [one.grad.clone() for one in network.parameters() if one.grad is not None]
        build_optimizer(network, config.optimizer).step()
        return [loss, *gradients]

    return work


def _announce(config: ExperimentConfig, network: nn.Module, dataset: Dataset, split: Split, run_dir: Path) -> None:
    """Logs what is trained on what, and where the results go."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    LOG.info(
        "network: U-Net, channels %s, %.2f million parameters",
        "-".join(map(str, config.network.channels)),
        parameters / 1e6,
    )
    LOG.info(
        "data: %s, %s to train on, %d held out", dataset.name, counted(len(split.train), "case"), len(split.validation)
    )
    LOG.info(
        "training: %d steps of %s of %s voxels, validation every %d steps",
        config.training.steps,
        counted(config.patches.batch * config.training.accumulate, "patch", "patches"),
        dimensions(config.patches.size),
        config.training.validate_every,
    )
    LOG.info("run directory: %s", run_dir)


def _while_resuming(error: Exception) -> bool:
    """Tells whether an error comes from Lightning's reading of a checkpoint."""
    return any("checkpoint_connector" in frame.filename for frame in traceback.extract_tb(error.__traceback__))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's own messages and warnings; this package logs what a user needs."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt on Ctrl-C, where Lightning would end the process with code 1 and ignore further ones."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error


@contextmanager
def _full_disk_in_threads(run_dir: Path) -> Iterator[None]:
    """Names a full disk that ends a thread, such as TensorBoard's writer, in a sentence in place of a traceback.

    The run itself ends where a file of its own finds no room.
    """
    hook = threading.excepthook

    def named(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, OSError) and args.exc_value.errno in NO_ROOM:
            LOG.warning("%s: no more event files are written: %s", run_dir, args.exc_value.strerror)
        else:
            hook(args)

    threading.excepthook = named
    try:
        yield
    finally:
        threading.excepthook = hook


def _check_finite(network: nn.Module, config: ExperimentConfig, step: int) -> None:
    """Checks that the final weights are finite, as no loss was computed after the last step."""
    state = network.state_dict()
    wrong = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if wrong:
        in_bf16 = choose_precision(config.training.precision, choose_device(config.training.device)) == "bf16"
        value = f"NaN or infinity in {len(wrong)} of {len(state)} tensors, {wrong[0]} first"
        remedy = f"begin anew with {remedies(config.optimizer, in_bf16=in_bf16)}"
        raise not_finite(f"step {step}: final weights", value, remedy)


def _trainer(
    config: ExperimentConfig, run_dir: Path, device: torch.device, records: Records, *, validates: bool
) -> pl.Trainer:
    training = config.training
    folder = run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    callbacks: list[pl.Callback] = []
    if training.ema_decay > 0:
        callbacks.append(MovingAverage(training.ema_decay))
    callbacks += [records, Checkpoints(folder, records, training.early_stop)]
    if training.progress:
        callbacks.append(Progress(training.steps, config.patches.batch * training.accumulate, records))
    # One process trains one fold, whatever variables a scheduler or a launcher has set around it: they would make
    # Lightning wait for other processes, keep silent, or continue from files of another run in the working directory.
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    return pl.Trainer(
        plugins=[LightningEnvironment()],
        default_root_dir=run_dir,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1,
        precision=LIGHTNING_PRECISION[choose_precision(training.precision, device)],  # type: ignore[arg-type]
        max_epochs=training.steps // training.validate_every,
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=config.optimizer.clip_norm,
        num_sanity_val_steps=0,
        limit_val_batches=None if validates else 0,
        logger=TensorBoardLogger(run_dir, name="", version="tensorboard"),
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
