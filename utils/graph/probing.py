"""Operations that nobody knows, tried: does each channel of what they give come of its own alone?

Trying tells what holds for the numbers that were tried; each removal proves its result besides.
"""

from typing import Any

import torch
from torch import Tensor

from utils.graph.elementwise import steered
from utils.graph.labels import along, varying, vector_along
from utils.graph.values import Value, live, mapped, tensors_in

_TRIALS = 3


def probed(call: Any, found: list[Tensor]) -> list[Value] | None:
    """Follow an unknown operation that takes channels one by one, None if that is not so.

    It must give the same for some of the channels as for all of them, whatever else it reads being
    of no channel; if zeros stay zeros, it may be masked.
    """
    labelled = [(tensor, value) for tensor, value in call.operands if value.planes]
    of_channels = [(t, v) for t, v in labelled if any(map(varying, v.planes))]
    if len(of_channels) != 1 or call.writes or not all(value.live for _, value in labelled):
        return None
    ((tensor, value),) = of_channels
    dims = varying(value.planes[0])
    if len(dims) != 1 or dims == [0] or not tensor.is_floating_point():
        return None
    (dim,) = dims
    if any(t.dim() != tensor.dim() or t.size(dim) != tensor.size(dim) for t in found):
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            zero = [_tried(call, tensor, dim) for _ in range(_TRIALS)]
    except Exception:  # what the operation raises for fewer channels is its own affair
        return None
    if None in zero:
        return None
    beside = [other for _, other in labelled if other is not value]
    labels = steered(call, value.planes[0], beside, "first" if all(zero) else "never")
    return [live(along(vector_along(labels, dim), dim, t.shape)) for t in found]


def _tried(call: Any, tensor: Tensor, dim: int) -> bool | None:
    """Run the operation on random numbers: does it make zeros of zeros? None if channels mix."""
    count = tensor.size(dim)
    numbers = torch.randn_like(tensor) + torch.randn(1).to(tensor)
    zeros = torch.randperm(count)[: count // 2].to(tensor.device)
    numbers.index_fill_(dim, zeros, 0.0)
    some = torch.randperm(count)[: int(torch.randint(1, count, (1,)))].sort().values
    some = some.to(tensor.device)
    whole = _given(call, tensor, numbers)
    parts = _given(call, tensor, numbers.index_select(dim, some))
    for all_of_it, part in zip(whole, parts, strict=True):
        wanted = all_of_it.index_select(dim, some)
        if wanted.shape != part.shape or not torch.allclose(wanted, part, 1e-4, 1e-5, True):
            return None
    return not any(bool(t.index_select(dim, zeros).any()) for t in whole)


def _given(call: Any, tensor: Tensor, numbers: Tensor) -> list[Tensor]:
    args, kwargs = mapped((call.args, call.kwargs), lambda t: numbers if t is tensor else t)
    return list(tensors_in(call.func(*args, **kwargs)))
