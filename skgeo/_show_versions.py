"""Versions for bug reports."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import torch

_REQUIRED = ("scikit-learn", "numpy", "scipy", "torch", "joblib", "pandas")
_OPTIONAL = ("matplotlib", "rich", "skorch")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def show_versions() -> None:
    """Print the versions of Python, skgeo and its dependencies, and the devices of torch.

    Include the output in bug reports.

    Examples
    --------
    >>> import skgeo
    >>> skgeo.show_versions()
    system
      python        ...
    """
    system = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
    }
    packages = {name: _version(name) for name in ("skgeo", *_REQUIRED, *_OPTIONAL)}
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    backend = {
        "threads": str(torch.get_num_threads()),
        "default dtype": str(torch.get_default_dtype()),
        "cuda": ", ".join(cuda) or "no device",
    }
    for title, rows in (("system", system), ("packages", packages), ("torch", backend)):
        print(title)
        for name, value in rows.items():
            print(f"  {name:<14}{value}")
