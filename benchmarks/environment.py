"""The environment that the benchmarks run in: the peers, and what skgeo itself depends on.

skgeo is not installed there but imported from the checkout that runs the command, so that one
environment serves any number of checkouts with the same requirements.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"


def default_folder() -> Path:
    """Outside the tree, where the system keeps caches."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "skgeo-benchmarks"


def interpreter(folder: Path) -> Path:
    """The environment's Python."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def prepare(folder: Path) -> Path:
    """Make the environment, or use the one that the same requirements have made.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
        Its Python.
    """
    python = interpreter(folder)
    stamp = folder / "requirements.sha256"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = hashlib.sha256(
        b"".join(
            [
                CONSTRAINTS.read_bytes(),
                REQUIREMENTS.read_bytes(),
                repr(project["dependencies"]).encode(),
                sys.version.encode(),
            ]
        )
    ).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise SystemExit(f"--env: {folder} holds something other than an environment.")
    print(f"making the environment in {folder}", flush=True)
    venv.create(folder, with_pip=True, clear=True)

    def pip(*arguments: str) -> None:
        subprocess.run([str(python), "-m", "pip", *arguments, "--quiet"], check=True)

    # torch first and alone, so that no peer decides which one is installed.
    pip("install", "-c", str(CONSTRAINTS), "torch")
    pip("install", "-c", str(CONSTRAINTS), *project["dependencies"], "-r", str(REQUIREMENTS))
    # A torchvision that was built for another torch makes `import torchmetrics` fail; without one
    # it is not looked for.
    pip("uninstall", "--yes", "torchvision")
    stamp.write_text(wanted)
    return python
