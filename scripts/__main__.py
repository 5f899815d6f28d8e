"""One entry for all scripts: `python scripts COMMAND ARGUMENTS` is `python scripts/COMMAND.py ARGUMENTS`."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Becomes the script that the first argument names, or lists those that there are."""
    scripts = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in scripts:
        # The process itself becomes the script: signals, exit code and imports are those of the script called alone.
        os.execv(sys.executable, [sys.executable, str(scripts[command]), *sys.argv[2:]])
    if command in ("-h", "--help"):
        print("usage: COMMAND [ARGUMENTS]; COMMAND --help explains its arguments\n")
        for name, path in scripts.items():
            print(f"  {name:10} {ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))}")
        return 0
    print(f"error: Unknown command '{command}'. Available: {', '.join(scripts)}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
