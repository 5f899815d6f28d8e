"""From a configuration to a trained network in a run directory."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from seg.callbacks import Checkpoints, MovingAverage, Progress, Records, check_checkpoint
from seg.config import BottleneckConfig, ExperimentConfig, NetworkConfig
from seg.data.cases import Dataset
from seg.data.datamodule import SegmentationData
from seg.data.splits import Split
from seg.errors import RunError
from seg.files import write_bytes
from seg.hardware import choose_device, choose_precision
from seg.inference import predict_logits
from seg.losses import build_loss
from seg.module import SegmentationModule
from seg.networks import Bottleneck, Options, Plan, get_network
from seg.networks.initialisation import initialise

LOG = logging.getLogger(__name__)
WEIGHTS_VERSION = 1
LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves in memory.

    Attributes:
        network: The network with its final (averaged) weights.
        history: One row per validation.
    """

    network: nn.Module
    history: list[dict[str, float]]


def network_from_config(config: NetworkConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Builds the network of a configuration, with weights not yet drawn for an experiment."""
    return get_network(config.name)(
        in_channels,
        out_channels,
        plan=Plan(channels=config.channels, strides=config.strides, kernel_sizes=config.kernel_sizes),
        skip_bottleneck=_bottleneck(config.skip_bottleneck),
        decoder_bottleneck=_bottleneck(config.decoder_bottleneck),
        options=Options(
            upsample=config.upsample,
            merge=config.merge,
            residual=config.residual,
            deep_supervision=config.deep_supervision,
        ),
    )


def _bottleneck(config: BottleneckConfig | None) -> Bottleneck | None:
    if config is None:
        return None
    return Bottleneck(ratio=config.ratio, activation=config.activation, norm=config.norm)


def train_fold(
    config: ExperimentConfig,
    dataset: Dataset,
    split: Split,
    run_dir: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
) -> Trained:
    """Trains one fold and leaves ``checkpoints/`` and ``metrics.csv`` in the run directory.

    The weights at the end are a function of config, seed and data alone; after a kill at any moment, ``resume``
    continues from the last whole checkpoint and ends with the same ones.

    Args:
        config: The experiment.
        dataset: The data set.
        split: Case ids of both sides.
        run_dir: Run directory, present.
        resume: Whether to continue from ``checkpoints/last.ckpt`` where there is one.
        init_from: Run directory whose final weights are the initial ones where name and shape agree.

    Raises:
        RunError: The loss is not finite, a checkpoint cannot be used, or the run directory cannot be written.
    """
    device = choose_device(config.training.device)
    network = network_from_config(config.network, len(dataset.channel_names), len(dataset.class_names))
    initialise(network, config.seed)
    if init_from is not None:
        copy_weights(network, init_from)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    module = SegmentationModule(
        network,
        build_loss(config.loss, ignore_index=dataset.ignore_label),
        _predictor(config),
        num_classes=len(dataset.class_names),
        optimizer=config.optimizer,
        total_steps=config.training.steps,
    )
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    resumes = resume and checkpoint.exists()
    if resumes:
        check_checkpoint(checkpoint)
    records = Records(run_dir)
    data = SegmentationData(config, dataset, split, run_dir / "cache")
    with _quiet():
        trainer = _trainer(config, run_dir, device, records)
        trainer.fit(module, data, ckpt_path=str(checkpoint) if resumes else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    save_weights(network, run_dir)
    return Trained(network=network, history=records.history)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what Lightning says of itself; what a user needs is announced by this package."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            yield
    finally:
        logger.setLevel(level)


def _predictor(config: ExperimentConfig) -> Any:
    def predict(network: nn.Module, image: Tensor) -> Tensor:
        return predict_logits(network, image, config.patches.size, config.inference)

    return predict


def _trainer(config: ExperimentConfig, run_dir: Path, device: torch.device, records: Records) -> pl.Trainer:
    training = config.training
    folder = run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    callbacks: list[pl.Callback] = []
    if training.ema_decay > 0:
        callbacks.append(MovingAverage(training.ema_decay))
    callbacks += [records, Checkpoints(folder, records, training.early_stop)]
    if training.progress:
        callbacks.append(Progress(training.steps, config.patches.batch * training.accumulate))
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=LIGHTNING_PRECISION[choose_precision(training.precision, device)],  # type: ignore[arg-type]
        max_epochs=training.steps // training.validate_every,
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=config.optimizer.clip_norm,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(run_dir, name="", version="tensorboard"),
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def save_weights(network: nn.Module, run_dir: Path) -> Path:
    """Writes the network's weights as ``checkpoints/weights.pt``: a version and tensors, nothing else."""
    target = run_dir / "checkpoints" / "weights.pt"
    content = io.BytesIO()
    torch.save({"schema_version": WEIGHTS_VERSION, "network": network.state_dict()}, content)
    write_bytes(target, content.getvalue())
    return target


def load_weights(run_dir: Path) -> dict[str, Tensor]:
    """Reads the final weights of a run without executing anything in the file.

    Raises:
        RunError: The file is absent, not a weights file of this project, or of a newer version.
    """
    path = run_dir / "checkpoints" / "weights.pt"
    if not path.is_file():
        raise RunError(f"{run_dir}: must hold a finished run, got no checkpoints/weights.pt; train it first.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, state = int(content["schema_version"]), dict(content["network"])
    except Exception as error:
        raise RunError(f"{path}: must be a weights file of this project, got {type(error).__name__}.") from error
    if version > WEIGHTS_VERSION:
        raise RunError(
            f"{path}: schema version must be at most {WEIGHTS_VERSION}, got {version}; it was written by a newer "
            "release, update seg."
        )
    return state


def copy_weights(network: nn.Module, run_dir: Path) -> Sequence[str]:
    """Copies another run's final weights wherever name and shape agree, and announces what stays.

    Returns:
        Names of the parameters that keep their own initial values.

    Raises:
        RunError: Nothing agrees.
    """
    source = load_weights(run_dir)
    own = network.state_dict()
    shared = {name: value for name, value in source.items() if name in own and own[name].shape == value.shape}
    if not shared:
        raise RunError(
            f"{run_dir}: must share parameters with the network, got none of {len(own)}; choose another run."
        )
    network.load_state_dict(own | shared)
    kept = [name for name in own if name not in shared]
    LOG.info(
        "initial weights: %d of %d tensors from %s; own: %s", len(shared), len(own), run_dir, ", ".join(kept) or "-"
    )
    return kept
