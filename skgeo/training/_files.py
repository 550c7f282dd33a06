"""Files that are either whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from skgeo.exceptions import SkgeoError


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside `path` and move it there, so that no reader finds half of it.

    Raises SkgeoError if that fails; a file that was there stays as it is.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
        beside.unlink(missing_ok=True)
        raise SkgeoError(
            f"{path.absolute()} cannot be written: {_said(error)}. What was written before is "
            "kept: make room, or choose another folder, and go on."
        ) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def writable_folder(name: str, folder: str | os.PathLike[str]) -> Path:
    """A folder, made if it does not exist; raises SkgeoError if nothing can be written there.

    name: of the argument, for the message.
    """
    found = Path(folder).absolute()
    try:
        found.mkdir(parents=True, exist_ok=True)
        trial = found / f".{uuid.uuid4().hex}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise SkgeoError(
            f"{name}={str(folder)!r}: nothing can be written there ({_said(error)}). Choose a "
            "folder that you may write to."
        ) from error
    return found


def _said(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(".")
