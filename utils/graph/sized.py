"""Tensors made out of sizes: as many places as what the sizes count."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from utils.graph.counted import numbers_in
from utils.graph.labels import along, compressed, everywhere
from utils.graph.relations import ZERO, Combined
from utils.graph.values import Value, live

UNIFORM = frozenset("zeros ones full empty rand randn newzeros newones newfull newempty".split())


def sized(call: Any, out: Tensor) -> Value:
    """zeros(x.shape) and its like: as many places as x has channels."""
    zeros = call.name in ("zeros", "newzeros") or call.name in ("full", "newfull") and not out.any()
    numbers = numbers_in((call.args, call.kwargs))
    sizes = list(_sizes_given(call))
    if not numbers or call.name not in UNIFORM or [int(n) for n in sizes] != list(out.shape):
        return live(everywhere(ZERO, out.shape)) if zeros and out.dim() else Value()
    exact = [d for d, n in enumerate(sizes) if getattr(n, "exact", False)]
    free = sizes if zeros else [sizes[d] for d in exact[:1]]  # zeros are to be written over
    for number in numbers:
        if all(number is not size for size in free):
            call.run._keep_counted(number.labels, call.name)
    if not exact:
        return live(everywhere(ZERO, out.shape)) if zeros else Value()
    labels = sizes[exact[0]].labels
    mode = "any" if zeros else "never"
    node = call.run.node(call.name)
    made = call.run.record(
        Combined,
        node,
        len(labels),
        inputs=labels[:, None],
        mode=mode,
        spans=(True,),
        parameters=(False,),
    )
    return live(compressed(along(made, exact[0], out.shape)))


def _sizes_given(call: Any) -> Iterator[int]:
    args = [a for a in call.args if not isinstance(a, Tensor)]
    if "size" in call.kwargs:
        args = [call.kwargs["size"]]
    for argument in args:
        if isinstance(argument, int) and not isinstance(argument, bool):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from argument
            return
