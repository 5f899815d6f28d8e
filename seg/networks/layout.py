"""The widths of every feature map of a U-Net, resolved from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from seg.config import NetworkConfig, WidthsConfig
from seg.networks.bottleneck import projects_back, stage_ratios, width

Ranks = tuple[int, int]
PLAIN: Ranks = (0, 0)
"""No 1x1 before a full kernel, and none behind."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Channels of the feature maps, stage by stage from full resolution down.

    Attributes:
        encoder: Channels behind the first and the second convolution of each stage, the bottom last.
        encoder_ranks: Channels of the linear 1x1 before and behind each full kernel of these, 0 where there is none.
        skip: Channels of each skip at the merge.
        up: Channels of the upsampled features.
        decoder: Channels behind each convolution of a decoder stage: two 3x3, or 1x1, 3x3 and 1x1.
        decoder_ranks: As for the encoder, for the full kernels of the decoder alone.
    """

    encoder: tuple[tuple[int, int], ...]
    encoder_ranks: tuple[tuple[Ranks, ...], ...]
    skip: tuple[int, ...]
    up: tuple[int, ...]
    decoder: tuple[tuple[int, ...], ...]
    decoder_ranks: tuple[tuple[Ranks, ...], ...]

    def merged(self, level: int, merge: str) -> tuple[int, ...]:
        """Returns the channels of each map that a decoder stage reads: upsampled and skip, or their sum for `add`."""
        return (self.up[level], self.skip[level]) if merge == "concat" else (self.up[level],)


def layout(config: NetworkConfig) -> Layout:
    """Returns the widths of a valid configuration, where what it leaves open follows from its channels and ratios."""
    widths = config.widths or WidthsConfig()
    channels, levels = config.channels, len(config.channels) - 1
    bottleneck = config.decoder_bottleneck
    if bottleneck is None:
        decoder: tuple[tuple[int, ...], ...] = tuple((c, c) for c in channels[:-1])
    else:
        inner = map(width, channels, stage_ratios(bottleneck, levels))
        decoder = tuple((k, k, c) for c, k in zip(channels, inner, strict=False))
    kernels = 2 if bottleneck is None else 1
    return Layout(
        encoder=tuple(zip(widths.encoder or channels, channels, strict=True)),
        encoder_ranks=widths.encoder_ranks or ((PLAIN, PLAIN),) * (levels + 1),
        skip=_skips(config),
        up=widths.up or channels[:-1],
        decoder=widths.decoder or decoder,
        decoder_ranks=widths.decoder_ranks or ((PLAIN,) * kernels,) * levels,
    )


def _skips(config: NetworkConfig) -> tuple[int, ...]:
    channels, spec = config.channels[:-1], config.skip_bottleneck
    if spec is None:
        return channels
    ratios = stage_ratios(spec, len(channels))
    return tuple(
        c if projects_back(ratio, config.merge) else width(c, ratio) for c, ratio in zip(channels, ratios, strict=True)
    )
