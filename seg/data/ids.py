"""The rules that ids of cases obey, as files are named after them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from seg.data.cases import Case

MAX_ID_BYTES = 200  # of the 255 that file systems give a name; endings and names of partial files take the others
_ID = re.compile(r"[^\W_][\w.+ -]*")


def check_ids(cases: list[Case], path: Path) -> list[str]:
    """Says which case ids are unusable as file names or not unique, and which files two cases share.

    Args:
        cases: All cases of a data set.
        path: The file that lists them, named in the sentences.
    """
    seen = Counter(case.id for case in cases)
    problems = [
        f"case {case_id}: ids must be unique, got {count} cases of this id in {path}; "
        "rename files or give each case an id of its own."
        for case_id, count in seen.items()
        if count > 1
    ]
    problems.extend(
        f"case {case_id!r}: an id must begin with a letter or digit and hold only letters, digits, spaces and _.+-, "
        "as files are named after it; rename it."
        for case_id in seen
        if not _ID.fullmatch(case_id)
    )
    problems.extend(
        f"case {case_id}: an id must take at most {MAX_ID_BYTES} bytes, as files are named after it, got "
        f"{_bytes(case_id)}; shorten it."
        for case_id in seen
        if _bytes(case_id) > MAX_ID_BYTES
    )
    alike: dict[str, str] = {}
    for case_id in seen:
        first = alike.setdefault(case_id.casefold(), case_id)
        if first != case_id:
            problems.append(
                f"case {case_id}: ids must differ in more than capitals, as files named after them are one where a "
                f"file system takes capitals for small letters, got case {first} too in {path}; rename one of the two."
            )
    owners: dict[Path, str] = {}
    for case in cases:
        for file in case.files:
            owner = owners.setdefault(file, case.id)
            if owner != case.id:
                problems.append(
                    f"case {case.id}: a file must belong to one case, got {file} of case {owner} too in {path}; "
                    "correct one of the two."
                )
    return problems


def _bytes(case_id: str) -> int:
    return len(case_id.encode(errors="surrogatepass"))
