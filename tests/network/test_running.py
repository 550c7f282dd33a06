import pytest
import torch
from torch import nn

from skgeo import SkgeoError
from skgeo.autodiff import replica
from skgeo.network.running import batch_ranges, check_batch_size, parameter_dtype, running


def test_a_failing_forward_pass_says_what_it_was_given():
    net = nn.Linear(3, 2)
    for inputs, said in [
        (torch.ones(1, 4), r"One sample is \(1, 4\) of torch.float32"),
        ({"x": torch.ones(1, 4)}, r"One sample is x: \(1, 4\) of torch.float32"),
        ((torch.ones(1, 4), torch.ones(1)), r"0: \(1, 4\) of torch.float32, 1: \(1,\)"),
    ]:
        with pytest.raises(SkgeoError, match=said) as raised, running(inputs):
            net(inputs)
        assert raised.value.__cause__ is not None


def test_errors_that_teach_already_are_left_alone():
    original = SkgeoError("no")
    with pytest.raises(SkgeoError) as raised, running(torch.ones(1)):
        raise original
    assert raised.value is original


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "3"])
def test_what_is_no_batch_size_is_refused(size):
    with pytest.raises(SkgeoError, match=r"batch_size=.*expected a positive integer or None"):
        check_batch_size(size)


def test_batches_hold_every_sample_once():
    check_batch_size(None)
    check_batch_size(4)
    for count in range(1, 12):
        for size in range(1, 13):
            batches = batch_ranges(count, size)
            assert [i for batch in batches for i in batch] == list(range(count))
            assert {len(batch) for batch in batches[:-1]} <= {size}


def test_the_dtype_is_that_of_floating_parameters():
    assert parameter_dtype(replica(nn.Linear(2, 2).double())) == torch.float64
    assert parameter_dtype(replica(nn.Linear(2, 2))) == torch.float32
