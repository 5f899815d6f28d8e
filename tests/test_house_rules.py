"""Size of constructors, and loading without executing: what a linter does not hold."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("seg", "scripts", "tests")
MAX_ARGUMENTS = 7


def problems(source: str) -> list[str]:
    """Names what breaks the rules in the text of one module."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found += [
                f"{node.name} must take at most {MAX_ARGUMENTS} arguments, got {count}; group what belongs together."
                for count in map(arguments, node.body)
                if count > MAX_ARGUMENTS
            ]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load" and not loads_weights_only(node):
            found.append(f"torch.load in line {node.lineno} must have weights_only=True, or a file's code would run.")
    return found


def loads_weights_only(call: ast.Call) -> bool:
    return any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords)


def arguments(node: ast.stmt) -> int:
    """Counts the arguments of a constructor, self left out; 0 for any other statement.

    Fields of a dataclass do not count: a configuration group is named field by field, by keyword alone.
    """
    if not isinstance(node, ast.FunctionDef) or node.name not in ("__init__", "__new__"):
        return 0
    parts = node.args
    plain = len(parts.posonlyargs) + len(parts.args) + len(parts.kwonlyargs) - 1
    return plain + (parts.vararg is not None) + (parts.kwarg is not None)


def files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_file_keeps_the_rules() -> None:
    assert files()
    found = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in files()
        for problem in problems(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def constructor(count: int, star: str = "") -> str:
    names = ", ".join(f"a{i}" for i in range(count))
    return f"class C:\n    def __init__(self, {names}{star}): ...\n"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (constructor(7), []),
        (constructor(8), ["C must take at most 7 arguments, got 8; group what belongs together."]),
        (constructor(7, ", **rest"), ["C must take at most 7 arguments, got 8; group what belongs together."]),
        (constructor(6, ", *, b, c"), ["C must take at most 7 arguments, got 8; group what belongs together."]),
        (constructor(8).replace("__init__", "forward"), []),
        ("torch.load(path, weights_only=True)", []),
        ("torch.load(p)", ["torch.load in line 1 must have weights_only=True, or a file's code would run."]),
        (
            "\ntorch.load(p, weights_only=False)",
            ["torch.load in line 2 must have weights_only=True, or a file's code would run."],
        ),
    ],
)
def test_the_rules_themselves(source: str, found: list[str]) -> None:
    assert problems(source) == found
