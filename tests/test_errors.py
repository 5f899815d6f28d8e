"""The sentence of a problem."""

from __future__ import annotations

from seg.errors import Problem, SegError, escaped


def test_a_problem_is_said_in_one_sentence() -> None:
    problem = Problem("loss.smooth", "range", "must be > 0", "0", "give a number")
    assert str(problem) == "loss.smooth must be > 0, got 0; give a number."


def test_a_value_that_is_cut_short_stays_so() -> None:
    assert str(Problem("x", "type", "must be short", "'aaa...")) == "x must be short, got 'aaa..."


def test_a_plain_text_of_another_process_is_a_problem_of_its_own() -> None:
    (problem,) = SegError("It broke.").problems  # type: ignore[arg-type]
    assert (problem.kind, str(problem)) == ("other", "It broke.")


def test_control_characters_are_written_out() -> None:
    problem = Problem("--output", "folder", "must be a folder", "a\x1b[2J\nerror: all\udcff lost", file="b\x07")
    assert str(problem) == r"b\x07: --output must be a folder, got a\x1b[2J\nerror: all\udcff lost."
    assert escaped("ü\t\r\n", keep="\n") == "ü\\t\\r\n"
