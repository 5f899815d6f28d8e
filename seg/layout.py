"""What the files of a run directory are called, and the notice that goes with every result."""

CONFIG_FILE = "config.yaml"
MODEL_FILE = "model.json"
ENVIRONMENT_FILE = "environment.json"
SCORING_FILE = "scoring_environment.json"
PICTURE_FILE = "predictions.png"
WEIGHTS_FILE = "checkpoints/weights.pt"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
PREDICTIONS = "predictions"
MODEL_VERSION = 1
NOTICE = "Research software. Not a medical device; not for clinical use."
