"""What the files of a run directory are called, and the notice that goes with every result."""

import re
from pathlib import Path

CONFIG_FILE = "config.yaml"
MODEL_FILE = "model.json"
ENVIRONMENT_FILE = "environment.json"
SCORING_FILE = "scoring_environment.json"
PICTURE_FILE = "predictions.png"
METRICS_FILE = "metrics.csv"
GENERALISATION_FILE = "generalisation.json"
PRESERVATION_FILE = "preservation.json"
WEIGHTS_FILE = "checkpoints/weights.pt"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
PREDICTIONS = "predictions"
MODEL_VERSION = 1
ENVIRONMENT_VERSION = 1
NOTICE = "Research software. Not a medical device; not for clinical use."


def fold_directories(root: Path) -> dict[int, Path]:
    """Finds the run directories of a cross-validation, by fold; none where the folder is a run or something else."""
    if (root / CONFIG_FILE).is_file() or not root.is_dir():
        return {}
    found = {int(path.name[5:]): path for path in root.iterdir() if re.fullmatch(r"fold_[0-9]+", path.name)}
    return dict(sorted(found.items()))
