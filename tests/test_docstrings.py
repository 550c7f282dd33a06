"""What users call is documented as numpydoc asks, with shapes, errors and a checked example."""

import dataclasses
import importlib
import inspect

import pytest
from numpydoc.validate import validate

MODULES = (
    "skgeo.chain",
    "skgeo.datasets",
    "skgeo.exceptions",
    "skgeo.fiber",
    "skgeo.fisher",
    "skgeo.likelihood",
    "skgeo.quotient",
    "skgeo.symmetry",
    "skgeo.training",
    "skgeo",
)
# Summaries begin on the line of the quotes; sentences of "Returns" may begin with a formula.
CHECKS = {
    "GL03",  # double blank lines
    "GL07",  # order of sections
    "GL08",  # no docstring
    "SS01",  # no summary
    "SS03",  # summary without a full stop
    "SS06",  # summary of several lines
    "PR01",  # parameters not documented
    "PR02",  # unknown parameters
    "PR03",  # order of parameters
    "PR10",  # no space before the colon
    "RT01",  # no returns section
    "YD01",  # no yields section
    "SA04",  # a reference without a reason
}
# scikit-learn's own.
INHERITED = {"set_output", "get_metadata_routing", "get_params", "set_params", "fit_transform"}


def objects():
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for each in module.__all__:
            value = getattr(module, each)
            if inspect.isfunction(value) or inspect.isclass(value):
                found.setdefault(value, f"{name}.{each}")
    for value, path in list(found.items()):
        if inspect.isclass(value):
            for key, method in vars(value).items():
                inherited = any(key in vars(base) for base in value.__mro__[1:])
                public = not key.startswith("_") and key not in INHERITED
                if inspect.isfunction(method) and public and not inherited:
                    found[method] = f"{path}.{key}"
    return sorted(found.values())


def find(path):
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return getattr(find(module), name)


@pytest.mark.parametrize("path", objects())
def test_numpydoc(path):
    # Fields of a result are attributes: nobody calls its constructor.
    free = {"PR01", "PR02", "PR03"} if dataclasses.is_dataclass(find(path)) else set()
    errors = validate(path)["errors"]
    assert [f"{code} {text}" for code, text in errors if code in CHECKS - free] == []


@pytest.mark.parametrize(
    "path", [p for p in objects() if inspect.isfunction(find(p)) and p.count(".") == 2]
)
def test_functions_have_examples(path):
    assert ">>> " in inspect.getdoc(find(path))
