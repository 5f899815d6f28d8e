"""From an exported network to one whose convolutions compute in int8, quantised after training."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

from seg.errors import ConfigError, Problem
from seg.inference.engines import IMAGE, Voxels, block_telemetry, openvino_core

INSTALL_INT8 = "pip install 'segnarrow[export,int8]'"
KEPT = ("MVN", "Add", "Interpolate")
"""Operators, as OpenVINO names them, whose inputs stay fp32: norms, sums and upsampling gain no speed by int8.

With the inputs of its norms in int8 too, a hippocampus network disagreed with itself in fp32 on 0.44 % of voxels in
place of 0.32 %, on ten training crops. The scale of a filter in front of an instance norm, which is free to choose,
does not matter then: weights have a scale for each filter, and what the norm reads has none.
"""
PRESET = "mixed"
"""Ranges of activations need not be symmetric, which those behind a leaky ReLU are not: 0.26 % in place of 0.32 %."""
OVERFLOW_FIX = "enable"
"""Weights take 7 bits, as sums of products of 8 would overflow 16 bits on processors without VNNI."""
INT8_SETS = ("avx2", "avx_vnni", "avx512_f", "avx512_vnni", "amx_int8")
"""Instruction sets that decide how int8 is computed."""


def int8_kernels(sets: Iterable[str]) -> set[str]:
    """Returns those of a processor's instruction sets that decide how it computes int8.

    `avx_vnni` does so where there is no `avx512_vnni`, which does the same on wider registers.
    """
    found = set(INT8_SETS).intersection(sets)
    return found - {"avx_vnni"} if "avx512_vnni" in found else found


def check_quantiser() -> None:
    """Checks that the package that quantises can be imported.

    Raises:
        ConfigError: It is not installed.
    """
    if find_spec("nncf") is None:
        rule, value = "must be installed for int8", "an installation without"
        raise ConfigError(Problem("nncf", "missing", rule, value, INSTALL_INT8))


def quantise(source: Path, crops: Sequence[Voxels], target: Path) -> None:
    """Quantises the convolutions of a network, by the ranges that its activations have on training crops.

    Args:
        source: XML file of OpenVINO with its weights beside it.
        crops: Normalised training crops (B, C, X, Y, Z), one at least.
        target: XML file to write, with its weights beside it.

    Raises:
        ConfigError: The package that quantises is not installed.
    """
    check_quantiser()
    block_telemetry()  # nncf sends events by OpenVINO's module, and by a stub where that cannot be imported
    import nncf
    import openvino

    # By its own function, handlers that other loggers share would be silent below the level too.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # progress bars
        quantised = nncf.quantize(
            openvino_core().read_model(source),
            nncf.Dataset(crops, lambda crop: {IMAGE: crop}),
            subset_size=len(crops),
            preset=nncf.QuantizationPreset(PRESET),
            ignored_scope=nncf.IgnoredScope(types=list(KEPT), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix(OVERFLOW_FIX)),
        )
    openvino.save_model(quantised, target, compress_to_fp16=False)
