"""Fewer channels in the feature maps of a trained network: which to keep, and what stands for the others.

A map of C channels keeps K. The best linear substitutes of the others from these fold into the weights of all that
read the map, so no 1x1 is added, and norms and activations work on fewer channels. Convolutions pad with zeros and
have no bias, so substitutes have no constant, and their error is counted with its mean. Where every reader takes a
constant away or up exactly (a 1x1 with a norm or a bias behind it), substitutes have one.

The loss that is predicted for replacing features h by M h[kept] is tr(F R S R^T) / 2 with R = I - M E, where E selects
the kept channels: the measure of `seg.compression.moments`, with the gradients by way of all readers together. A skip
is the encoder's own tensor: one choice of channels serves its two readers, and both are compensated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from seg.compression.moments import Moments, Subset, best_channels, case_moments, drawn_gradients, watch
from seg.config import NetworkConfig, WidthsConfig
from seg.networks import UNet, network_from_config
from seg.networks.blocks import ConvNormAct, FactoredConv3d, ResidualStage
from seg.networks.bottleneck import stage_ratios
from seg.networks.conv import ONE
from seg.networks.layout import layout

Where = tuple[Literal["encoder", "up", "decoder"], int, int]


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """A map whose channels can be chosen.

    Attributes:
        name: Path of the module whose output it is.
        where: Its entry in :class:`seg.networks.layout.Layout`: field, stage, and number in the stage.
        channels: Channels C.
        writers: Paths of the modules that have weights for each of its channels; several where maps are added.
        readers: Paths of the convolutions that read it, and the number of its first channel among those they read.
        constant: What a constant in it does: it counts (`none`), the norms behind all readers take it away in each
            case (`case`), or the bias of its only reader takes it up (`all`).
        least: Fewest channels that the configuration can state.
    """

    name: str
    where: Where
    channels: int
    writers: tuple[str, ...]
    readers: tuple[tuple[str, int], ...]
    constant: Literal["none", "case", "all"] = "none"
    least: int = 1


@dataclass(frozen=True, kw_only=True)
class MeasuredMap:
    """What is known of a map, and the best subsets of its channels.

    Attributes:
        map: The map.
        moments: S and F; S is taken about the mean that a constant takes away.
        mean: Means of the channels, shape (C,).
        subsets: The subsets by width, C down to 1.
    """

    map: FeatureMap
    moments: Moments
    mean: Tensor
    subsets: Mapping[int, Subset]


def feature_maps(network: UNet) -> tuple[FeatureMap, ...]:
    """Lists the feature maps of a network that can do with fewer channels, in the order of computation.

    Not among them are maps whose channels are tied to those of others: what is added to another map at the merge, a
    residual stream that is added without a projection, and skips with a bottleneck that widens them.
    """
    config, found = network.config, layout(network.config)
    levels = len(config.channels) - 1
    maps = []
    for level, (between, channels) in enumerate(found.encoder):
        stage = f"encoder.{level}.convs" if config.residual else f"encoder.{level}"
        maps.append(
            FeatureMap(
                name=f"{stage}.0",
                where=("encoder", level, 0),
                channels=between,
                writers=(f"{stage}.0",),
                readers=((f"{stage}.1.conv", 0),),
            )
        )
        least = _least_stream(network, level)
        if least is None:
            continue
        if level == levels:
            readers: tuple[tuple[str, int], ...] = ((f"decoder.{level - 1}.up", 0),)
        elif config.skip_bottleneck is None:
            readers = (*_stage_readers(config, level + 1), (_decoder_reader(config, level), found.up[level]))
        else:
            readers = (*_stage_readers(config, level + 1), (f"skips.{level}.reduce", 0))
        maps.append(
            FeatureMap(
                name=f"encoder.{level}" if config.residual else f"{stage}.1",
                where=("encoder", level, 1),
                channels=channels,
                writers=(f"{stage}.1", f"encoder.{level}.project") if config.residual else (f"{stage}.1",),
                readers=readers,
                least=least,
            )
        )
    for level in reversed(range(levels)):
        maps += _decoder_maps(config, level, found.up[level], found.decoder[level])
    return tuple(maps)


def _least_stream(network: UNet, level: int) -> int | None:
    """Returns the fewest channels behind an encoder stage, None where they are tied to those of another map."""
    config, levels, least = network.config, len(network.config.channels) - 1, 1
    if level < levels:
        if config.merge == "add":
            return None
        if config.skip_bottleneck is not None:
            least = layout(config).skip[level]
            if least >= config.channels[level]:
                return None
    if not config.residual:
        return least
    stages = [network.get_submodule(f"encoder.{number}") for number in range(level, min(level + 2, levels + 1))]
    for number, stage in enumerate(stages, start=level):
        assert isinstance(stage, ResidualStage)
        if isinstance(stage.project, nn.Identity) or (number > 0 and config.strides[number] == ONE):
            return None
    # At full resolution an input as wide as the stage would be added without its projection.
    return max(least, network.in_channels + 1) if level == 0 else least


def _stage_readers(config: NetworkConfig, level: int) -> tuple[tuple[str, int], ...]:
    if config.residual:
        return ((f"encoder.{level}.convs.0.conv", 0), (f"encoder.{level}.project.conv", 0))
    return ((f"encoder.{level}.0.conv", 0),)


def _decoder_reader(config: NetworkConfig, level: int) -> str:
    return f"decoder.{level}.block.{'0.conv' if config.decoder_bottleneck is None else 'reduce'}"


def _decoder_maps(config: NetworkConfig, level: int, up: int, widths: tuple[int, ...]) -> list[FeatureMap]:
    bottleneck, stage = config.decoder_bottleneck, f"decoder.{level}"
    maps = []
    if config.merge == "concat":
        constant: Literal["none", "case", "all"] = "none"
        if bottleneck is not None:
            constant = "case" if bottleneck.norm else "all"
        maps.append(
            FeatureMap(
                name=f"{stage}.up",
                where=("up", level, 0),
                channels=up,
                writers=(f"{stage}.up",),
                readers=((_decoder_reader(config, level), 0),),
                constant=constant,
            )
        )
    inner: list[tuple[str, tuple[str, ...], str]]
    if bottleneck is None:
        inner = [(f"{stage}.block.0", (f"{stage}.block.0",), f"{stage}.block.1.conv")]
        last = f"{stage}.block.1"
    else:
        reduced = f"{stage}.block.pointwise"
        inner = [
            (reduced, (f"{stage}.block.reduce", reduced), f"{stage}.block.conv.conv"),
            (f"{stage}.block.conv", (f"{stage}.block.conv",), f"{stage}.block.expand.conv"),
        ]
        last = f"{stage}.block.expand"
    maps += [
        FeatureMap(
            name=name,
            where=("decoder", level, number),
            channels=widths[number],
            writers=writers,
            readers=((reader, 0),),
            constant="case" if reader.endswith("expand.conv") else "none",
        )
        for number, (name, writers, reader) in enumerate(inner)
    ]
    heads = ((f"heads.{level}", 0),) if level == 0 or config.deep_supervision else ()
    ups = ((f"decoder.{level - 1}.up", 0),) if level > 0 else ()
    maps.append(
        FeatureMap(
            name=last,
            where=("decoder", level, len(widths) - 1),
            channels=widths[-1],
            writers=(last,),
            readers=(*ups, *heads),
            constant="none" if ups else "all",
        )
    )
    return maps


def measure_maps(network: UNet, images: Iterable[Tensor], *, seed: int = 0) -> dict[str, MeasuredMap]:
    """Measures S and F of every map that can do with fewer channels, and chooses channels for every width.

    Args:
        network: In evaluation mode.
        images: Images of shape (1, C, X, Y, Z), one for each case.
        seed: Seed of the labels that are drawn from the prediction.

    Returns:
        The maps by name, in the order of computation; moments are float64 on the processor.
    """
    maps = {one.name: one for one in feature_maps(network)}
    watched = {name: (name, False) for name in maps}
    stream = torch.Generator().manual_seed(seed)
    sums: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in maps}
    for image in images:
        logits, written = watch(network, watched, image)
        gradients = drawn_gradients(logits, written, stream)
        for name, output in written.items():
            sums[name].append(case_moments(output, gradients[name], logits[:, 0].numel()))
    measured = {}
    for name, one in maps.items():
        means, second, fisher = (torch.stack(found) for found in zip(*sums[name], strict=True))
        mean = means.mean(0)
        if one.constant != "none":
            middle = means if one.constant == "case" else mean.expand_as(means)
            cross = means[:, :, None] * middle[:, None]
            second = second - cross - cross.mT + middle[:, :, None] * middle[:, None]
        moments = Moments(second=second.mean(0), fisher=fisher.mean(0))
        measured[name] = MeasuredMap(map=one, moments=moments, mean=mean, subsets=best_channels(moments))
    return measured


def cut_channels(network: UNet, measured: Mapping[str, MeasuredMap], widths: Mapping[str, int]) -> UNet:
    """Builds a network whose maps have fewer channels, in evaluation mode; its weights need no gradient.

    Args:
        network: A trained network.
        measured: What :func:`measure_maps` found in it.
        widths: Channels of maps by name; other maps stay whole.
    """
    kept = {name: measured[name].subsets[width] for name, width in widths.items()}
    smaller = network_from_config(
        with_channels(network.config, {measured[name].map.where: width for name, width in widths.items()}),
        network.in_channels,
        network.out_channels,
    )
    like = next(network.parameters())
    smaller.to(like.dtype)
    state = {name: value.double() for name, value in network.state_dict().items()}
    readings = []
    for name, subset in kept.items():
        index = torch.tensor(subset.kept)
        for writer in measured[name].map.writers:
            for weight, axis in _written(network, writer):
                state[weight] = state[weight].index_select(axis, index)
        readings += [(start, reader, name) for reader, start in measured[name].map.readers]
    for start, reader, name in sorted(readings, reverse=True):  # what is read first keeps its place
        one, subset = measured[name], kept[name]
        weight, axis = _read(network, reader)
        whole = state[weight].movedim(axis, 0)
        part = whole[start : start + one.map.channels]
        folded = torch.einsum("ck,c...->k...", subset.substitutes, part)
        state[weight] = torch.cat((whole[:start], folded, whole[start + one.map.channels :])).movedim(0, axis)
        if one.map.constant == "all":
            constant = one.mean - subset.substitutes @ one.mean[list(subset.kept)]
            state[f"{reader}.bias"] = state[f"{reader}.bias"] + torch.einsum("c,co->o", constant, part.flatten(1))
    smaller.load_state_dict({name: value.to(like.dtype) for name, value in state.items()})
    return smaller.requires_grad_(False).eval()


def _written(network: nn.Module, writer: str) -> list[tuple[str, int]]:
    """Returns the weights with an entry for each channel that a module writes, and the axis of these."""
    module = network.get_submodule(writer)
    if isinstance(module, nn.ConvTranspose3d):
        return [(f"{writer}.weight", 1)]
    inner: tuple[str, ...] = ()
    if isinstance(module, ConvNormAct) and isinstance(module.conv, FactoredConv3d):
        inner = ("conv.before.", "conv.conv.") if isinstance(module.conv.behind, nn.Conv3d) else ("conv.before.",)
    return [(f"{writer}.{name}", 0) for name, _ in module.named_parameters() if not name.startswith(inner)]


def _read(network: nn.Module, reader: str) -> tuple[str, int]:
    """Returns the weight of a convolution that has an entry for each channel that it reads, and the axis of these."""
    module = network.get_submodule(reader)
    if isinstance(module, FactoredConv3d):
        return f"{reader}.{'before' if isinstance(module.before, nn.Conv3d) else 'conv'}.weight", 1
    return f"{reader}.weight", 0 if isinstance(module, nn.ConvTranspose3d) else 1


def with_channels(config: NetworkConfig, widths: Mapping[Where, int]) -> NetworkConfig:
    """Returns a configuration whose maps have these channels; others keep theirs."""
    found = layout(config)
    encoder, decoder = ([list(stage) for stage in part] for part in (found.encoder, found.decoder))
    fields = {"encoder": encoder, "up": [[channels] for channels in found.up], "decoder": decoder}
    for (field, stage, number), width in widths.items():
        fields[field][stage][number] = width
    channels = tuple(stage[1] for stage in encoder)
    skips = config.skip_bottleneck
    if skips is not None and channels != config.channels:
        before = stage_ratios(skips, len(channels) - 1)
        ratios = (
            ratio if width == whole else skip / width
            for ratio, skip, width, whole in zip(before, found.skip, channels, config.channels, strict=False)
        )
        skips = replace(skips, ratio=tuple(ratios))
    stated = replace(
        config.widths or WidthsConfig(),
        encoder=tuple(stage[0] for stage in encoder),
        up=tuple(stage[0] for stage in fields["up"]),
        decoder=tuple(tuple(stage) for stage in decoder),
    )
    return replace(config, channels=channels, widths=stated, skip_bottleneck=skips)
