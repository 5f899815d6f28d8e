"""What the files of a study directory have in common: names, versions, text cells; links are refused everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from seg.errors import Problem, RunError
from seg.files import file_problems, quoted

VERSION = 1
"""Version of every file of a study directory; a newer one is refused."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


def _named(text: str) -> str:
    if not NAME.fullmatch(text):
        raise PydanticCustomError("name", "must be letters, digits and . _ -")
    return text


Name = Annotated[str, AfterValidator(_named)]
"""What a variant, a trial or a kind of device may be called: these names become parts of paths."""


@file_problems()
def is_there(path: Path, folder: Path) -> bool:
    """Tells whether a file of a study is there.

    Raises:
        RunError: A link leads out of the study directory, which may come from anywhere, or a folder may not be read.
    """
    parts = [path, *path.parents]
    for part in parts[: parts.index(folder)]:
        if part.is_symlink():
            rule, remedy = "must be a file of the study itself", "put the file itself there"
            raise RunError(Problem(quoted(str(part)), "link", rule, "a symbolic link", remedy))
    return path.exists()
