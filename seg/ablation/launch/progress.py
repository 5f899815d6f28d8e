"""The state of a study while it runs: on a terminal a table that is redrawn, elsewhere a line per event."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, TextIO

from seg.ablation.launch.tasks import Event, last_line
from seg.words import fixed, in_time

if TYPE_CHECKING:
    from seg.ablation.store import StoredTrial

MOST_LINES = 8
UP_AND_CLEAR = "\x1b[{}F\x1b[J"


class ProgressTable:
    """Done, running and failed trials, the best variant so far, and the time left.

    Args:
        trials: Variants by the id of each trial, of those that are left to run and of those that are done.
        parallel: Trials that run at once, for the time left.
        stream: Where it is shown.
        expected: Seconds that trials are expected to take, by id, until a trial is finished; may be empty.
        after: Seconds that what follows the trials is expected to take.
    """

    def __init__(
        self,
        trials: Mapping[str, str],
        parallel: int,
        stream: TextIO,
        expected: Mapping[str, float] | None = None,
        *,
        after: float = 0.0,
    ) -> None:
        self.trials = trials
        self.expected = expected or {}
        self.after = after
        self.parallel = max(1, parallel)
        self.stream = stream
        self._results: dict[str, StoredTrial] = {}
        self._running: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._height = 0

    def done_before(self, results: dict[str, StoredTrial]) -> None:
        """Takes over trials that earlier starts have finished."""
        self._results.update(results)
        self._show(f"{len(results)} of {len(self.trials)} trials are done already")

    def update(self, event: Event, result: StoredTrial | None = None) -> None:
        """Shows what became of a trial, with its result where it is finished."""
        self._running.pop(event.id, None)
        self._failed.pop(event.id, None)
        if event.state == "running":
            self._running[event.id] = time.monotonic()
        elif event.state == "failed":
            self._failed[event.id] = last_line(event.error)
        elif result is not None:
            self._results[event.id] = result
        self._show(self._sentence(event, result))

    def _sentence(self, event: Event, result: StoredTrial | None) -> str:
        words = [event.id, event.state]
        if result is not None and event.state == "finished":
            words += [f"Dice {fixed(result.mean_dice, 4)}", in_time(result.record.total_seconds)]
        if event.attempt > 1 and event.state == "running":
            words.append(f"attempt {event.attempt}")
        if event.error is not None:
            words.append(last_line(event.error))
        return "  ".join(words)

    def _show(self, sentence: str) -> None:
        if not self.stream.isatty():
            self.stream.write(f"{time.strftime('%H:%M:%S')}  {sentence}  |  {'  '.join(self._summary())}\n")
            self.stream.flush()
            return
        lines = [sentence, "  ".join(self._summary()), *self._rows()]
        before = UP_AND_CLEAR.format(self._height) if self._height else ""
        self.stream.write(before + "\n".join(_cut(line) for line in lines) + "\n")
        self.stream.flush()
        self._height = len(lines)

    def _summary(self) -> list[str]:
        words = [f"{len(self._results)}/{len(self.trials)} done", f"{len(self._running)} running"]
        words.append(f"{len(self._failed)} failed")
        if (best := self._best()) is not None:
            words.append(f"best {best[1]} {best[0]:.4f}")
        if (left := self._seconds_left()) is not None:
            words.append(f"left {in_time(left)}")
        return words

    def _rows(self) -> list[str]:
        now = time.monotonic()
        rows = [f"  running  {name}  {in_time(now - since)}" for name, since in self._running.items()]
        rows += [f"  failed   {name}  {error}" for name, error in self._failed.items()]
        kept = MOST_LINES - 1
        return rows if len(rows) <= MOST_LINES else [*rows[:kept], f"  and {len(rows) - kept} more"]

    def _best(self) -> tuple[float, str] | None:
        """Returns the highest mean Dice over the finished trials of one variant, and the name of the variant."""
        scores: dict[str, list[float]] = {}
        for result in self._results.values():
            if result.mean_dice is not None:
                scores.setdefault(result.record.variant, []).append(result.mean_dice)
        return max(((fmean(values), name) for name, values in scores.items()), default=None)

    def _seconds_left(self) -> float | None:
        """Estimates the seconds to the end of the study, from finished trials of the same variant, else of all."""
        taken: dict[str, list[float]] = {}
        for result in self._results.values():
            if seconds := result.record.total_seconds:
                taken.setdefault(result.record.variant, []).append(seconds)
        left = [name for name in self.trials if name not in self._results and name not in self._failed]
        if taken:
            overall = fmean(value for values in taken.values() for value in values)
            expected = {name: fmean(taken.get(self.trials[name], [overall])) for name in left}
        elif self.expected.keys() >= set(left):
            expected = {name: self.expected[name] for name in left}
        else:
            return None
        now = time.monotonic()
        for name, since in self._running.items():
            expected[name] = max(0.0, expected[name] - (now - since))
        return max(max(expected.values(), default=0.0), sum(expected.values()) / self.parallel) + self.after


def _cut(line: str) -> str:
    """Cuts a line to the width of the terminal: a broken line would stay when the table is redrawn."""
    width = shutil.get_terminal_size((120, 24)).columns - 1
    return line if len(line) <= width else line[: width - 3] + "..."
