import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from skgeo.linalg._threads import single_blas_thread


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_one_thread_inside_and_the_setting_restored(three_threads):
    before = blas_threads()
    with single_blas_thread():
        assert torch.get_num_threads() == 1
        assert set(blas_threads()) == {1}
        with single_blas_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    assert blas_threads() == before


def test_restored_after_an_error(three_threads):
    with pytest.raises(KeyError), single_blas_thread():
        raise KeyError
    assert torch.get_num_threads() == 3


def test_threads_that_overlap_leave_the_setting_as_it_was(three_threads):
    before = blas_threads()
    both_inside, first_left = threading.Barrier(2), threading.Event()
    seen = {}

    def work(name, is_first):
        with single_blas_thread():
            both_inside.wait()
            if not is_first:
                first_left.wait()
            seen[name] = torch.get_num_threads()
        if is_first:
            first_left.set()

    run_threads(work, [(0, True), (1, False)])
    assert seen == {0: 1, 1: 1}
    assert torch.get_num_threads() == 3
    assert blas_threads() == before


def test_workers_started_inside_have_one_thread_of_every_library(three_threads):
    before = blas_threads()
    seen = []

    def work():
        with single_blas_thread():
            seen.append((torch.get_num_threads(), set(blas_threads())))

    with single_blas_thread():
        run_threads(work, [(), ()])
    assert seen == [(1, {1})] * 2
    assert torch.get_num_threads() == 3
    assert blas_threads() == before


def run_threads(work, arguments):
    workers = [threading.Thread(target=work, args=each) for each in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


@pytest.mark.parametrize("main_leaves_first", [True, False])
def test_every_thread_that_was_inside_has_its_setting_back(three_threads, main_leaves_first):
    """torch's setting is also one of each thread, which only that thread can restore."""
    before = blas_threads()
    used, inside, may_leave, done = (threading.Event() for _ in range(4))
    seen = {}

    def work():
        seen["before"] = torch.get_num_threads()
        used.wait()
        with single_blas_thread():
            seen["inside"] = torch.get_num_threads()
            inside.set()
            may_leave.wait()
        seen["after"] = torch.get_num_threads()
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    with single_blas_thread():
        used.set()
        inside.wait()
        if not main_leaves_first:
            may_leave.set()
            done.wait()
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    may_leave.set()
    worker.join()
    assert torch.get_num_threads() == 3
    assert seen == {"before": 3, "inside": 1, "after": 3}
    assert blas_threads() == before
