"""Products of tensors: of an input and a matrix of weights, of heads of attention, by einsum."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from utils.graph.attention import LETTERS, heads, lying, sizes_of
from utils.graph.elementwise import combined, elementwise, reduced
from utils.graph.labels import varying
from utils.graph.layers import filters
from utils.graph.probing import probed
from utils.graph.values import Value, live

_ATTENTION = ("query", "key", "value", "attn_mask")


def product(call: Any, found: list[Tensor]) -> list[Value] | None:
    """x @ weight, with a weight [C_in, C_out] made of parameters, or attention's; else tried."""
    features, weight = call.args[0], call.argument(1, "other", "mat2")
    if weight.dim() == features.dim() > 2:
        batch = LETTERS[: weight.dim() - 2]
        known = (features, call.value(features)), (weight, call.value(weight))
        gives = _of_heads(call, [f"{batch}ij", f"{batch}jk", f"{batch}ik"], known)
        if gives is not None:
            return [gives]
    if weight.dim() != 2 or call.value(weight).live or not call.value(features).live:
        return probed(call, found)
    last = found[0].dim() - 1
    return filters(call, found[0], features, weight, ends=(last, last), axes=(1, 0))


def attention(call: Any, found: list[Tensor]) -> list[Value] | None:
    """Follow softmax(query key^T + mask) value, None unless it has several heads."""
    query, key, value, mask = (call.argument(k, n) for k, n in enumerate(_ATTENTION))
    batch = LETTERS[: query.dim() - 2]
    if key.dim() != query.dim() or value.dim() != query.dim():
        return None
    known = [(tensor, call.value(tensor)) for tensor in (query, key, value)]
    scores = _of_heads(call, [f"{batch}qc", f"{batch}kc", f"{batch}qk"], known[:2])
    if scores is None:
        return None
    if isinstance(mask, Tensor):
        scores = _sum(call, scores, query, mask)
    if scores is None:
        return None
    shape = scores.planes[0].shape
    labels = combined(call, [(scores.planes[0], shape, False)], shape, "never")
    known = [(query.new_zeros(()).expand(shape), live(labels)), known[2]]
    gives = _of_heads(call, [f"{batch}qk", f"{batch}kv", f"{batch}qv"], known)
    return None if gives is None else [gives]


def added_product(call: Any, found: list[Tensor]) -> list[Value] | None:
    """Follow mask + x @ y, None unless the product has several heads."""
    mask, one, other = (call.argument(k, n) for k, n in enumerate(("input", "batch1", "batch2")))
    known = [(one, call.value(one)), (other, call.value(other))]
    product = _of_heads(call, ["zij", "zjk", "zik"], known)
    gives = None if product is None else _sum(call, product, one, mask)
    return None if gives is None else [gives]


def _sum(call: Any, value: Value, like: Tensor, added: Tensor) -> Value | None:
    """Return the value of a sum of what has a value, numbers as those of a tensor, and another."""
    stand_in = like.new_zeros(()).expand(value.planes[0].shape)
    operands = ((stand_in, value), (added, call.value(added)))
    call = replace(call, name="add", func=torch.add, kwargs={}, operands=operands)
    found = elementwise(replace(call, args=(stand_in, added)), [stand_in])
    return None if found is None else found[0]


def _of_heads(
    call: Any, terms: list[str], operands: Sequence[tuple[Tensor, Value]]
) -> Value | None:
    """Return the value of a product within heads, None if both factors' channels lie elsewhere."""
    values = [value for _, value in operands]
    gives = heads(call, terms, values)
    if gives is not None or not all(value.live for value in values):
        return gives
    one, other = lying(terms[:-1], values)
    if one != other or len(one) != 1 or one[0] not in terms[-1]:
        return None
    found = _multiplied(call, *terms, operands=operands)  # a head is one channel of both
    return None if found is None else found[0]


def einsum(call: Any, found: list[Tensor]) -> list[Value] | None:
    """Follow an einsum: of one tensor, of a layer's input and weight, or of what it scales."""
    tensors = [tensor for tensor, _ in call.operands]
    values = [value for _, value in call.operands]
    terms = _terms(call.args[0], tensors)
    if terms is None:
        return None
    *terms, result = terms
    if not any(value.live for value in values):
        return None
    if len(tensors) == 2 and not all(value.live for value in values):
        order = (0, 1) if values[0].live else (1, 0)
        features, weight = (tensors[k] for k in order)
        gives = _layer(call, found[0], features, weight, [terms[k] for k in order], result)
        if gives is not None:
            return gives
    if len(tensors) == 2:
        gives = _of_heads(call, [*terms, result], call.operands)
        if gives is not None:
            return [gives]
    gone = [x for x in dict.fromkeys("".join(terms)) if x not in result]
    for term, value in zip(terms, values, strict=True):
        dims = [dim for plane in value.planes for dim in varying(plane)]
        if len(tensors) > 1 and (any(term[d] in gone for d in dims) or value.live and dims[1:]):
            return None  # what sums over channels of both
    return _multiplied(call, *terms, result, operands=call.operands)


def _terms(equation: Any, tensors: list[Tensor]) -> list[str] | None:
    """Return the letters of each tensor's dimensions and of the result's, None if not followed."""
    if not isinstance(equation, str) or len(tensors) > 2:
        return None
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        once = sorted(x for x in left if left.count(x) == 1 and x.isalpha())
        right = "..." * ("..." in left) + "".join(once)
    rests = [t.dim() - len(x.replace("...", "")) for x, t in zip(terms, tensors, strict=True)]
    most = LETTERS[: max([n for n, x in zip(rests, terms, strict=True) if "..." in x], default=0)]
    written = [x.replace("...", most[len(most) - n :]) for x, n in zip(terms, rests, strict=True)]
    if any(len(set(x)) != t.dim() for x, t in zip(written, tensors, strict=True)):
        return None  # a diagonal
    return [*written, right.replace("...", most)]


def _layer(
    call: Any, out: Tensor, features: Tensor, weight: Tensor, terms: list[str], result: str
) -> list[Value] | None:
    """A layer that sums over one dimension of its input and gives another for it."""
    reads, own = terms
    summed = [x for x in own if x in reads and x not in result]
    given = [x for x in own if x not in reads and x in result]
    if len(own) != 2 or len(summed) != 1 or len(given) != 1:
        return None
    ends = reads.index(summed[0]), result.index(given[0])
    axes = own.index(given[0]), own.index(summed[0])
    return filters(call, out, features, weight, ends=ends, axes=axes)


def _multiplied(
    call: Any, *terms: str, operands: Sequence[tuple[Tensor, Value]]
) -> list[Value] | None:
    """Return labels of a product place by place, summed over the letters that are not the result's.

    The last of the terms is the result's.
    """
    *terms, result = terms
    letters = [*result, *(x for x in dict.fromkeys("".join(terms)) if x not in result)]
    sizes, spread = sizes_of(terms, [tensor for tensor, _ in operands]), []
    for term, (tensor, value) in zip(terms, operands, strict=True):
        order = [term.index(x) for x in letters if x in term]
        index = tuple(slice(None) if x in term else None for x in letters)
        planes = tuple(plane.permute(order)[index] for plane in value.planes)
        spread.append((tensor.permute(order)[index], replace(value, planes=planes, origin=None)))
    whole = spread[0][0].new_zeros(()).expand([sizes[x] for x in letters])
    value = spread[0][1]
    if len(spread) > 1:
        args = tuple(tensor for tensor, _ in spread)
        times = replace(call, name="mul", func=torch.mul, args=args, kwargs={})
        gives = elementwise(replace(times, operands=tuple(spread)), [whole])
        if gives is None:
            return None
        (value,) = gives
    dims = list(range(len(result), len(letters)))
    if not dims:
        return [value]
    out = whole[(..., *[0] * len(dims))]
    summed = replace(call, name="sum", func=torch.sum, args=(whole, dims), kwargs={})
    summed = replace(summed, operands=((whole, value),))
    return reduced(summed, whole, value, dims, [out])


PRODUCTS = {  # by their functions' names
    **dict.fromkeys(("matmul", "mm", "bmm"), product),
    "baddbmm": added_product,
    "scaleddotproductattention": attention,
    "einsum": einsum,
}
