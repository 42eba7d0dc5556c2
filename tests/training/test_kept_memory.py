"""A training's memory: what is freed is there again without a page fault."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROUNDS = """
import resource
import torch
from utils.training.kept_memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def one_round():
    return [torch.ones(2**21) for _ in range(8)]  # 8 MiB each

keep_freed_memory()
for _ in range(3):
    one_round()
before = faults()
for _ in range(5):
    one_round()
print((faults() - before) * resource.getpagesize() / (8 * 2**23))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library's allocator")
def test_rounds_of_tensors_take_the_memory_of_the_first():
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.5  # five rounds would be 5
