"""Certified ranks as in inertia.py, on a GPU: maps in registers, one launch for a whole layer."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from utils.rank.inertia import UNDECIDED, bound_numbers

LARGEST_SIDE = 64  # of the shorter sides: a larger matrix would not fit into registers
_ENTRIES = 1024  # of the matrices of one program


def triton_ranks(maps: Tensor) -> Tensor:
    """Return `certified_ranks(maps)` of contiguous maps whose shorter side is <= LARGEST_SIDE."""
    maps = maps if maps.size(1) <= maps.size(2) else maps.mT  # [B, m, N]
    count, rows, columns = maps.shape
    side = triton.next_power_of_2(rows)
    group = max(1, _ENTRIES // side**2)
    bound = bound_numbers(columns, maps.device)
    ranks = torch.empty(count, dtype=torch.int64, device=maps.device)
    _rank_kernel[(triton.cdiv(count, group),)](
        maps, ranks, bound, count, *maps.stride(), rows, columns, UNDECIDED, group, side
    )
    return ranks


@triton.jit
def _rank_kernel(
    maps, ranks, bound, count, map_stride, row_stride, column_stride, rows, columns,
    UNDECIDED: tl.constexpr, GROUP: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    index = (tl.program_id(0) * GROUP + tl.arange(0, GROUP)).to(tl.int64)  # of the map
    row = tl.arange(0, SIDE)
    start = maps + index[:, None] * map_stride + row[None, :] * row_stride  # [GROUP, SIDE]
    inside = (index < count)[:, None] & (row < rows)[None, :]
    gram = tl.zeros([GROUP, SIDE, SIDE], tl.float64)
    nonzero_columns = tl.zeros([GROUP], tl.int64)
    for j in range(columns):
        column = tl.load(start + j * column_stride, mask=inside, other=0.0).to(tl.float64)
        gram += column[:, :, None] * column[:, None, :]
        nonzero_columns += tl.max((column != 0).to(tl.int64), 1)
    on_diagonal = (row[:, None] == row[None, :])[None]
    diagonal = tl.sum(tl.where(on_diagonal, gram, 0.0), 2)
    trace = tl.sum(diagonal, 1)
    limit = tl.minimum(tl.sum((diagonal > 0).to(tl.int64), 1), nonzero_columns)
    square = tl.sum(tl.sum(gram * gram, 2), 1)
    above = tl.load(bound) * tl.sqrt(square)
    below = tl.load(bound + 1) * square / trace
    slack, error = tl.load(bound + 2), tl.load(bound + 3)
    allowed = above * slack / error
    least = _positive_pivots(gram, above * (1 + slack), trace, allowed, rows, UNDECIDED, SIDE)
    decided = least == limit
    if tl.min(decided.to(tl.int32), 0) == 0:
        allowed = below * slack / error
        most = _positive_pivots(gram, below * (1 - slack), trace, allowed, rows, UNDECIDED, SIDE)
        decided |= least == most
    decided &= (trace > tl.load(bound + 4)) & (trace < tl.load(bound + 5))
    found = tl.where(decided, least, tl.where(trace == 0, 0, UNDECIDED))
    tl.store(ranks + index, found, mask=index < count)


@triton.jit
def _positive_pivots(
    gram, shift, trace, allowed, rows, UNDECIDED: tl.constexpr, SIDE: tl.constexpr
):
    """Count the positive eigenvalues of each gram - shift I, as in inertia.py."""
    row = tl.arange(0, SIDE)
    on_diagonal = (row[:, None] == row[None, :])[None]
    rest = tl.where(on_diagonal, gram - shift[:, None, None], gram)
    growth = trace
    positive = tl.zeros_like(trace).to(tl.int64)
    for k in range(rows):
        column = tl.sum(tl.where((row == k)[None, :, None], rest, 0.0), 1)  # [GROUP, SIDE]
        pivot = tl.sum(tl.where((row == k)[None, :], column, 0.0), 1)
        below = tl.where((row > k)[None, :], column, 0.0)
        factor = below / pivot[:, None]
        growth += tl.abs(pivot) + tl.sum(tl.abs(below * factor), 1)
        positive += (pivot > 0).to(tl.int64)
        rest -= factor[:, :, None] * below[:, None, :]
    return tl.where(growth < allowed, positive, UNDECIDED)
