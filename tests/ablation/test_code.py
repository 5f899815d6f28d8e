"""The digest of the code changes with what code does, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg.ablation.code import LEFT_OUT, PACKAGE, ROOTS, closure, digest_of

PLAIN = '''"""Docstring."""

from __future__ import annotations

import logging

LOG = logging.getLogger(__name__)
RATE = 0.5
"""Of what."""


def scaled(x: float) -> float:
    """Scales."""
    if x < 0:
        raise ValueError(f"x must be positive, got {x}.")
    LOG.info("scaled")
    return RATE * x
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "tool"
    files = {
        "__init__.py": "",
        "train.py": "from tool import core\nfrom tool.parts import Part\nfrom tool.draw import show\n",
        "core.py": PLAIN,
        "draw.py": "import tool.colour\nWIDTH = 1\n",
        "colour.py": "RED = 1\n",
        "unused.py": "N = 1\n",
        # A package that gives its members when they are asked for.
        "parts/__init__.py": (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tool.parts.one import Part\n"
            "    from tool.parts.two import Other\ndef __getattr__(name): ...\n"
        ),
        "parts/one.py": "from . import three\nfrom ..late import late\nclass Part: size = 1\n",
        "parts/two.py": "class Other: size = 1\n",
        "parts/three.py": "X = 1\n",
        "late.py": "def late():\n    from tool.deep import D\n    return D\n",
        "deep.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tool.unused\nD = 1\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def digest(package: Path) -> str:
    return digest_of(package, ("tool.train",), ("tool.draw",))


def test_imports_are_followed_to_where_a_name_is_defined(package: Path) -> None:
    found = closure(package, ("tool.train",), ("tool.draw",))
    assert set(found) == {"tool.train", "tool.core", "tool.parts.one", "tool.parts.three", "tool.late", "tool.deep"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Docstring."""', '"""Another one."""'),
        ('"""Scales."""', '"""Multiplies."""  # a comment'),
        ('"""Of what."""\n', ""),
        ("    return RATE * x", "\n    # why\n    return (RATE\n            * x)"),
        ("x must be positive, got {x}.", "x must be above 0, got {x!r}; choose another."),
        ('    LOG.info("scaled")\n', '    LOG.warning("scaled %s", x)\n    LOG.debug("again")\n'),
    ],
    ids=["module docstring", "docstring and comment", "attribute docstring", "layout", "error message", "announcement"],
)
def test_words_and_layout_do_not_change_it(package: Path, old: str, new: str) -> None:
    before = digest(package)
    assert old in PLAIN
    (package / "core.py").write_text(PLAIN.replace(old, new))
    assert digest(package) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.5", "0.25"), ("RATE * x", "RATE + x"), ("x < 0", "x <= 0"), ("ValueError", "KeyError"), ("float)", "int)")],
)
def test_what_code_does_changes_it(package: Path, old: str, new: str) -> None:
    before = digest(package)
    assert old in PLAIN
    (package / "core.py").write_text(PLAIN.replace(old, new))
    assert digest(package) != before


@pytest.mark.parametrize("name", ["parts/one.py", "parts/three.py", "late.py", "deep.py"])
def test_every_module_that_is_reached_counts(package: Path, name: str) -> None:
    before = digest(package)
    path = package / name
    path.write_text(path.read_text().replace("1", "2").replace("return D", "return -D"))
    assert digest(package) != before


@pytest.mark.parametrize("name", ["draw.py", "colour.py", "unused.py", "parts/two.py", "parts/__init__.py"])
def test_other_modules_do_not_count(package: Path, name: str) -> None:
    before = digest(package)
    path = package / name
    path.write_text(path.read_text().replace("1", "2") + "\nELSE = 3\n")
    assert digest(package) == before


def test_what_trains_and_predicts_is_reached_and_what_draws_is_not() -> None:
    found = set(closure(PACKAGE, ROOTS, LEFT_OUT))
    assert {
        "seg.training.callbacks",
        "seg.data.augmentation.spatial",
        "seg.data.normalization",
        "seg.training.fit",
        "seg.inference.windows",
        "seg.training.losses",
        "seg.evaluation.metrics",
        "seg.training.muon",
        "seg.networks.norm",
        "seg.inference.cleaning",
    } <= found
    assert not [name for name in found if name.startswith(("seg.cli", "seg.figures", "seg.planning", "seg.ablation"))]
    assert not [
        name
        for name in LEFT_OUT
        if not (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py").is_file()
        and not (PACKAGE.parent / name.replace(".", "/")).is_dir()
    ]
