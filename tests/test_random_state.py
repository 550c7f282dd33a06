import subprocess
import sys

import numpy as np
import torch

from skgeo._random_state import random_state_kept, random_states

# Garbage that runs Python code when it is collected, at almost every allocation: without a lock of
# ours, torch's lock and the interpreter's wait for each other within a few hundred reads.
TWO_THREADS = """
import faulthandler, gc, sys, threading, torch
from skgeo._random_state import random_states

class Cycle:
    def __init__(self):
        self.me = self

    def __del__(self):
        for _ in range(50):
            pass

def read():
    for _ in range(500):
        Cycle()
        random_states(torch.device("cpu"))

faulthandler.dump_traceback_later(60, exit=True)
sys.setswitchinterval(1e-6)
gc.set_threshold(3)
threads = [threading.Thread(target=read) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_two_threads_may_read_at_once():
    subprocess.run([sys.executable, "-c", TWO_THREADS], check=True, timeout=120)


def test_every_global_generator_is_restored():
    device = torch.device("cpu")
    before = random_states(device)
    with random_state_kept(device):
        torch.rand(3), np.random.rand(3)  # noqa: NPY002
    for one, other in zip(before[:2], random_states(device)[:2], strict=True):
        assert str(one) == str(other)
    assert torch.equal(before[2], torch.get_rng_state())
