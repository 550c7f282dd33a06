"""What a folder of recorded steps says of itself."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from skgeo.data._samples import hash_tensor
from skgeo.exceptions import SkgeoError
from skgeo.training._files import write_whole

NAME = "manifest.json"


@dataclass
class Manifest:
    """Steps of one run and their files.

    run: identifier of the run.
    network: digest of names and shapes; empty before the first step.
    first: the first step, and a digest of its weights, by which a run is known.
    files: name of the file of each step.
    where: path of the manifest, for messages.
    """

    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    network: str = ""
    first: tuple[int, str] | None = None
    files: dict[int, str] = field(default_factory=dict)
    where: str = "The recorder"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a folder, a new one if there is none."""
        path = folder / NAME
        if not path.exists():
            return cls(where=str(path))
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            step, digest = stored["first"]
            files = {int(step): str(name) for step, name in stored["files"].items()}
            return cls(
                str(stored["run"]),
                str(stored["network"]),
                (int(step), str(digest)),
                files,
                str(path),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SkgeoError(
                f"{path} is not a manifest of a CheckpointRecorder ({type(error).__name__}: "
                f"{error}). Choose another folder; the checkpoints of this one are read by "
                "skgeo.training.read_run."
            ) from error

    def check(self, step: int, network: str, weights: Callable[[], str]) -> None:
        """Refuse a step of another network, or of a run that begins from other weights."""
        if self.first is None:
            self.network, self.first = network, (step, weights())
            return
        if network != self.network:
            raise SkgeoError(
                f"{self.where} is of a network of other names or shapes than the one at step "
                f"{step}. Another network needs a recorder, and a folder, of its own."
            )
        if step < self.first[0] or (step == self.first[0] and weights() != self.first[1]):
            raise SkgeoError(
                f"{self.where} is of another run: it begins at step {self.first[0]} with other "
                f"weights than those of step {step}. Another training needs a recorder, and a "
                "folder, of its own."
            )

    def write(self, folder: Path) -> None:
        """Write it as a whole."""
        content = {
            "run": self.run,
            "network": self.network,
            "first": self.first,
            "files": {str(step): self.files[step] for step in sorted(self.files)},
        }
        text = json.dumps(content, indent=1)
        write_whole(folder / NAME, lambda file: file.write(text.encode()))


def architecture(state: Mapping[str, Any]) -> str:
    """Digest of the names and shapes of a state dict."""
    shapes = [
        (name, list(value.shape) if isinstance(value, Tensor) else None)
        for name, value in state.items()
    ]
    return hashlib.blake2b(json.dumps(shapes).encode(), digest_size=20).hexdigest()


def weights_digest(state: Mapping[str, Any]) -> str:
    """Digest of the names and values of a state dict."""
    digest = hashlib.blake2b(digest_size=20)
    for name, value in state.items():
        digest.update(f"{len(name)}:{name}".encode())
        if isinstance(value, Tensor):
            hash_tensor(digest, value)
    return digest.hexdigest()
