"""Networks of a configuration, and their weights on disk."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seg.config import BottleneckConfig, NetworkConfig
from seg.errors import RunError
from seg.files import check_version, file_digest, write_bytes
from seg.layout import WEIGHTS_FILE
from seg.networks import Bottleneck, Options, Plan, get_network

LOG = logging.getLogger(__name__)
WEIGHTS_VERSION = 1


def network_arguments(config: NetworkConfig) -> dict[str, Any]:
    """Returns the keyword arguments that describe a configured network, to its constructor as to ``complexity``."""
    return {
        "plan": Plan(channels=config.channels, strides=config.strides, kernel_sizes=config.kernel_sizes),
        "skip_bottleneck": _bottleneck(config.skip_bottleneck),
        "decoder_bottleneck": _bottleneck(config.decoder_bottleneck),
        "options": Options(
            upsample=config.upsample,
            merge=config.merge,
            residual=config.residual,
            deep_supervision=config.deep_supervision,
        ),
    }


def _bottleneck(config: BottleneckConfig | None) -> Bottleneck | None:
    if config is None:
        return None
    return Bottleneck(ratio=config.ratio, activation=config.activation, norm=config.norm)


def network_from_config(config: NetworkConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Builds the network of a configuration, with weights not yet drawn for an experiment.

    Constructors of layers draw weights of their own; torch's global stream is left where it was.
    """
    with torch.random.fork_rng(devices=[]):
        return get_network(config.name)(in_channels, out_channels, **network_arguments(config))


def trained_network(config: NetworkConfig, in_channels: int, out_channels: int, run_dir: Path) -> nn.Module:
    """Builds a network with the final weights of a run, in evaluation mode.

    Args:
        config: The architecture.
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        run_dir: Run directory with final weights.

    Raises:
        RunError: There are no weights, they cannot be read, or they are those of another network.
    """
    state = load_weights(run_dir)
    network = network_from_config(config, in_channels, out_channels)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != wanted:
        raise RunError(f"{run_dir / WEIGHTS_FILE}: {_difference(found, wanted)}")
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()


def _difference(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str:
    name = next(name for name in (*wanted, *found) if found.get(name) != wanted.get(name))
    rule = f"must have shape {wanted[name]}" if name in wanted else "must be absent"
    value = f"shape {found[name]}" if name in found else "none"
    return (
        f"weights must fit the network of config.yaml and model.json, where {name} {rule}, got {value}; "
        "the file belongs to another run, restore the run's own."
    )


def weights_bytes(network: nn.Module, *, channel_names: Sequence[str], class_names: Sequence[str]) -> bytes:
    """Returns the content of a file of weights: a version, tensors and names, nothing else.

    Args:
        network: The network.
        channel_names: Channels of its images.
        class_names: Classes, the background first.
    """
    names = {"channel_names": list(channel_names), "class_names": list(class_names)}
    content = io.BytesIO()
    torch.save({"schema_version": WEIGHTS_VERSION, "network": network.state_dict(), **names}, content)
    return content.getvalue()


def save_weights(
    network: nn.Module, run_dir: Path, *, channel_names: Sequence[str], class_names: Sequence[str]
) -> Path:
    """Writes a network's weights as ``checkpoints/weights.pt``; see :func:`weights_bytes`."""
    target = run_dir / WEIGHTS_FILE
    write_bytes(target, weights_bytes(network, channel_names=channel_names, class_names=class_names))
    return target


def load_weights(run_dir: Path) -> dict[str, Tensor]:
    """Reads the final weights of a run without executing anything in the file.

    Raises:
        RunError: The file is absent, not a weights file of this project, of a newer version, or not finite.
    """
    return _read(run_dir)[0]


def check_task(
    run_dir: Path,
    *,
    channel_names: Sequence[str],
    class_names: Sequence[str],
    source: str = "model.json",
    remedy: str = "the file belongs to another run, restore the run's own",
) -> None:
    """Checks that the final weights of a run are for these channels and classes, in this order.

    Equal shapes do not tell: networks of two tasks may have them.

    Args:
        run_dir: Run directory.
        channel_names: Channels that the weights must be for.
        class_names: Classes, background first.
        source: What names them, for the message.
        remedy: End of the message: what may be wrong, and what to do.

    Raises:
        RunError: They are for others; see :func:`load_weights` too.
    """
    found = _read(run_dir)[1]
    wanted = {"channel_names": list(channel_names), "class_names": list(class_names)}
    problems = [
        f"{run_dir / WEIGHTS_FILE}: weights must be for the {name} of {source}, {wanted[name]}, got {names}; {remedy}."
        for name, names in found.items()
        if names != wanted[name]
    ]
    if problems:
        raise RunError(problems)


def _read(run_dir: Path) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Reads tensors, and the names of channels and classes."""
    path = run_dir / WEIGHTS_FILE
    if not path.is_file():
        raise RunError(f"{run_dir}: must hold a finished run, got no {WEIGHTS_FILE}; train it first.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, state = int(content["schema_version"]), dict(content["network"])
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            raise TypeError
        names = {name: list(content[name]) for name in ("channel_names", "class_names")}
        if not all(isinstance(name, str) for several in names.values() for name in several):
            raise TypeError
    except Exception as error:
        raise RunError(
            f"{path}: must be a whole weights file of this project, tensors alone, got {type(error).__name__}; "
            "nothing in it was run; copy it again or train anew."
        ) from error
    if odd := [name for name, value in state.items() if not bool(torch.isfinite(value).all())]:
        raise RunError(
            f"{path}: weights must be finite, got NaN or infinity in {len(odd)} of {len(state)} tensors, {odd[0]} "
            "first; restore the file, or train anew with a lower learning rate."
        )
    check_version(path, version, WEIGHTS_VERSION)
    return state, names


def weights_digest(run_dir: Path) -> str:
    """Returns the SHA-256 of a run's file of final weights.

    Raises:
        RunError: The file is absent or not a weights file of this project.
    """
    load_weights(run_dir)
    return file_digest(run_dir / WEIGHTS_FILE).hex()


def copy_weights(network: nn.Module, run_dir: Path) -> None:
    """Copies another run's final weights wherever name and shape agree, and announces what stays.

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
