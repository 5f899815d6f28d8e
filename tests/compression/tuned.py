"""`seg compress` with other ways to choose what is cut: each way makes a network of one latency, tuned and scored."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from seg.compression import TUNE_STEPS, search
from seg.compression.certificate import ORIGINAL, Certificate
from seg.compression.compress import compress
from seg.compression.target import Target, read_target
from seg.errors import ConfigError
from seg.files import table_text, write_text
from seg.inference.engines import Engine
from tests.compression.alternatives import METHODS, Row, chosen_by

COMMAND = "compress"
"""The command as it is, which weighs channels and 1x1 against one another; `METHODS` cut one kind alone."""


def compare(
    run_dir: Path,
    output: Path,
    target: Target,
    *,
    engine: Engine = "torch",
    methods: Sequence[str] = (COMMAND, *METHODS),
    tune_steps: int = TUNE_STEPS,
    data_root: Path | None = None,
) -> Iterator[Row]:
    """Yields what a trained network loses where each method chooses, for one target.

    All methods work on one copy of the run, whose ledger counts their looks: each but the first is a later one.

    Args:
        run_dir: Finished run of one fold.
        output: Folder of the copy and of the smaller runs, one of each method.
        target: What is kept.
        engine: What runs the networks where they are scored and timed.
        methods: Methods, `COMMAND` among them or not.
        tune_steps: Steps of tuning at most.
        data_root: Folder of the data set, where it moved.

    Yields:
        A row for each share and method: difference of Dice of each class on the held-out patients, its bound, and what
        the network needs.
    """
    original = output / "original"
    if not original.is_dir():
        shutil.copytree(run_dir, original)
    for method in methods:
        with ExitStack() as changed:
            if method != COMMAND:
                kinds = changed.enter_context(chosen_by(method, solved=True))
                for name in ("KINDS", "DEFAULT"):
                    changed.enter_context(patch.object(search, name, kinds))
            try:
                certificate = compress(
                    original,
                    output / method / "small",
                    target=target,
                    engine=engine,
                    tune_steps=tune_steps,
                    data_root=data_root,
                )
                rows = list(_rows(certificate))
            except ConfigError as error:
                if any(problem.path != "target" for problem in error.problems):
                    raise
                # A target that one method cannot reach ends none of the others.
                rows = [{"verdict": str(error)}]
        for row in rows:
            yield {"run": run_dir.name, "method": method} | row


def _rows(certificate: Certificate) -> Iterator[Row]:
    whole = certificate.costs[ORIGINAL]
    for result in certificate.steps:
        cost = certificate.costs[result.step.name]
        row: Row = {
            "look": certificate.look,
            "step": result.step.name,
            "macs": cost.macs / whole.macs,
            "parameters": cost.parameters,
        }
        row |= {"latency_ratio": cost.latency_ratio or float("nan"), "verdict": result.verdict}
        for one in result.classes:
            row |= {f"difference_{one.name}": one.difference, f"bound_{one.name}": one.bound}
        yield row


def main() -> None:
    """Runs the comparison that the command line asks for, and writes a row for each network as it is made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, metavar="DIR", help="finished run of one fold")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of runs and of compared.csv")
    parser.add_argument("--target", required=True, metavar="KIND=SHARE", help="what is kept, as seg compress takes it")
    parser.add_argument("--engine", choices=("torch", "openvino", "onnxruntime"), default="torch")
    parser.add_argument("--tune_steps", type=int, default=TUNE_STEPS, metavar="N", help="steps of tuning at most")
    parser.add_argument("--data_root", type=Path, metavar="DIR", help="folder of the data set, where it moved")
    parser.add_argument(
        "--methods", nargs="+", choices=(COMMAND, *METHODS), default=(COMMAND, *METHODS), help="of these methods alone"
    )
    options = parser.parse_args()
    target = read_target(options.target)
    rows: list[Row] = []
    for row in compare(
        options.run_dir,
        options.output,
        target,
        engine=options.engine,
        methods=options.methods,
        tune_steps=options.tune_steps,
        data_root=options.data_root,
    ):
        rows.append(row)
        write_text(options.output / "compared.csv", table_text(rows))
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)


if __name__ == "__main__":
    main()
