"""How often the certificate errs, on differences between patients that were found in real networks.

Patients are drawn with replacement from those of each fold, and each class is moved so that its true mean is known. The
bound errs where it lies above that mean: where the mean is minus the margin, the class would pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seg.compression.certificate import ORIGINAL, lower_bound, patient_differences
from seg.evaluation.differences import read_paired, split_folds
from seg.evaluation.scores import CASES_FILE, CaseScore, read_cases
from seg.files import table_text, write_text

Array = npt.NDArray[np.float64]
DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """What simulated certificates say of one class.

    Attributes:
        class_name: The class.
        patients: Patients of a certificate.
        folds: Folds that these are of.
        sd: Standard deviation of the differences that were found, within folds.
        skewness: Their third standardised moment; below 0 where few patients lose much.
        error: Share of certificates whose lower bound is above the true mean; 0.025 is asked for.
        coverage: Share of two-sided 95 % intervals that hold the true mean.
    """

    class_name: str
    patients: int
    folds: int
    sd: float
    skewness: float
    error: float
    coverage: float


def differences(original: Sequence[CaseScore], changed: Sequence[CaseScore]) -> dict[str, list[Array]]:
    """Gives the differences of Dice between two networks, by class, for the patients of each fold."""
    runs = read_paired({ORIGINAL: split_folds([original]), "changed": split_folds([changed])}, ORIGINAL)
    found: dict[str, list[Array]] = {}
    for pair, before in runs[ORIGINAL].items():
        for row, (_, name) in enumerate(before.classes):
            _, own, scored = patient_differences(before, runs["changed"][pair], row)
            if scored.any():
                found.setdefault(name, []).append(own)
    return found


def simulate(folds: Sequence[Array], *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Draws certificates of one class, of as many patients as there are, whose true mean difference is 0.

    Args:
        folds: Differences of the patients of each fold.
        draws: How many are drawn.
        seed: Seed of the draws.

    Returns:
        How often the lower bound is above 0, and how often 0 is within the two-sided interval, as shares.
    """
    random = np.random.default_rng(seed)
    centred = [own - own.mean() for own in folds]
    errors = covered = 0
    for _ in range(draws):
        mean, _, _, bound = lower_bound([random.choice(own, len(own)) for own in centred])
        assert mean is not None
        assert bound is not None
        errors += bound > 0
        covered += bound <= 0 <= 2 * mean - bound
    return errors / draws, covered / draws


def rows(original: Sequence[CaseScore], changed: Sequence[CaseScore], *, draws: int = DRAWS) -> Iterator[Row]:
    """Yields for each class a row of all folds together, and one of each fold by itself where there are several."""
    for name, folds in differences(original, changed).items():
        designs = [folds, *([[own] for own in folds] if len(folds) > 1 else [])]
        for design in designs:
            centred = np.concatenate([own - own.mean() for own in design])
            _, sd, _, _ = lower_bound(design)
            error, coverage = simulate(design, draws=draws)
            yield Row(
                class_name=name,
                patients=len(centred),
                folds=len(design),
                sd=float(sd or 0.0),
                skewness=float((centred**3).mean() / (centred**2).mean() ** 1.5),
                error=error,
                coverage=coverage,
            )


def main() -> None:
    """Simulates certificates for the differences between two networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, of in (("original", "of the original"), ("changed", "of the changed network")):
        words = f"scored run directories {of}, one of each fold"
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True, metavar="DIR", help=words)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="CSV file, a row for each class")
    args = parser.parse_args()
    sides = (
        [score for path in paths for score in read_cases(path / CASES_FILE)] for paths in (args.original, args.changed)
    )
    write_text(args.output, table_text([asdict(row) for row in rows(*sides)]))


if __name__ == "__main__":
    main()
