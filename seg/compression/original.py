"""A trained run that is to be made smaller, the data that smaller networks are judged on, and the scores for that."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seg.compression.tuning import weighted_divergence
from seg.config import ExperimentConfig, Precision
from seg.data.cases import Case, Dataset
from seg.data.prepare import prepare_case
from seg.data.splits import Split, spread_over
from seg.errors import ConfigError, Problem, RunError
from seg.evaluation.differences import with_found_nothing
from seg.evaluation.tensors import dice_per_class
from seg.files import quoted
from seg.hardware import choose_precision
from seg.inference.model import autocast
from seg.inference.windows import Windows
from seg.networks import UNet, complexity
from seg.runs import ENVIRONMENT_FILE, Origin, TrainedRun, read_origin
from seg.words import counted, some

LOG = logging.getLogger(__name__)
HELD_BACK, HELD_BACK_SHARE = 20, 5
"""How many training patients are held back: one in `HELD_BACK_SHARE`, and `HELD_BACK` at most."""
JUDGED = 8
"""How many held-back windows decide whether tuning improved a network."""
Array = npt.NDArray[np.float64]
Window = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Original:
    """A trained run that is to be made smaller, with the data that smaller networks are fitted, tuned and judged on.

    Attributes:
        run: The run, with the folder where its data set lies now.
        origin: What it was made from.
        split: Its training and held-out cases.
        network: Its network.
        fitted: Windows (1, C, X, Y, Z) that layers are measured on and solved anew by.
        measured: Cases that these are of.
        held_back: Windows with their labels (X, Y, Z), one of each patient that is held back.
        tuned_on: Cases that a smaller network is tuned on: those of all training patients who are not held back.
        dice: Dice of the network on the held-back windows, shape (patients, classes without the background).
        judged: Log-probabilities of the network on the first of these windows.
        weights: What each class but the background counts where a network is tuned, shape (K - 1,).
        precision: Arithmetic in which networks predict and are tuned.
    """

    run: TrainedRun
    origin: Origin
    split: Split
    network: UNet
    fitted: tuple[Tensor, ...]
    measured: tuple[str, ...]
    held_back: tuple[Window, ...]
    tuned_on: tuple[str, ...]
    dice: Array
    judged: tuple[Tensor, ...]
    weights: Tensor
    precision: Precision

    @property
    def config(self) -> ExperimentConfig:
        """The experiment."""
        return self.run.config

    @property
    def cost(self) -> tuple[int, int]:
        """Multiply-accumulates of the network for one patch, and its number of parameters."""
        return cost(self.network, self.config)

    def lost(self, network: UNet) -> Array:
        """Returns the change of Dice from the original to a network on the held-back windows, (patients, classes)."""
        return changes_of_dice(self.dice, dice_of(network, self.held_back, self.precision))

    def divergence(self, network: UNet) -> float:
        """Returns the divergence of a prediction from the original's on held-back windows, as tuning lowers it."""
        pairs = zip(self.judged, self.held_back, strict=False)
        found = [
            weighted_divergence(
                wanted.double(), log_probabilities(network, image, self.precision).double(), self.weights
            )
            for wanted, (image, _) in pairs
        ]
        return float(torch.stack(found).mean())


def check_uncut(run: TrainedRun) -> tuple[Origin, Split]:
    """Refuses a run that was compressed already; returns its origin and its split.

    Raises:
        RunError: It was, or has 1x1 around its kernels, or there is no record of its cases.
    """
    where, origin = quoted(str(run.path)), read_origin(run.path)
    if origin is None or origin.split is None:
        value = f"no {ENVIRONMENT_FILE}" if origin is None else "a run of an earlier version"
        remedy = "give the run as its training left it, or train it anew with this version"
        raise RunError(Problem(where, "split", "must have a record of its cases", value, remedy))
    if run.certificate is not None:
        rule, remedy = "must not be compressed already", "give the network that it was made from"
        raise RunError(Problem(where, "compressed", rule, "a compressed network", remedy))
    widths = run.config.network.widths
    if widths is not None and (widths.encoder_ranks or widths.decoder_ranks):
        rule, remedy = "must have no linear 1x1 around its kernels", "give a network without, as they are not cut again"
        raise RunError(Problem(where, "ranks", rule, "encoder_ranks or decoder_ranks", remedy))
    return origin, origin.split


def training_cases(split: Split, dataset: Dataset) -> list[Case]:
    """Returns the cases that a run was trained on; a warning names those that are gone.

    Args:
        split: Both sides of the run's cases.
        dataset: The data set.
    """
    seen = set(split.train)
    if gone := sorted(seen - {case.id for case in dataset.cases}):
        LOG.warning("%s: cases that the run was trained on are not there: %s", dataset.root, some(gone))
    return [case for case in dataset.cases if case.id in seen and case.label is not None]


def read_original(run: TrainedRun, origin: Origin, split: Split, dataset: Dataset, cases: int) -> Original:
    """Reads the network of a run, and prepares the data that smaller networks are fitted, tuned and judged on.

    Args:
        run: The run, with the folder where its data set lies now.
        origin: What it was made from.
        split: Its two sides.
        dataset: The data set.
        cases: Training cases that are measured.

    Raises:
        ConfigError: There are too few training patients to hold one back.
        RunError: The network finds no class.
        DataError: Cases cannot be read.
    """
    config, ignored = run.config, dataset.ignore_label
    network = run.network()
    patients: dict[str, list[Case]] = {}
    for case in training_cases(split, dataset):
        patients.setdefault(case.patient_or_id, []).append(case)
    if len(patients) < 2:
        rule, remedy = "must be 2 or more, as one is held back", "compress a run of more patients"
        raise ConfigError(Problem("training patients", "patients", rule, str(len(patients)), remedy))
    held = set(spread_over(list(patients), max(1, min(HELD_BACK, len(patients) // HELD_BACK_SHARE))))
    others = [case for patient, own in patients.items() if patient not in held for case in own]
    chosen = spread_over(others, cases)
    LOG.info("measuring %s on %s", run.path, counted(len(chosen), "training case"))
    fitted = tuple(window(case, config, ignored)[0] for case in chosen)
    held_back = tuple(window(patients[patient][0], config, ignored) for patient in patients if patient in held)
    precision = choose_precision(config.training.precision, torch.device("cpu"))
    names = enumerate(run.class_names)
    if absent := [name for index, name in names if index and not any((label == index).any() for _, label in held_back)]:
        LOG.warning("no held-back patient has %s: what smaller networks lose of it is not seen there", some(absent))
    shares, found = predicted(network, fitted, precision)
    check_finds(run, found)
    if absent := [name for name, is_found in zip(run.class_names[1:], found[1:], strict=True) if not is_found]:
        words = "the network finds %s in none of the measured windows: what it is worth counts for nothing in cuts"
        LOG.warning(words, some(absent))
    return Original(
        run=run,
        origin=origin,
        split=split,
        network=network,
        fitted=fitted,
        measured=tuple(case.id for case in chosen),
        held_back=held_back,
        tuned_on=tuple(case.id for case in others),
        dice=dice_of(network, held_back, precision),
        judged=tuple(log_probabilities(network, image, precision) for image, _ in held_back[:JUDGED]),
        weights=class_weights(shares, found),
        precision=precision,
    )


def predicted(network: UNet, images: Sequence[Tensor], precision: Precision = "fp32") -> tuple[Tensor, Tensor]:
    """Returns what a network predicts in images (1, C, X, Y, Z) of one size, by class, the background first.

    Returns:
        The share of the voxels, as a mean of probabilities, f32 (K,); and whether a class is the most likely one of
        any voxel, (K,).
    """
    shares, found = [], torch.zeros(network.out_channels, dtype=torch.bool)
    for image in images:
        probabilities = log_probabilities(network, image, precision).exp()
        shares.append(probabilities.mean((0, 2, 3, 4)))
        found |= torch.bincount(probabilities.argmax(1).flatten(), minlength=len(found)) > 0
    return torch.stack(shares).mean(0), found


def check_finds(run: TrainedRun, found: Tensor) -> None:
    """Checks that a network finds a class beside the background, (K,), as :func:`predicted` says.

    Raises:
        RunError: It finds none, so nothing can be said of what it computes.
    """
    if not bool(found[1:].any()):
        rule, remedy = "must find a class in a measured window", "measure more cases, or train it for longer"
        raise RunError(Problem(quoted(str(run.path)), "network", rule, "background alone", remedy))


def class_weights(shares: Tensor, found: Tensor) -> Tensor:
    """Returns what each class but the background counts where a network is tuned, (K - 1,); their mean is 1.

    A class counts by 1 over the root of its share. That lies between counting every voxel alike, of which small
    structures have few, and counting every structure alike. A class that is not found counts at most as much as the
    smallest that is.

    Args:
        shares: Predicted shares of the voxels, the background first, shape (K,).
        found: Whether a class is found, shape (K,).
    """
    weights = shares[1:].clamp_min(float(shares[1:][found[1:]].min())).rsqrt()
    return weights / weights.mean()


def cost(network: UNet, config: ExperimentConfig) -> tuple[int, int]:
    """Counts the multiply-accumulates of a network for one training patch, and its parameters."""
    found = complexity(network.in_channels, network.out_channels, network.config, shape=config.patches.size)
    return found.macs, found.parameters


def window(case: Case, config: ExperimentConfig, ignore_label: int | None) -> Window:
    """Returns the window (1, C, X, Y, Z) of a case that holds the most foreground, of the patches' size; its label.

    Voxels of ``ignore_label`` are no foreground.
    """
    array, reference = prepare_case(case, config.data)
    image, label = torch.from_numpy(array), torch.from_numpy(reference)
    windows = Windows.over(image.shape[1:], config.patches.size, config.inference.overlap)
    starts = [(x, y, z) for x in windows.starts[0] for y in windows.starts[1] for z in windows.starts[2]]
    foreground = label > 0
    if ignore_label is not None:
        foreground &= label != ignore_label
    best = max(starts, key=lambda start: int(windows.crop(foreground, start).sum()))
    cropped: Tensor = windows.crop(image, best)
    return cropped[None], windows.crop(label, best)


def dice_of(network: UNet, windows: Sequence[Window], precision: Precision = "fp32") -> Array:
    """Returns the Dice of each class but the background, shape (windows, classes); NaN where neither side has it."""
    dice = [
        dice_per_class(log_probabilities(network, image, precision)[0].argmax(0), label, network.out_channels)
        for image, label in windows
    ]
    found: Array = torch.stack(dice).numpy()
    return found


def changes_of_dice(original: Array, changed: Array) -> Array:
    """Returns the changes of Dice by window and class; NaN where neither network nor the reference has the class.

    Where one network alone invents a structure, the Dice of the other counts as 1, so the change is -1 or +1.
    """
    dice = np.stack([original, changed])[:, None]
    before, after = with_found_nothing(dice, dice)[:, 0]
    changes: Array = after - before
    return changes


def log_probabilities(network: UNet, image: Tensor, precision: Precision = "fp32") -> Tensor:
    """Returns the log-probabilities f32 (1, K, X, Y, Z) that a network gives to an image."""
    with torch.no_grad(), autocast(image.device, precision):
        logits: Tensor = network(image)
    return logits.float().log_softmax(1)
