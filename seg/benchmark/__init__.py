"""Speed, memory and size of networks, measured side by side."""

from seg.benchmark.measure import Settings, measure_device, present_devices
from seg.benchmark.prediction import held_out_images
from seg.benchmark.run import benchmark
from seg.benchmark.subjects import Subject

__all__ = ["Settings", "Subject", "benchmark", "held_out_images", "measure_device", "present_devices"]
