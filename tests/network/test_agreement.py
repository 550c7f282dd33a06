import pytest
import torch

from skgeo import SkgeoError
from skgeo.network._agreement import agree, agreement_tolerance, seeded_normal
from skgeo.network._finite import check_derivatives, check_outputs

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("by_entry", [True, False])
def test_agreement_is_on_the_scale_that_is_given(by_entry):
    x = torch.ones(4).double()
    off = x.clone()
    off[0] += 3 * EPS**0.5
    assert agree(off, x, x.dtype, 1.0, by_entry=by_entry)
    assert not agree(off, x, x.dtype, 0.5, by_entry=by_entry)


def test_norms_add_up_what_entries_do_not():
    x = torch.zeros(100).double()
    off = x + EPS**0.5
    assert agree(off, x, x.dtype, 1.0, by_entry=True)
    assert not agree(off, x, x.dtype, 1.0)


def test_where_everything_cancels_rounding_is_no_difference():
    x = torch.zeros(3).double()
    assert agree(x + EPS, x, x.dtype, 0.0)
    assert not agree(x + EPS, x, x.dtype, 0.0, floor=False)
    assert agreement_tolerance(x.dtype, 0.0, floor=False) == 0.0


def test_nan_never_agrees():
    x = torch.full((3,), float("nan"))
    assert not agree(x, x, x.dtype, 1.0)
    assert not agree(x, x, x.dtype, float("nan"), by_entry=True)


def test_seeded_numbers_are_the_same_in_any_precision():
    state = torch.get_rng_state()
    one = seeded_normal(3, 2, like=torch.zeros(1).double())
    assert torch.equal(one.float(), seeded_normal(3, 2, like=torch.zeros(1)))
    assert not torch.equal(one, seeded_normal(3, 2, like=one, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_a_number_is_refused(value):
    x = torch.ones(3, 2)
    check_derivatives(x, "'a'")
    check_outputs(x)
    x[1, 0] = value
    with pytest.raises(SkgeoError, match="Derivatives of 'a' are NaN or infinite"):
        check_derivatives(x, "'a'")
    with pytest.raises(SkgeoError, match=r"for 1 of 3 samples \(first: sample 1"):
        check_outputs(x)
