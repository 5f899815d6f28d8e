"""Small, fast 3-D U-Nets for medical image segmentation, and the ablation of their 1x1 bottlenecks.

The functions and classes below are imported when they are first used, so that ``import seg`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg.api import ablate, certify, compress, evaluate, export, load_run, plan, predict, train, widths
    from seg.networks.bottleneck import DecoderBottleneck, SkipBottleneck
    from seg.networks.unet import UNet

__version__ = "0.1.0"
__all__ = [
    "DecoderBottleneck",
    "SkipBottleneck",
    "UNet",
    "ablate",
    "certify",
    "compress",
    "evaluate",
    "export",
    "load_run",
    "plan",
    "predict",
    "train",
    "widths",
]
_HOMES = {
    "UNet": "seg.networks.unet",
    "DecoderBottleneck": "seg.networks.bottleneck",
    "SkipBottleneck": "seg.networks.bottleneck",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'seg' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "seg.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
