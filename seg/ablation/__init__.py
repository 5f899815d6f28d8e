"""The ablation: a grid of variants, its trials, what they preserve, statistics and report."""
