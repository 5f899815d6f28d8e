"""Linear 1x1 convolutions around the full kernels of a trained network: how narrow each may be, and its weights.

Replacing a 3x3 convolution by 1x1 - 3x3 - 1x1 changes no map but the narrowed ones, so any network of the package can
be cut, kernel by kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn

from seg.compression.channels import feature_maps
from seg.compression.moments import Place, Projection, best_projection, ridged
from seg.config import NetworkConfig, WidthsConfig
from seg.networks import UNet, network_from_config, padded
from seg.networks.blocks import ConvNormAct, FactoredConv3d
from seg.networks.layout import PLAIN, Ranks, layout

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Says how much a multiply-accumulate, a number in a feature map and a parameter each add to the cost of a network.

    The weighted sum is called the work of a network, or of a part of it.

    Attributes:
        mac: Weight of a multiply-accumulate.
        element: Weight of a number of a feature map.
        parameter: Weight of a learned number.
        vector: Output channels that an engine computes at once. Multiply-accumulates are counted with the output
            channels of a convolution rounded up to a multiple of this number, and its input channels as they are.
    """

    mac: float = 1.0
    element: float = 0.0
    parameter: float = 0.0
    vector: int = 1

    def work(self, macs: Number, elements: Number, parameters: Number) -> Number:
        """Returns the weighted sum. Tensors count many choices at once."""
        return self.mac * macs + self.element * elements + self.parameter * parameters


BY_MACS = Prices()
BY_PARAMETERS = Prices(mac=0.0, parameter=1.0)


@dataclass(frozen=True, kw_only=True)
class Ends:
    """How many channels a convolution reads and writes, and how many of those it reads come from interpolation.

    Attributes:
        read: Channels that it reads.
        written: Channels that it writes.
        enlarged: Channels among those read that are interpolated. A 1x1 before the kernel is applied before that.
        scale: Voxels that interpolation makes of one voxel.
    """

    read: int
    written: int
    enlarged: int = 0
    scale: int = 1


def ends_of(network: UNet, name: str) -> Ends:
    """Counts the input and output channels of a convolution, and the inputs that are interpolated.

    Args:
        network: The network.
        name: Path of the convolution in it.
    """
    convolution = network.get_submodule(name)
    assert isinstance(convolution, (nn.Conv3d, FactoredConv3d))
    ends = Ends(read=convolution.in_channels, written=convolution.out_channels)
    if network.config.upsample == "linear":
        for one in feature_maps(network):
            field, level, _ = one.where
            if field == "up" and name in dict(one.readers):
                return replace(ends, enlarged=one.channels, scale=prod(network.config.strides[level + 1]))
    return ends


def kernel_work(
    place: Place, ends: Ends, ranks: tuple[Number, Number], voxels: int, prices: Prices = BY_MACS
) -> Number:
    """Returns what it costs to apply one kernel and the 1x1 around it to an image, as a sum weighted by `prices`.

    The feature maps that count are those between the kernel and its 1x1, and the one that is interpolated, or not, for
    the kernel. Norms and biases do not count.

    Args:
        place: The kernel.
        ends: Channels that its convolution reads and writes.
        ranks: Channels of the 1x1 before and behind the kernel, 0 for none. Tensors count many choices at once.
        voxels: Voxels of the image.
        prices: Weights of what is counted.
    """
    (reads, writes), read, written = ranks, ends.read, ends.written
    at_input, at_output = place.voxels_read * voxels, place.voxels * voxels
    kernel_reads, kernel_writes = reads + read * (reads == 0), writes + written * (writes == 0)
    parameters = reads * read + kernel_reads * kernel_writes * place.taps + writes * written
    kernel = kernel_reads * padded(kernel_writes, prices.vector) * place.taps
    below = at_input / ends.scale
    before = padded(reads, prices.vector) * ((read - ends.enlarged) * at_input + ends.enlarged * below)
    macs = before + (kernel + writes * padded(written, prices.vector)) * at_output
    enlarged = ends.enlarged * (below + (at_input - below) * (reads == 0))
    return prices.work(macs, enlarged + reads * at_input + writes * at_output, parameters)


def project(places: Iterable[Place]) -> dict[str, tuple[Projection, Projection]]:
    """Finds the best projections before and behind every kernel."""
    return {place.name: (best_projection(place.before), best_projection(place.behind)) for place in places}


def cut(network: UNet, choice: Mapping[str, Ranks], projections: Mapping[str, tuple[Projection, Projection]]) -> UNet:
    """Builds a network with 1x1 around kernels, which computes the same function where ranks are full.

    A kernel that has 1x1 already gets narrower ones, made of the old ones and the projections; 0 folds a 1x1 into its
    kernel again.

    Args:
        network: A trained network.
        choice: Channels of the 1x1 before and behind each kernel by its name, 0 for none.
        projections: Projections before and behind each, by name: of the maps that the kernel itself reads and writes.

    Returns:
        A network in evaluation mode whose weights need no gradient.
    """
    config = with_ranks(network.config, choice)
    smaller = network_from_config(config, network.in_channels, network.out_channels)
    like = next(network.parameters())
    smaller.to(like.dtype)
    replaced = tuple(f"{name}." for name in choice)
    state = {name: value for name, value in network.state_dict().items() if not name.startswith(replaced)}
    for name, ranks in choice.items():
        state |= _weights(name, network.get_submodule(name), ranks, projections.get(name))
    smaller.load_state_dict({name: value.to(like.dtype) for name, value in state.items()})
    return smaller.requires_grad_(False).eval()


def ranks_of(convolution: nn.Module) -> Ranks:
    """Returns the channels of the linear 1x1 before and behind a kernel."""
    if not isinstance(convolution, FactoredConv3d):
        return PLAIN
    before, behind = convolution.before, convolution.behind
    return (
        before.out_channels if isinstance(before, nn.Conv3d) else 0,
        behind.in_channels if isinstance(behind, nn.Conv3d) else 0,
    )


def _weights(
    name: str, convolution: nn.Module, ranks: Ranks, projections: tuple[Projection, Projection] | None
) -> dict[str, Tensor]:
    """Returns the weights of a kernel (O, I, x, y, z) between its 1x1."""
    inner = convolution.conv if isinstance(convolution, FactoredConv3d) else convolution
    assert isinstance(inner, nn.Conv3d)
    kernel = inner.weight.detach().double()
    found: dict[str, Tensor] = {}
    before, behind = ranks_of(convolution)
    reduce, expand = (
        one.weight.detach().flatten(1).double() if isinstance(one, nn.Conv3d) else None
        for one in (getattr(convolution, "before", None), getattr(convolution, "behind", None))
    )
    if ranks[0] != before:
        if ranks[0]:
            assert projections is not None
            back, down = balanced(projections[0], ranks[0])
            reduce = down if reduce is None else down @ reduce
        else:
            assert reduce is not None
            back, reduce = reduce, None
        kernel = torch.einsum("oixyz,ir->orxyz", kernel, back)
    if ranks[1] != behind:
        if ranks[1]:
            assert projections is not None
            back, down = balanced(projections[1], ranks[1])
            expand = back if expand is None else expand @ back
        else:
            assert expand is not None
            down, expand = expand, None
        kernel = torch.einsum("oixyz,ro->rixyz", kernel, down)
    for side, weight in (("before", reduce), ("behind", expand)):
        if weight is not None:
            found[f"{name}.{side}.weight"] = weight[:, :, None, None, None]
    return found | {f"{name}.conv.weight" if any(ranks) else f"{name}.weight": kernel}


def balanced(projection: Projection, rank: int) -> tuple[Tensor, Tensor]:
    """Splits a projection into a 1x1 that expands, of orthonormal columns (C, r), and one that reduces, (r, C)."""
    expand, mix = torch.linalg.qr(projection.left[:, :rank])
    return expand, mix @ projection.right[:, :rank].T


def with_ranks(config: NetworkConfig, choice: Mapping[str, Ranks]) -> NetworkConfig:
    """Returns a configuration with 1x1 around the kernels of these names."""
    found = layout(config)
    encoder, decoder = ([list(stage) for stage in part] for part in (found.encoder_ranks, found.decoder_ranks))
    for name, ranks in choice.items():
        parts = name.split(".")
        numbers = [int(part) for part in parts if part.isdigit()]
        (encoder if parts[0] == "encoder" else decoder)[numbers[0]][numbers[1] if len(numbers) > 1 else 0] = ranks
    widths = replace(
        config.widths or WidthsConfig(),
        encoder_ranks=_stated(encoder),
        decoder_ranks=_stated(decoder),
    )
    return replace(config, widths=widths)


def _stated(stages: Sequence[Sequence[Ranks]]) -> tuple[tuple[Ranks, ...], ...] | None:
    plain = all(ranks == PLAIN for stage in stages for ranks in stage)
    return None if plain else tuple(tuple(stage) for stage in stages)


SAMPLED = 4096
"""Voxels of a case, drawn at random, from which a kernel is solved anew."""
RIDGE = 1e-3
"""Pull towards the weights before, over the mean square of a kernel's inputs."""


def solve_anew(
    network: UNet,
    smaller: UNet,
    images: Sequence[Tensor],
    *,
    kept: Mapping[str, Sequence[int]],
    seed: int = 0,
) -> None:
    """Fits kernels of a cut network to what the original computes there, one after the other, in place.

    Cuts change the inputs of all that follows. In the order of computation, each kernel becomes the least-squares map
    from the inputs that it has now, zeros of the padding among them, to the outputs of the original, in the coordinates
    of the 1x1 behind it. A constant is left free in each case, for the norm takes it away. Then the norm's scale is
    fitted to the normalised outputs of the original. The 1x1 that leads up from a lower stage, without a constant, and
    the head, with its bias, are fitted to what they write in the original. Other weights stay: transposed convolutions,
    the 1x1 of bottlenecks, and further heads.

    All images go through both networks at once, so that each is computed once; their maps are in memory together.

    Args:
        network: The original.
        smaller: What :func:`cut` or :func:`seg.compression.channels.cut_channels` made of it.
        images: Images of shape (1, C, X, Y, Z) and of one size.
        kept: Channels of the original that are kept, by the path of the module that writes them; where one is not
            named it has all.
        seed: Seed of the voxels that are drawn.
    """
    batch = torch.cat(list(images))
    layers: dict[str, nn.Module] = {
        name: block.conv for name, block in network.named_modules() if isinstance(block, ConvNormAct)
    }
    layers |= {name: network.get_submodule(name) for name in _linear(network)}
    targets = _targets(network, layers, batch, torch.Generator().manual_seed(seed))
    hooks = []
    for name in layers:
        layer = smaller.get_submodule(name)
        layer = layer.conv if isinstance(layer, ConvNormAct) else layer
        kernel = layer.conv if isinstance(layer, FactoredConv3d) else layer
        hooks.append(
            # The hook runs before the kernel, which then computes with its new weights.
            kernel.register_forward_pre_hook(
                lambda _kernel, inputs, name=name: _solve_layer(
                    network, smaller, name, inputs[0], *targets.pop(name), kept.get(name)
                )
            )
        )
    try:
        with torch.no_grad():
            smaller(batch)
    finally:
        for hook in hooks:
            hook.remove()


def _solve_layer(
    network: UNet,
    smaller: UNet,
    name: str,
    inputs: Tensor,
    targets: Sequence[Tensor],
    drawn: Sequence[Tensor],
    kept: Sequence[int] | None,
) -> None:
    """Fits a layer to targets (O, V) of each image, from what it reads: shape (N, I, X, Y, Z)."""
    block, whole = smaller.get_submodule(name), network.get_submodule(name)
    layer = block.conv if isinstance(block, ConvNormAct) else block
    kernel = layer.conv if isinstance(layer, FactoredConv3d) else layer
    assert isinstance(kernel, nn.Conv3d)
    index = torch.tensor(kept if kept is not None else range(targets[0].shape[0]))
    wanted = [target[index] for target in targets]
    read = [_patches(image, kernel, voxels) for image, voxels in zip(inputs, drawn, strict=True)]
    expand = torch.eye(kernel.out_channels, dtype=torch.float64)
    if isinstance(layer, FactoredConv3d) and isinstance(layer.behind, nn.Conv3d):
        expand = layer.behind.weight.detach().flatten(1).double()
    before = kernel.weight.detach().flatten(1).double()
    if isinstance(block, ConvNormAct):
        read, wanted = [*map(_centred, read)], [*map(_centred, wanted)]
        solved = _solve(before, read, wanted, expand)
        found = [(expand @ solved).float() @ patches for patches in read]
        agreement = torch.stack([_correlation(*pair) for pair in zip(found, wanted, strict=True)]).mean(0)
        assert isinstance(whole, ConvNormAct)
        block.norm.weight.copy_(whole.norm.weight[index] * agreement.to(block.norm.weight.dtype))
    elif kernel.bias is None:
        solved = _solve(before, read, wanted, expand)
    else:
        middle, level = (torch.cat(values, 1).mean(1, keepdim=True) for values in (read, wanted))
        solved = _solve(before, [one - middle for one in read], [one - level for one in wanted], expand)
        kernel.bias.copy_((level.double() - solved @ middle.double())[:, 0])
    kernel.weight.copy_(solved.reshape(kernel.weight.shape))


def _linear(network: UNet) -> list[str]:
    """Lists the layers without a norm: the 1x1 that lead up, and the head of full resolution."""
    ups = [f"decoder.{level}.up" for level in range(len(network.decoder))]
    return [name for name in ups if isinstance(network.get_submodule(name), nn.Conv3d)] + ["heads.0"]


def _targets(
    network: UNet, layers: Mapping[str, nn.Module], batch: Tensor, stream: torch.Generator
) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Returns what layers write at drawn voxels of each image, (O, V), before their norm; and these voxels."""
    targets: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def take(name: str, output: Tensor) -> None:
        values = output.flatten(2).float()
        drawn = [torch.randperm(values.shape[2], generator=stream)[:SAMPLED] for _ in values]
        targets[name] = [one[:, voxels] for one, voxels in zip(values, drawn, strict=True)], drawn

    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: take(name, output))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return targets


def _solve(before: Tensor, inputs: Sequence[Tensor], targets: Sequence[Tensor], expand: Tensor) -> Tensor:
    """Returns the least-squares map from inputs (I, V) to targets (O, V) in the coordinates of `expand` (O, r)."""
    reduce = expand.pinverse()
    gram, cross = torch.zeros(before.shape[1], before.shape[1]).double(), torch.zeros(before.shape).double()
    for patches, target in zip(inputs, targets, strict=True):
        gram += (patches @ patches.T).double()
        cross += ((reduce.float() @ target - before.float() @ patches) @ patches.T).double()
    factor = torch.linalg.cholesky(ridged(gram, RIDGE))
    change: Tensor = torch.cholesky_solve(cross.T, factor).T
    return before + change


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    one, other = one.double(), other.double()  # squares of what norms can take are beyond float32
    lengths: Tensor = (one.norm(dim=1) * other.norm(dim=1)).clamp_min(torch.finfo(one.dtype).tiny)
    return (one * other).sum(1) / lengths


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)


def _patches(x: Tensor, kernel: nn.Conv3d, voxels: Tensor) -> Tensor:
    """Returns what a kernel reads of an image at voxels of its output: (I x taps, V), in the order of its weights."""
    padding = [side for side in reversed(kernel.padding) if isinstance(side, int)]
    image = nn.functional.pad(x.float(), [side for side in padding for _ in range(2)])
    for axis, (size, stride) in enumerate(zip(kernel.kernel_size, kernel.stride, strict=True), start=1):
        image = image.unfold(axis, size, stride)
    i, j, k = torch.unravel_index(voxels, image.shape[1:4])
    return image[:, i, j, k].permute(0, 2, 3, 4, 1).flatten(0, 3)
