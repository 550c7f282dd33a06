"""One module a contestant, with one function a quantity.

Each takes the network and its inputs and returns

- ``spectrum``, ``spectrum_parameter``: the eigenvalues of F, in any order, zeros more or less;
- ``rank``: the number of eigenvalues above ``max(rows, P) eps`` times the largest;
- ``top_eigenvalues``: the ten largest;
- ``trace``: a number; ``diagonal``: P numbers in the order of ``model.parameters()``;
- ``gram``: J J^T over all outputs, (N K, N K), rows ordered by sample, then output.

A quantity without a function is looked up in the module's ``NOT_OFFERED``, which says why.
``ESTIMATES`` names quantities that are random estimates; their error is reported and not judged.
"""

CONTESTANTS = (
    "skgeo",
    "torch_func",
    "nngeometry",
    "nngeometry_values",
    "curvlinops",
    "backpack",
    "asdfghjkl",
    "laplace",
    "floor",
)
DISTRIBUTIONS = {
    "skgeo": "skgeo",
    "torch_func": "torch",
    "nngeometry": "nngeometry",
    "curvlinops": "curvlinops-for-pytorch",
    "backpack": "backpack-for-pytorch",
    "asdfghjkl": "asdfghjkl",
    "laplace": "laplace-torch",
}
