r"""Certified ranks: count the pivots of an elimination instead of finding singular values.

The rank of a map A [h, w] is the number of its singular values above the tolerance tau,

    tau = N eps sigma_max,    N = max(h, w),    eps = 2^-23 (float32).

**What is counted.** G = A A^T, with A laid on its side where h > w, has the eigenvalues sigma^2, so
the rank is the number of positive eigenvalues of G - tau^2 I. Elimination without row exchanges,
G - s I = L D L^T, is a congruence, and by Sylvester's law of inertia D has as many positive entries
(pivots) as G - s I has positive eigenvalues. No eigenvalue is computed, and eliminating costs
m^3 / 6 multiply-adds for m = min(h, w). The products of float32 numbers are exact in float64.

**The guard band.** The law is `torch.linalg.matrix_rank`, whose float32 singular values are
themselves off by a few eps sigma_max. So the pivots are counted at two shifts that enclose tau^2,

    s_above = ((N + guard) eps)^2 upper (1 + slack)       lower <= sigma_max^2 <= upper
    s_below = ((N - guard) eps)^2 lower (1 - slack)       lower = |G|_F^2 / tr G,  upper = |G|_F

(sum of sigma^4 <= sigma_max^2 times sum of sigma^2, and sigma_max^4 <= sum of sigma^4). The count
at s_above is at most the rank, the count at s_below at least. The map is *decided* where they
agree, or where the first one reaches min(nonzero rows, nonzero columns), which no rank exceeds.
Any other map is left to the law itself.

**The certificate.** In floating point D belongs to a matrix G - s I + E. With u = 2^-53 the
backward error of an inner product of length n is n u times the sum of its terms' sizes (Higham,
Accuracy and Stability, 3.1 and 9.3), which here gives, l_k being the k-th column of L,

    |E|_2 <= (N + 5) u (sum_k |d_k| |l_k|^2 + |A|_F^2)

for G, its shift and its elimination together. By Weyl's theorem no eigenvalue moves further, so
the count is the true one for some shift within |E|_2 of s: it stands if |E|_2 is less than what
the slack moved s by. No exchange of rows keeps L small here: where it grows too large, the
certificate fails, and so it does for NaN and Inf, which fail every comparison.

The squares of squares of all float32 numbers, denormal ones included, are normal numbers of
float64: the maps need no scaling.
"""

import functools
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

UNDECIDED = -1
EPS32 = 2.0**-23
UNIT64 = 2.0**-53  # relative error of one float64 operation

# How far from tau float32 LAPACK was seen to miscount, in eps sigma_max: 0.01 on maps of trained
# networks, 1.7 on singular values placed around tau, 2.6 in a directed search for the worst map.
_GUARD = 3


@dataclass(frozen=True)
class Bounds:
    """What the numbers above come to for maps whose longer side is N."""

    above: float  # ((N + guard) eps)^2
    below: float  # ((N - guard) eps)^2, or 0: then nothing is proven by the second count
    slack: float
    error: float  # (N + 5) u
    smallest: float = 2.0**-200  # of |A|_F^2: outside, tau or sigma_max are close to what float32
    largest: float = 2.0**250  # can hold, where LAPACK rounds differently


def bounds(longest: int) -> Bounds:
    """Return the bounds for maps whose longer side is `longest`."""
    return Bounds(
        above=((longest + _GUARD) * EPS32) ** 2,
        below=(max(longest - _GUARD, 0) * EPS32) ** 2,
        # The rounding error falls like 1 / N relative to tau^2, and so may what it is allowed.
        slack=2 / (longest + 1),
        error=(longest + 5) * UNIT64,
    )


@functools.cache  # sending them to a GPU would wait for it at every layer
def bound_numbers(longest: int, device: torch.device) -> Tensor:
    """Return the fields of `bounds(longest)` in their order, float64 [6], for a kernel."""
    return torch.tensor(astuple(bounds(longest)), dtype=torch.float64, device=device)


def certified_ranks(maps: Tensor) -> Tensor:
    """Return the rank of every map that is decided, else UNDECIDED: float32 [B, H, W] -> int64 [B].

    What the kernels in C++ and Triton do with one elimination, in LAPACK's terms: all pivots are
    positive where a Cholesky factorization exists, and where it does not, float64 eigenvalues are
    counted (their backward error is taken to be that of elimination). Maps that hold NaN or Inf are
    undecided.
    """
    bound = bounds(max(maps.shape[1:]))
    gram, limit = _gram(maps)
    pivots = gram.diagonal(dim1=1, dim2=2)
    diagonal = pivots.clone()
    trace = diagonal.sum(1)  # |A|_F^2, and sum_k |d_k| |l_k|^2 where all pivots are positive
    upper = torch.linalg.vector_norm(gram.flatten(1), dim=1)
    above, below = bound.above * upper, bound.below * upper.square() / trace
    above_stands, below_stands = (
        bound.error * 2 * trace < bound.slack * base for base in (above, below)
    )
    # A row that is zero gets a pivot that is positive.
    shifted = diagonal - (1 + bound.slack) * above[:, None]
    pivots.copy_(torch.where(diagonal > 0, shifted, trace[:, None]))
    proven = (torch.linalg.cholesky_ex(gram).info == 0) & above_stands
    in_range = (trace > bound.smallest) & (trace < bound.largest)
    ranks = torch.where((in_range & proven) | (trace == 0), limit, UNDECIDED)

    pivots.copy_(diagonal)
    open_ = (in_range & ~proven & below_stands).nonzero().flatten()
    squares = torch.linalg.eigvalsh(gram[open_])
    least = (squares > (1 + bound.slack) * above[open_, None]).sum(1)
    most = (squares > (1 - bound.slack) * below[open_, None]).sum(1)
    ranks[open_] = torch.where(least == most, least, UNDECIDED)
    return ranks


def _gram(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return A A^T [B, m, m] in float64 and the number of nonzero rows of A [B].

    A is the map, or the map turned on its side if that has fewer rows, or fewer nonzero ones.
    """
    sizes = maps.abs()
    rows, columns = ((sizes.sum(dim) > 0).sum(1) for dim in (2, 1))
    maps = maps.double()
    if maps.size(1) == maps.size(2):
        maps = torch.where((columns < rows)[:, None, None], maps.mT, maps)
        rows = torch.minimum(rows, columns)
    elif maps.size(1) > maps.size(2):
        maps, rows = maps.mT, columns
    return maps @ maps.mT, rows
