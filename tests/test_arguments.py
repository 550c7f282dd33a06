import numpy as np
import pytest

from skgeo import SkgeoError
from skgeo._arguments import check_integer, check_number, check_option


def test_options_are_compared_by_value_and_type():
    check_option("side", None, ("left", None))
    check_option("side", "left", ("left", None))
    for value in ("up", 0, np.array(["left"]), ["left"], True):
        with pytest.raises(SkgeoError, match=r"side=.*; expected 'left' or None\."):
            check_option("side", value, ("left", None))
    with pytest.raises(SkgeoError, match=r"flag=True; expected 1 or 2\."):
        check_option("flag", True, (1, 2))


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_all_kinds(value):
    found = check_integer("depth", value)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None, np.bool_(True), float("nan")])
def test_what_is_not_a_positive_integer(value):
    with pytest.raises(SkgeoError, match=r"depth=.*; expected a positive integer or None\."):
        check_integer("depth", value, also="None")


def test_bounds_are_named():
    assert check_integer("k", 0, least=0) == 0
    for bounds, said in [
        ({"least": 0}, "a non-negative integer"),
        ({"least": 2}, "an integer of at least 2"),
        ({"least": 0, "most": 4}, "an integer from 0 to 4"),
    ]:
        with pytest.raises(SkgeoError, match=rf"k=-3; expected {said}\."):
            check_integer("k", -3, **bounds)
    with pytest.raises(SkgeoError, match=r"k=5; expected an integer from 1 to 4\."):
        check_integer("k", 5, most=4)


def test_numbers():
    assert check_number("tol", np.float32(0.5), above=0, below=1) == 0.5
    assert check_number("tol", 0, least=0, below=1) == 0.0
    for value in (0, 1, -1, float("nan"), float("inf"), "1", None, True):
        with pytest.raises(
            SkgeoError, match=r"expected a finite number greater than 0 and less than 1\."
        ):
            check_number("tol", value, above=0, below=1)
