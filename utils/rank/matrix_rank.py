"""The matrix rank of feature maps."""

import functools
import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utils.rank.compiled import compiled_ranks
from utils.rank.inertia import EPS32, UNDECIDED, certified_ranks

Ranks = Callable[[Tensor], Tensor]  # contiguous float32 [B, H, W] -> int64 [B]


class Form(NamedTuple):
    """A form of `certified_ranks`, and how many bytes of float32 maps it takes at once."""

    ranks: Ranks
    chunk_bytes: int


def forms(device: torch.device, shorter: int = 1) -> dict[str, Form]:
    """Return the forms for maps of that shorter side on a device, the fastest first, by name."""
    found = {}
    if device.type == "cpu" and (compiled := compiled_ranks()):
        found["C++"] = Form(compiled, 4 << 20)
    if device.type == "cuda" and importlib.util.find_spec("triton"):
        from utils.rank.triton_kernel import LARGEST_SIDE, triton_ranks  # needs triton

        if shorter <= LARGEST_SIDE:
            found["Triton"] = Form(triton_ranks, 1 << 30)
    # On the CPU what it makes of the maps, some 10 times their bytes, should stay in the cache.
    found["torch"] = Form(certified_ranks, 1 << 20 if device.type == "cpu" else 1 << 28)
    return found


def map_ranks(maps: Tensor, *, exact: bool = False, form: Form | None = None) -> Tensor:
    """Return the rank of every feature map: [N, C, H, W] -> int64 [N, C].

    The rank is the number of singular values of the float32 map above
    max(H, W) * eps(float32) * sigma_max: `torch.linalg.matrix_rank` with its default tolerance,
    which HRank's scores (Lin et al., 2020, Eq. 5) are defined by. `utils/rank/inertia.py` proves
    that integer for almost all maps; the others are left to `torch.linalg.matrix_rank` itself.

    Args:
        exact: decide those others by float64 singular values instead. Integers then do not depend
            on how float32 is rounded on this machine, and so not on the device.
        form: one of `forms`; the fastest where None. It changes no rank.

    Raises:
        ValueError: if `maps` are not 4-d, or hold NaN or Inf in float32 (LAPACK would silently
            say 0).
    """
    if maps.dim() != 4:
        raise ValueError(f"feature maps: expected [N, C, H, W], got {list(maps.shape)}")
    maps = maps.detach()
    ranks = torch.zeros(maps.shape[:2], dtype=torch.int64, device=maps.device)
    if maps.numel() == 0:
        return ranks
    certify, chunk_bytes = form or next(iter(forms(maps.device, min(maps.shape[2:])).values()))
    decide = _exact_ranks if exact else torch.linalg.matrix_rank
    rank = functools.partial(_rank_piece, certify=certify, decide=decide)
    finite = _in_threads(rank, _pieces(maps, ranks, chunk_bytes))
    if not all(finite):
        wrong = sum(int((~image.float().isfinite()).sum()) for image in maps)
        raise ValueError(f"feature maps: {wrong} of {maps.numel()} values are NaN or Inf")
    return ranks


def rank_method(device: torch.device, *, exact: bool = False) -> str:
    """Say how `map_ranks` finds ranks on a device, for the record."""
    rest = "float64 singular values" if exact else "torch.linalg.matrix_rank"
    form = next(iter(forms(device)))
    return f"inertia of float64 Gram matrices ({form}); {rest} near the tolerance"


def _pieces(maps: Tensor, ranks: Tensor, chunk_bytes: int) -> list[tuple[Tensor, Tensor]]:
    """Cut maps and ranks alike into pieces of at most `chunk_bytes`, or of one map."""
    most = max(1, chunk_bytes // (4 * maps[0, 0].numel()))
    channels = min(maps.size(1), most)
    images = most // channels
    threads = 1 if maps.is_cuda else torch.get_num_threads()
    if threads > 1:  # a few pieces for each, as some take longer
        images = min(images, -(-len(maps) // (2 * threads)))
    pieces = zip(maps.split(images), ranks.split(images), strict=True)
    return [
        piece
        for some_maps, some_ranks in pieces
        for piece in zip(some_maps.split(channels, 1), some_ranks.split(channels, 1), strict=True)
    ]


def _rank_piece(piece: tuple[Tensor, Tensor], *, certify: Ranks, decide: Ranks) -> bool:
    """Write the ranks of a piece's maps; False if some hold NaN or Inf, whose ranks stay undecided.

    Finding the undecided maps waits for a GPU, once for all maps of a layer.
    """
    maps, ranks = piece
    maps = maps.float().flatten(0, 1).contiguous()
    found = certify(maps)
    open_ = (found == UNDECIDED).nonzero().flatten()
    finite = True
    if len(open_):
        finite = bool(maps[open_].isfinite().all())
        if finite:
            found[open_] = decide(maps[open_])
    ranks.copy_(found.view_as(ranks))
    return finite


def _exact_ranks(maps: Tensor) -> Tensor:
    values = torch.linalg.svdvals(maps.double())
    return (values > max(maps.shape[1:]) * EPS32 * values[:, :1]).sum(1)


def _in_threads(action: Callable, items: list) -> list:
    """Return [action(item)] in as many Python threads as torch has, with one torch thread each.

    Torch's own threads would meet after every small operation, and wait where the machine is busy.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) == 1 or items[0][0].is_cuda:
        return [action(item) for item in items]

    def alone(item: Any) -> Any:
        torch.set_num_threads(1)  # of this thread, and of MKL in all
        return action(item)

    try:
        return list(_pool(threads).map(alone, items))
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the pool of rank threads; they cost more to start than most layers to rank."""
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has no threads
    return ThreadPoolExecutor(threads, "ranks")
