"""Kinds of data, and their common form.

Arrays, tensors, data frames, dicts, datasets and loaders are read once and in order into
:class:`Samples`. The first axis is always that of the samples.
"""

from skgeo.data._reading import as_samples
from skgeo.data._samples import Inputs, Samples, cast_inputs

__all__ = ["Inputs", "Samples", "as_samples", "cast_inputs"]
