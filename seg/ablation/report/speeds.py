"""The speed of a study's variants as it is recorded, speed.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from seg.ablation.report.study import NOT_STATED, DeviceSpeed, damaged, read_record_file

SPEED_FILE = "speed.json"


def read_speed(folder: Path) -> tuple[DeviceSpeed, ...]:
    """Reads ``speed.json``, GPUs first; nothing where speed was not measured.

    Raises:
        RunError: It is damaged or of a newer version.
    """
    path = folder / SPEED_FILE
    if not path.is_file():
        return ()
    content = read_record_file(path, "the speed of a study", "measure speed again")
    try:
        devices = [
            DeviceSpeed(
                about={"device": NOT_STATED, **{key: value for key, value in entry.items() if key != "variants"}}
                | {"kind": str(entry["kind"])},
                variants={str(variant["name"]): dict(variant) for variant in entry["variants"]},
            )
            for entry in content["devices"]
        ]
        for device in devices:
            for name, measures in device.variants.items():
                for key, value in measures.items():
                    if isinstance(value, Mapping):
                        device.spread(name, key)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, "the speed of a study", error) from error
    counts = Counter[str]()
    numbered = []
    for device in sorted(devices, key=lambda device: device.about["kind"] != "cuda"):
        counts[device.slug] += 1
        numbered.append(replace(device, number=counts[device.slug]))
    return tuple(numbered)
