"""Training runs: recorded, read from files, and followed step by step."""

from skgeo.training._lightning import lightning_callback
from skgeo.training._recorder import CheckpointRecorder
from skgeo.training._run import read_run
from skgeo.training._skorch import skorch_callback
from skgeo.training._track import track
from skgeo.training._transformers import transformers_callback
from skgeo.training.display import TrajectoryDisplay

__all__ = [
    "CheckpointRecorder",
    "TrajectoryDisplay",
    "lightning_callback",
    "read_run",
    "skorch_callback",
    "track",
    "transformers_callback",
]
