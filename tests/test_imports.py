"""Imports point one way: each module of `seg` belongs to a layer and imports from lower layers only."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up. A name is a module or package directly below `seg`; those of one layer are siblings.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "errors",
        "config files peak_memory words",
        "networks data evaluation hardware locks",
        "runs",
        "planning inference",
        "training",
        "benchmark",
        "figures",
        "workflows",
        "ablation",
        "cli",
        "scripts",
    )
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}

# Third-party packages that a module may import at most; modules that are not named here may import any dependency.
ALLOWED = {
    "errors": frozenset[str](),
    "config": frozenset({"pydantic", "yaml"}),
    "files": frozenset({"pydantic"}),
    "words": frozenset[str](),
    "networks": frozenset({"torch"}),
    "cli": frozenset({"pydantic"}),
    "scripts": frozenset[str](),
}

# `lightning` bundles what the project does not use, and releases of it were compromised; pytorch_lightning is enough.
FORBIDDEN = frozenset({"lightning", "pickle", "cloudpickle", "dill"})

DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}


def imported(source: str, package: str) -> Iterator[str]:
    """Yields the dotted name of all that a module imports, in functions and for type checkers too.

    `package` is the package that relative imports start from. `from seg import x` gives `seg.x`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def violations(name: str, source: str, package: str = "seg") -> list[str]:
    """Names every import of the module or package `name` that breaks the rule."""
    if name not in LEVELS:
        return [f"seg.{name} is in no layer; add it to LAYERS in tests/test_imports.py."]
    found = []
    for target in imported(source, package):
        top, _, rest = target.partition(".")
        if top == "seg":
            other = rest.split(".")[0]
            if other == name or other.startswith("__"):
                continue
            if LEVELS.get(other, len(LAYERS)) >= LEVELS[name]:
                found.append(f"{name} must import from lower layers only, got {target}.")
        elif top in FORBIDDEN:
            found.append(f"{name} must not import {top}.")
        elif top not in sys.stdlib_module_names and top not in ALLOWED.get(name, {top}):
            found.append(
                f"{name} must import {', '.join(['the standard library', *sorted(ALLOWED[name])])} only, got {target}."
            )
    return found


def modules() -> list[tuple[str, Path]]:
    """Pairs each Python file of seg/ and scripts/ with its name in LAYERS."""
    pairs = [
        (path.relative_to(ROOT / "seg").parts[0].removesuffix(".py"), path)
        for path in sorted((ROOT / "seg").rglob("*.py"))
        if path != ROOT / "seg" / "__init__.py"
    ]
    return pairs + [("scripts", path) for path in sorted((ROOT / "scripts").glob("*.py"))]


def test_every_import_points_down() -> None:
    found = []
    for name, path in modules():
        package = ".".join(path.relative_to(ROOT).parent.parts)
        found += [
            f"{path.relative_to(ROOT)}: {problem}"
            for problem in violations(name, path.read_text(encoding="utf-8"), package)
        ]
    assert found == []


def test_the_root_of_the_package_imports_nothing() -> None:
    # `import seg.errors` runs seg/__init__.py first: whatever stood there would reach every layer.
    assert list(imported((ROOT / "seg" / "__init__.py").read_text(encoding="utf-8"), "seg")) == []


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("files", "import torch", "files must import the standard library, pydantic only, got torch."),
        ("networks", "import monai", "networks must import the standard library, torch only, got monai."),
        ("networks", "from seg.data import X", "networks must import from lower layers only, got seg.data.X."),
        ("networks", "from ..runs import E", "networks must import from lower layers only, got seg.runs.E."),
        ("evaluation", "from seg.data import x", "evaluation must import from lower layers only, got seg.data.x."),
        ("evaluation", "from seg import data", "evaluation must import from lower layers only, got seg.data."),
        ("data", "def f():\n    import seg.training", "data must import from lower layers only, got seg.training."),
        ("evaluation", "import seg.unheard_of", "evaluation must import from lower layers only, got seg.unheard_of."),
        ("training", "from lightning import Trainer", "training must not import lightning."),
        ("training", "import pickle", "training must not import pickle."),
        ("new", "", "seg.new is in no layer; add it to LAYERS in tests/test_imports.py."),
    ],
)
def test_a_violation_is_named(name: str, source: str, message: str) -> None:
    package = "seg.networks" if name == "networks" else "seg"
    assert violations(name, source, package) == [message]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("networks", "import math\nimport torch\nfrom torch import nn\nfrom seg.networks.blocks import ConvStage"),
        ("networks", "from .blocks import ConvStage\nfrom . import blocks"),
        ("training", "import pytorch_lightning\nfrom seg.networks import UNet\nfrom seg import __version__"),
        ("scripts", "import sys\nfrom seg.cli import main\nfrom seg.ablation import run"),
    ],
)
def test_what_points_down_is_let_through(name: str, source: str) -> None:
    assert violations(name, source, "seg.networks") == []


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # Packages of clusters and of formats are imported only where one is asked for.
    extras = project["optional-dependencies"]
    declared = project["dependencies"] + extras["cluster"] + extras["formats"]
    names = {re.split(r"[\[<>=~! ]", entry)[0].lower().replace("_", "-") for entry in declared}
    tops = {
        target.split(".")[0]
        for _, path in modules()
        for target in imported(path.read_text(encoding="utf-8"), ".".join(path.relative_to(ROOT).parent.parts))
    }
    third_party = tops - sys.stdlib_module_names - {"seg"}
    wanted = {DISTRIBUTIONS.get(top, top.replace("_", "-")).lower() for top in third_party}
    assert wanted <= names
