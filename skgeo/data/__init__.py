"""What the rows of X may be, and one form for all of them.

Arrays, tensors, data frames, dicts, datasets and loaders are read once, in order, into
:class:`Samples`, whose leading axis is the sample everywhere.
"""

from skgeo.data._reading import as_samples
from skgeo.data._samples import Inputs, Samples, cast_inputs

__all__ = ["Inputs", "Samples", "as_samples", "cast_inputs"]
