"""The package loads where modules of Unix are absent. Nothing was run on Windows or macOS."""

from __future__ import annotations

import subprocess
import sys

LOAD_ALL = """
import importlib, os, pkgutil, sys
import monai.data, monai.transforms, pandas, pytorch_lightning, torch, matplotlib.pyplot, scipy.stats, jinja2, yaml
import seg
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
del os.getuid, os.sched_getaffinity, os.getloadavg
sys.platform = "win32"
names = [module.name for module in pkgutil.walk_packages(seg.__path__, "seg.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
from pathlib import Path
from seg.files import locked
with locked(Path(sys.argv[1]), wait=False):
    pass
from seg.hardware import load_1min
assert load_1min() is None
print(len(names))
"""


def test_every_module_loads_without_the_modules_of_unix(tmp_path):
    command = [sys.executable, "-c", LOAD_ALL, str(tmp_path / "lock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
