"""The Triton kernel, run by Triton's interpreter, decides what the torch form decides."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROGRAM = """
import torch
from utils.rank.inertia import certified_ranks
from utils.rank.triton_kernel import triton_ranks

generator = torch.Generator().manual_seed(0)
for size in ((1, 1), (2, 2), (3, 5), (5, 3), (4, 4), (8, 8), (17, 17)):
    rank = max(1, min(size) // 2)
    left = torch.randn(12, size[0], rank, generator=generator)
    hard = [
        left @ torch.randn(12, rank, size[1], generator=generator),
        torch.randn(12, *size, generator=generator).relu(),
        torch.zeros(1, *size),
        torch.full((1, *size), torch.nan),
        torch.full((1, *size), 1e-44),
    ]
    maps = torch.cat(hard)
    found, expected = triton_ranks(maps), certified_ranks(maps)
    assert torch.equal(found, expected), (size, found, expected)
    print(size)
"""


def test_the_kernel_decides_as_the_torch_form():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("Triton's interpreter, as it comes with torch 2.11, needs an older NumPy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(17, 17)"
