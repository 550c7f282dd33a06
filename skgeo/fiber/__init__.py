"""The fiber of a deep linear network: all weights that compute one and the same matrix.

Its strata are named by bars (:class:`Barcode`). Functions of barcodes and widths are exact and
count in integers; functions of weights decide ranks in floating point and say how clearly.

References
----------
J. R. Shewchuk and S. Bhattacharya, "The Geometry of the Set of Equivalent Linear Neural Networks",
arXiv:2404.14855.
"""

from skgeo.fiber._barcode import Barcode, barcode_from_rank_list
from skgeo.fiber._chain import as_parameters, from_parameters
from skgeo.fiber._dimensions import (
    closed_stratum,
    differential_rank,
    fiber_codimension,
    fiber_dimension,
    n_components,
)
from skgeo.fiber._distance import RankDrop, rank_drops
from skgeo.fiber._enumeration import HasseDiagram, count_strata, hasse_diagram, strata
from skgeo.fiber._flow import FlowBases, flow_bases, representative
from skgeo.fiber._inputs import input_ranks
from skgeo.fiber._learning_coefficient import LearningCoefficient, linear_network_coefficient
from skgeo.fiber._local import (
    coefficient_bounds,
    local_codimension,
)
from skgeo.fiber._moves import move_up
from skgeo.fiber._order import (
    Move,
    apply_move,
    in_closure,
    is_cover,
    up_covers,
    up_moves,
)
from skgeo.fiber._path import tolerance_path
from skgeo.fiber._projector import project_normal, project_tangent
from skgeo.fiber._staircase import (
    NumericalBarcode,
    Staircase,
    numerical_barcode,
    rank_tolerance,
    staircase,
)
from skgeo.fiber._tangent import (
    FactoredNormals,
    factored_normals,
    normal_basis,
    tangent_basis,
)
from skgeo.fiber.display import BarcodeDisplay, HasseDisplay
from skgeo.fiber.estimator import LinearFiberStratifier

__all__ = [
    "Barcode",
    "BarcodeDisplay",
    "FactoredNormals",
    "FlowBases",
    "HasseDiagram",
    "HasseDisplay",
    "LearningCoefficient",
    "LinearFiberStratifier",
    "Move",
    "NumericalBarcode",
    "RankDrop",
    "Staircase",
    "apply_move",
    "as_parameters",
    "barcode_from_rank_list",
    "closed_stratum",
    "coefficient_bounds",
    "count_strata",
    "differential_rank",
    "factored_normals",
    "fiber_codimension",
    "fiber_dimension",
    "flow_bases",
    "from_parameters",
    "hasse_diagram",
    "in_closure",
    "input_ranks",
    "is_cover",
    "linear_network_coefficient",
    "local_codimension",
    "move_up",
    "n_components",
    "normal_basis",
    "numerical_barcode",
    "project_normal",
    "project_tangent",
    "rank_drops",
    "rank_tolerance",
    "representative",
    "staircase",
    "strata",
    "tangent_basis",
    "tolerance_path",
    "up_covers",
    "up_moves",
]
