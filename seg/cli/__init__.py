"""Where files and the command line become a configuration, and faults become sentences; imports nothing heavy."""

from seg.cli.ablate_arguments import AblateArguments, parse_ablate
from seg.cli.evaluate_arguments import FolderArguments, RunArguments, parse_evaluate
from seg.cli.plan_arguments import PlanArguments, parse_plan
from seg.cli.predict_arguments import PredictArguments, parse_predict
from seg.cli.running import run
from seg.cli.train_arguments import TrainArguments, parse_train

__all__ = [
    "AblateArguments",
    "FolderArguments",
    "PlanArguments",
    "PredictArguments",
    "RunArguments",
    "TrainArguments",
    "parse_ablate",
    "parse_evaluate",
    "parse_plan",
    "parse_predict",
    "parse_train",
    "run",
]
