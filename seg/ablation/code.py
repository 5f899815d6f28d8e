"""A digest of the code that decides the weights and the predictions of a run.

It follows imports from the modules that train and score, without running them, and hashes what the found modules do:
their syntax trees without docstrings, comments, layout and the words of errors and announcements. So a changed number
changes the digest and a changed sentence does not.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
ROOTS = ("seg.training.fit", "seg.workflows.evaluate")
"""Modules from which imports are followed: from a configuration to weights, and from weights to predictions."""
LEFT_OUT = (
    "seg.cli",
    "seg.config",  # its values are in the configuration's own digest
    "seg.errors",
    "seg.evaluation.scores",
    "seg.evaluation.summary",
    "seg.figures",
    "seg.files",
)
"""Modules and packages that write, draw or summarise: neither weights nor predictions depend on them."""


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Returns the digest of the code as it was when a process first asked: later edits do not change what is loaded."""
    return digest_of(PACKAGE, ROOTS, LEFT_OUT)


def digest_of(package: Path, roots: tuple[str, ...], left_out: tuple[str, ...] = ()) -> str:
    """Hashes all modules that can be reached.

    Args:
        package: Folder of the package.
        roots: Dotted names of the modules to start from.
        left_out: Modules and packages that are not followed.

    Returns:
        SHA-256 in hex; it is the same for every version of Python that can parse the modules.
    """
    digest = hashlib.sha256()
    for name, tree in sorted(closure(package, roots, left_out).items()):
        digest.update(json.dumps([name, _plain(tree)]).encode())
    return digest.hexdigest()


def closure(package: Path, roots: tuple[str, ...], left_out: tuple[str, ...] = ()) -> dict[str, ast.Module]:
    """Finds the modules that imports lead to, in functions too, for type checkers not.

    A name that a package only passes on leads to the module that defines it, so one function of a package does not
    bring in all others.

    Returns:
        Syntax trees by dotted name.
    """
    reader = _Reader(package)
    found: dict[str, ast.Module] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        tree = reader.tree(name)
        if tree is None or name in found or any(name == out or name.startswith(f"{out}.") for out in left_out):
            continue
        found[name] = tree
        for base, member, _ in _imports(tree, name, reader.is_package(name)):
            waiting.append(reader.origin(base, member))
    return found


class _Reader:
    """Reads modules of one package by their dotted names."""

    def __init__(self, package: Path) -> None:
        self.root = package.parent
        self.name = package.name
        self._trees: dict[Path, ast.Module] = {}

    def tree(self, name: str) -> ast.Module | None:
        """Returns a module's syntax tree; None where it is none of the package."""
        path = self._path(name)
        if path is None:
            return None
        if path not in self._trees:
            self._trees[path] = ast.parse(path.read_text(encoding="utf-8"))
        return self._trees[path]

    def is_package(self, name: str) -> bool:
        """Whether a name is that of a package."""
        path = self._path(name)
        return path is not None and path.name == "__init__.py"

    def origin(self, base: str, member: str | None) -> str:
        """Returns the module in which ``from base import member`` ends."""
        if member is None:
            return base
        if self._path(f"{base}.{member}") is not None:
            return f"{base}.{member}"
        tree = self.tree(base)
        if tree is not None and self.is_package(base):
            # Those for type checkers too: they name what a lazy package gives.
            for source, name, bound in _imports(tree, base, True, typing=True):
                if bound == member:
                    return self.origin(source, name)
        return base

    def _path(self, name: str) -> Path | None:
        parts = name.split(".")
        if parts[0] != self.name:
            return None
        stem = self.root.joinpath(*parts)
        candidates = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
        return next((path for path in candidates if path.is_file()), None)


def _imports(
    tree: ast.AST, module: str, is_package: bool, *, typing: bool = False
) -> Iterator[tuple[str, str | None, str]]:
    """Yields what is imported: the module, the member (or None) and the name it is bound to."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((base, alias.name, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing:
            for child in node.orelse:
                yield from _imports(ast.Module([child], []), module, is_package)
        else:
            yield from _imports(node, module, is_package, typing=typing)


def _plain(value: Any, *, worded: bool = False) -> Any:
    """Turns a syntax tree into lists that no layout, docstring or version of Python changes.

    Args:
        value: A node, a list of nodes, or what a node holds.
        worded: Whether this is within the words of an error, whose texts are left out.
    """
    if isinstance(value, list):
        return [_plain(item, worded=worded) for item in value if not _says_only(item)]
    if not isinstance(value, ast.AST):
        return repr(value)
    worded = worded or isinstance(value, ast.Raise)
    if worded and (isinstance(value, ast.JoinedStr) or _is_text(value)):
        return "text"
    fields = [(name, item) for name, item in ast.iter_fields(value) if name not in ("ctx", "kind", "type_comment")]
    # Later versions of Python add fields that are empty in older code.
    return [
        type(value).__name__,
        *([name, _plain(item, worded=worded)] for name, item in fields if item is not None and item != []),
    ]


def _says_only(node: object) -> bool:
    """Whether a statement is a docstring, or an announcement to the log."""
    if not isinstance(node, ast.Expr):
        return False
    return _is_text(node.value) or (
        isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and isinstance(node.value.func.value, ast.Name)
        and node.value.func.value.id == "LOG"
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
