"""How small a network may become: steps of less and less work, judged on patients that are held back.

Held-back patients are training patients: nothing is fitted to them here, but the original was trained on them. Their
loss of Dice therefore reads other than that of new patients, and it decides nothing but where the steps end.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seg.compression.certificate import Number
from seg.compression.shrink import DEFAULT, KINDS, BeyondReachError, Shrunk, shrink, work_of
from seg.compression.tuning import tune
from seg.config import ExperimentConfig, Precision
from seg.data.cases import Case, Dataset
from seg.data.datamodule import SegmentationData
from seg.data.prepare import prepare_case
from seg.data.splits import Split, spread_over
from seg.errors import ConfigError, Problem, RunError
from seg.files import quoted
from seg.hardware import choose_precision, keep_heap
from seg.inference.model import autocast
from seg.inference.windows import Windows
from seg.networks import UNet, complexity
from seg.runs import ENVIRONMENT_FILE, Origin, TrainedRun, read_origin
from seg.words import counted, fixed

LOG = logging.getLogger(__name__)
LADDER = (0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09)
"""Shares of the original's multiply-accumulates that are tried where no target is given."""
HELD_BACK, HELD_BACK_SHARE = 20, 5
"""Patients that are held back at most, and one training patient in so many."""
JUDGED = 8
"""Held-back windows that tuning is judged by."""
STOP_BELOW, TUNE_BELOW = 0.5, 0.25
"""Shares of the margin: a loss of Dice beyond the one ends the walk, beyond the other a step is tuned."""
RUNG = 0.9
"""In a search for a latency or a number of parameters, each network keeps this share of the work of the one before."""
Array = npt.NDArray[np.float64]
Window = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained run that is made smaller, and what it is measured by.

    Attributes:
        run: The run, with the folder where its data set lies now.
        origin: What it was made from.
        split: Its training and held-out cases.
        network: Its network.
        fitted: Windows (1, C, X, Y, Z) that layers are measured on and solved anew by.
        measured: Cases that these are of.
        held_back: Windows with their labels (X, Y, Z), one of each patient that is held back.
        tuned_on: Cases that a smaller network is tuned on: those of all training patients who are not held back.
        ignore_label: Label that counts nowhere.
        dice: Dice of the network on the held-back windows, shape (patients, classes without the background).
        judged: Log-probabilities of the network on the first of these windows.
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
    ignore_label: int | None
    dice: Array
    judged: tuple[Tensor, ...]
    precision: Precision

    @property
    def config(self) -> ExperimentConfig:
        """The experiment."""
        return self.run.config

    @property
    def cost(self) -> tuple[int, int]:
        """Multiply-accumulates of a patch, and parameters."""
        return cost(self.network, self.config)

    def lost(self, network: UNet) -> Array:
        """Returns a network's Dice less the original's on the held-back windows, shape (patients, classes)."""
        return dice_of(network, self.held_back, self.ignore_label, self.precision) - self.dice

    def divergence(self, network: UNet) -> float:
        """Returns the divergence of a prediction from the original's on held-back windows, in nats a voxel."""
        pairs = zip(self.judged, self.held_back, strict=False)
        found = [divergence(wanted, network, image, self.precision) for wanted, (image, _) in pairs]
        return sum(found) / len(found)


@dataclass(frozen=True, kw_only=True)
class FoldRecord:
    """What a smaller network of one run costs and loses, as compression.json has it.

    Attributes:
        macs: Multiply-accumulates of a patch.
        parameters: Learned numbers.
        predicted_loss: Predicted loss of the cuts, before anything was solved anew, in nats a voxel.
        measured_divergence: Divergence of its prediction from the original's on held-back windows, in nats a voxel.
        tuned_steps: Step of the tuning whose weights are kept; 0 for none.
        held_back: Change of Dice by held-back patient and class; null where neither side has the class.
        weights_sha256: Digest of its file of weights; empty before that is written.
    """

    macs: Number
    parameters: Number
    predicted_loss: float
    measured_divergence: float
    tuned_steps: int
    held_back: tuple[tuple[float | None, ...], ...]
    weights_sha256: str

    @property
    def lost(self) -> list[list[float]]:
        """The changes of Dice, NaN where there is none."""
        return [[np.nan if value is None else value for value in row] for row in self.held_back]


def check_uncut(run: TrainedRun) -> tuple[Origin, Split]:
    """Checks that a run has no 1x1 around its kernels, and returns what it was made from and the sides of its cases.

    Raises:
        RunError: It has, or there is no record of its cases.
    """
    where, origin = quoted(str(run.path)), read_origin(run.path)
    if origin is None or origin.split is None:
        value = f"no {ENVIRONMENT_FILE}" if origin is None else "a run of an earlier version"
        remedy = "give the run as its training left it, or train it anew with this version"
        raise RunError(Problem(where, "split", "must have a record of its cases", value, remedy))
    widths = run.config.network.widths
    if widths is not None and (widths.encoder_ranks or widths.decoder_ranks):
        rule, remedy = "must have no 1x1 around its kernels yet", "give the network that it was made from"
        raise RunError(Problem(where, "compressed", rule, "a compressed network", remedy))
    return origin, origin.split


def read_subject(run: TrainedRun, origin: Origin, split: Split, dataset: Dataset, cases: int) -> Subject:
    """Reads a run's network and what it is measured by.

    Args:
        run: The run, with the folder where its data set lies now.
        origin: What it was made from.
        split: Its two sides.
        dataset: The data set.
        cases: Training cases that are measured.

    Raises:
        ConfigError: There are too few training patients to hold one back.
        DataError: Cases cannot be read.
    """
    config, ignored = run.config, dataset.ignore_label
    network = run.network()
    seen = set(split.train)
    patients: dict[str, list[Case]] = {}
    for case in dataset.cases:
        if case.id in seen and case.label is not None:
            patients.setdefault(case.patient or case.id, []).append(case)
    if len(patients) < 2:
        rule, remedy = "must be 2 or more, as one is held back", "compress a run of more patients"
        raise ConfigError(Problem("training patients", "patients", rule, str(len(patients)), remedy))
    held = set(spread_over(list(patients), max(1, min(HELD_BACK, len(patients) // HELD_BACK_SHARE))))
    others = [case for patient, own in patients.items() if patient not in held for case in own]
    chosen = spread_over(others, cases)
    fitted = tuple(window(case, config, ignored)[0] for case in chosen)
    held_back = tuple(window(patients[patient][0], config, ignored) for patient in patients if patient in held)
    precision = choose_precision(config.training.precision, torch.device("cpu"))
    return Subject(
        run=run,
        origin=origin,
        split=split,
        network=network,
        fitted=fitted,
        measured=tuple(case.id for case in chosen),
        held_back=held_back,
        tuned_on=tuple(case.id for case in others),
        ignore_label=ignored,
        dice=dice_of(network, held_back, ignored, precision),
        judged=tuple(log_probabilities(network, image, precision) for image, _ in held_back[:JUDGED]),
        precision=precision,
    )


def smaller_networks(
    subject: Subject, shares: Iterable[float], multiple: int, element_macs: float = 0.0
) -> Iterator[Shrunk]:
    """Yields a smaller network for each of the given shares of the original's work.

    Channels are cut beside 1x1 where numbers of feature maps count in the work: only fewer channels save such numbers.

    Args:
        subject: What is made smaller.
        shares: Shares of the original's work, from large to small.
        multiple: Widths are multiples of this number.
        element_macs: Multiply-accumulates that a number of a feature map counts as.

    Raises:
        BeyondReachError: A share is beyond reach.
    """
    network, size = subject.network, subject.config.patches.size
    whole = work_of(network, network.config, size, element_macs)
    return shrink(
        network,
        subject.fitted,
        (share * whole for share in shares),
        kinds=KINDS if element_macs else DEFAULT,
        element_macs=element_macs,
        multiple=multiple,
        seed=subject.config.seed,
    )


def reach(
    subject: Subject,
    wanted: Sequence[float],
    multiple: int,
    ratio: Callable[[UNet], float],
    *,
    begin: float = RUNG,
    element_macs: float = 0.0,
) -> Iterator[Shrunk]:
    """Shrinks the original in turns, and yields the first network that is within each wanted share of its cost.

    Args:
        subject: What is made smaller.
        wanted: Shares of the original's cost, from large to small.
        multiple: Widths are multiples of this number.
        ratio: Gives the cost of a network over the original's.
        begin: Share of the original's work that the first network keeps.
        element_macs: Multiply-accumulates that a number of a feature map counts as where cuts are chosen.

    Yields:
        The network for each of the wanted shares.

    Raises:
        ConfigError: The cost cannot fall so far.
    """
    shares = (begin * RUNG**number for number in itertools.count())
    steps = smaller_networks(subject, shares, multiple, element_macs)
    small: Shrunk | None = None
    for share in wanted:
        while small is None or ratio(small.network) > share:
            try:
                small = next(steps)
            except BeyondReachError as error:
                reached = "" if small is None else f"; the last had {ratio(small.network):.3g}"
                rule = f"must be a share that widths of multiples of {multiple} reach{reached}"
                raise ConfigError(Problem("target", "range", rule, f"{share:g}", "give a larger share")) from error
        yield small


def judge(
    subject: Subject, small: Shrunk, dataset: Dataset, *, tune_steps: int, margin: float, cache: Path
) -> tuple[UNet, FoldRecord]:
    """Measures a smaller network on the held-back windows, and tunes it where it lost much there.

    Args:
        subject: What it was made from.
        small: The network, which is left as it is.
        dataset: The data set.
        tune_steps: Steps of tuning at most; 0 tunes nothing.
        margin: Loss of Dice that counts as not inferior.
        cache: Folder for prepared cases, where they do not fit in memory.

    Returns:
        The network, and what it costs and loses.
    """
    begun = time.monotonic()
    network = copy.deepcopy(small.network)
    lost, tuned = subject.lost(network), 0
    if tune_steps and worst(lost) < -TUNE_BELOW * margin:
        keep_heap()
        batches = _batches(subject, dataset, tune_steps, cache)
        tuned = tune(
            subject.network,
            network,
            batches,
            subject.divergence,
            optimizer=subject.config.optimizer,
            steps=tune_steps,
            precision=subject.precision,
        )
        lost = subject.lost(network) if tuned else lost
    macs, parameters = cost(network, subject.config)
    fold = "" if subject.config.fold is None else f"fold {subject.config.fold}, "
    LOG.info(
        "%s%.3g of the multiply-accumulates, %s parameters: Dice %s on %s%s; %.0f s",
        *(fold, macs / subject.cost[0], f"{parameters:,}"),
        ", ".join(fixed(value, 4, sign=True) for value in mean_of(lost)),
        *(counted(len(lost), "held-back patient"), f", tuned for {tuned} steps" if tuned else ""),
        time.monotonic() - begun,
    )
    return network, FoldRecord(
        macs=macs,
        parameters=parameters,
        predicted_loss=small.loss,
        measured_divergence=subject.divergence(network),
        tuned_steps=tuned,
        held_back=tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in lost),
        weights_sha256="",
    )


def cost(network: UNet, config: ExperimentConfig) -> tuple[int, int]:
    """Returns the multiply-accumulates of a patch, and the parameters."""
    found = complexity(network.in_channels, network.out_channels, network.config, shape=config.patches.size)
    return found.macs, found.parameters


def worst(lost: Array) -> float:
    """Returns the smallest mean of the classes; infinity where no held-back patient has any."""
    means = [value for value in mean_of(lost) if not math.isnan(value)]
    return min(means, default=math.inf)


def mean_of(lost: Array) -> list[float]:
    """Returns the mean change of each class over the patients that have it; NaN where none has."""
    present = ~np.isnan(lost)
    sums = np.where(present, lost, 0).sum(0)
    return [float(total / count) if count else math.nan for total, count in zip(sums, present.sum(0), strict=True)]


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


def dice_of(network: UNet, windows: Sequence[Window], ignore_label: int | None, precision: Precision = "fp32") -> Array:
    """Returns the Dice of each class but the background, shape (windows, classes); NaN where neither side has it."""
    found = np.full((len(windows), network.out_channels - 1), np.nan)
    for row, (image, label) in enumerate(windows):
        predicted = log_probabilities(network, image, precision)[0].argmax(0)
        counts = torch.ones_like(label, dtype=torch.bool) if ignore_label is None else label != ignore_label
        for index in range(1, network.out_channels):
            ours, theirs = (predicted == index) & counts, (label == index) & counts
            if size := int(ours.sum()) + int(theirs.sum()):
                found[row, index - 1] = 2 * int((ours & theirs).sum()) / size
    return found


def log_probabilities(network: UNet, image: Tensor, precision: Precision = "fp32") -> Tensor:
    """Returns a prediction f32 (1, K, X, Y, Z)."""
    with torch.no_grad(), autocast(image.device, precision):
        logits: Tensor = network(image)
    return logits.float().log_softmax(1)


def divergence(wanted: Tensor, network: UNet, image: Tensor, precision: Precision = "fp32") -> float:
    """Returns the Kullback-Leibler divergence of a network's prediction from log-probabilities, in nats a voxel."""
    p, q = wanted.double(), log_probabilities(network, image, precision).double()
    return float((p.exp() * (p - q)).sum(1).mean())


def _batches(subject: Subject, dataset: Dataset, steps: int, cache: Path) -> Iterator[Tensor]:
    """Yields augmented training images of all training patients but those that are held back."""
    config = subject.config
    training = replace(config.training, steps=steps, validate_every=steps, accumulate=1, device="cpu")
    data = SegmentationData(
        replace(config, training=training), dataset, Split(train=subject.tuned_on, validation=()), cache
    )
    data.setup("fit")
    for batch in data.train_dataloader():
        image: Tensor = data.augmented(batch)["image"]
        yield image
