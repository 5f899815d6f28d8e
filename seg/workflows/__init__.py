"""What the commands do from start to end: train, predict, evaluate."""
