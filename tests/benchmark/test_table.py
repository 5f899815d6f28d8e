from __future__ import annotations

from seg.benchmark.table import device_tables, labels

TIMES = {"median": 0.123456, "q1": 0.1, "q3": 1234.5}
ROW = {
    "name": "full",
    "precision": "bf16",
    "memory_format": "channels_last_3d",
    "latency_ms": TIMES,
    "throughput_voxels_per_s": {"median": 1.5e6, "q1": 1e6, "q3": 2e6},
    "training_step_ms": TIMES,
    "prediction_s": None,
    "peak_memory_inference_mib": None,
    "peak_memory_training_mib": 512.4,
    "parameters": 5_600_000,
    "macs": 19_100_000_000,
    "checkpoint_mib": 21.37,
    **{f"{name}_ratio": TIMES for name in ("latency", "throughput", "training_step")},
    "prediction_ratio": None,
}
ENTRY = {
    "device": "A processor",
    "threads": 2,
    "precision": "bf16",
    "memory_format": "channels_last_3d",
    "patch_size": [40, 56, 40],
    "batch": 2,
    "rounds": 15,
    "prediction_rounds": 3,
    "prediction_cases": 8,
    "load_1min": 0.5,
    "baseline": "full",
    "variants": [ROW, ROW | {"name": "narrow"}],
}


def test_tables_hold_what_was_measured_and_say_what_was_not() -> None:
    head, first, sizes, compared = device_tables(ENTRY).split("\n\n")
    assert all(part in head for part in ("A processor", "40 x 56 x 40", "15 rounds", "8 case(s)", "load 0.50"))
    assert [cell for cell in first.splitlines()[1].split("  ") if cell] == [
        "full (bf16, channels_last_3d)",
        "0.123 [0.1, 1234]",
        "1.5 [1, 2]",
        "0.123 [0.1, 1234]",
        "not measured",
    ]
    assert sizes.splitlines()[1].split()[3:] == ["not", "measured", "512", "5.6", "19.1", "21.4"]
    assert "load not known before" in device_tables(ENTRY | {"load_1min": None})
    assert len(compared.splitlines()) == 2
    assert len(device_tables(ENTRY | {"variants": [ROW]}).split("\n\n")) == 3


def test_the_least_times_stand_beside_their_share_of_the_time_taken() -> None:
    floors = {"latency_floor_ms": 0.05, "latency_floor_fused_ms": 0.025, "training_step_floor_ms": 0.1}
    row = ROW | floors | {"training_step_floor_fused_ms": 0.123456}
    entry = ENTRY | {"ceilings": {"bf16": {"gflops": 1234.5, "gb_per_s": 31.6}}, "variants": [row]}
    _, _, _, least = device_tables(entry).split("\n\n")
    head, line = least.splitlines()
    assert "bf16: 1234 GFLOP/s, 32 GB/s" in head
    assert [cell.strip() for cell in line.split("  ") if cell] == [
        "full (bf16, channels_last_3d)",
        "0.05 (41 % of the time)",
        "0.025 (20 % of the time)",
        "0.1 (81 % of the time)",
        "0.123 (100 % of the time)",
    ]


def test_rows_of_other_kernels_all_name_their_own() -> None:
    own = ROW | {"kernels": "seg"}
    peer = ROW | {"name": "dynunet", "precision": "fp32", "memory_format": "contiguous", "kernels": "seg"}
    assert labels([own, peer]) == ["full (bf16, channels_last_3d)", "dynunet (fp32, contiguous)"]
    assert labels([own, peer, peer | {"kernels": "torch"}]) == [
        "full (bf16, channels_last_3d, kernels of seg)",
        "dynunet (fp32, contiguous, kernels of seg)",
        "dynunet (fp32, contiguous, kernels of torch)",
    ]
