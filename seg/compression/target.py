"""What a smaller network is to cost, as it is written on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from seg.errors import ConfigError, Problem, shown

Kind = Literal["latency", "macs", "parameters"]
EXAMPLE = "an example is latency=0.5, or macs=0.5,0.25"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Shares of the original's cost.

    Attributes:
        kind: What is counted: the time of a pass of one patch, multiply-accumulates, or learned numbers.
        shares: What the steps keep of the original's, each in (0, 1), mild to strong.
    """

    kind: Kind
    shares: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What the steps are called, which are the names of their folders."""
        return tuple(f"{self.kind}_{share:g}" for share in self.shares)


def read_target(text: str, *, name: str = "target") -> Target:
    """Reads a target such as ``latency=0.5`` or ``macs=0.5,0.25``.

    Args:
        text: What is counted, an equals sign, and shares separated by commas.
        name: What the option is called in problems.

    Raises:
        ConfigError: It has another form, counts something else, or a share is no number in (0, 1) or named twice.
    """
    kind, equals, values = text.partition("=")
    if not equals:
        raise ConfigError(Problem(name, "form", "must be KIND=SHARE or KIND=SHARE,SHARE,...", shown(text), EXAMPLE))
    if kind not in get_args(Kind):
        rule = f"must count one of {', '.join(get_args(Kind))}"
        raise ConfigError(Problem(name, "unknown", rule, shown(kind), EXAMPLE))
    shares: list[float] = []
    problems: list[Problem] = []
    for value in values.split(","):
        try:
            share = float(value)
        except ValueError:
            share = float("nan")
        if not 0 < share < 1:
            remedy = "give what is kept, as in 0.5"
            problems.append(Problem(name, "range", "must be shares in (0, 1)", shown(value), remedy))
        elif f"{share:g}" in [f"{one:g}" for one in shares]:  # steps are named so
            problems.append(Problem(name, "repeated", "must name each share once", f"{share:g} twice", "leave one out"))
        shares.append(share)
    if problems:
        raise ConfigError(problems)
    return Target(kind=kind, shares=tuple(sorted(shares, reverse=True)))  # type: ignore[arg-type]  # checked above
