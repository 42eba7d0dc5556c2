"""The proof of a removal: the smaller network computes what the masked one computes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.graph.channel_graph import ChannelGraph
from utils.graph.forward_pass import left_alone, watching_modules
from utils.graph.inputs import called, drawn, repeated
from utils.graph.operations import operation_name
from utils.graph.values import tensors_in
from utils.removal.misfits import Misfit
from utils.runs.borrowed_state import evaluating, training

_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)  # compute otherwise unless watched
Modes = tuple[Callable[[nn.Module], AbstractContextManager[nn.Module]], ...]
_TOLERANCE = {torch.float64: 5e-10, torch.float32: 1e-3}  # of an output's largest value
_FEW, _MORE = 2, 8  # images; statistics of two values let rounding grow, those of eight do not


@dataclass(frozen=True)
class Difference:
    """Where two networks part: the first module that differs, by how much, in which mode."""

    module: str
    size: float
    mode: str

    def __str__(self) -> str:
        return f"by {self.size:.3g} in {self.mode} mode, first in module {self.module!r}"

    def misfit(self, graph: ChannelGraph) -> Misfit:
        """Return the operations of the module; all if it has none that was followed."""
        every = [
            (number, at, operation.path)
            for number, run in enumerate(graph.runs)
            for at, operation in enumerate(run.operations)
        ]
        inside = [place for place in every if f"{place[2]}.".startswith(f"{self.module}.")]
        places = inside if self.module and inside else every
        return Misfit([(number, at) for number, at, _ in places], str(self))


@torch.no_grad()
def first_difference(
    wanted: nn.Module,
    found: nn.Module,
    graph: ChannelGraph,
    *,
    modes: Modes = (evaluating, training),
) -> Difference | None:
    """Compare two networks on random inputs of the example's shape, in float64, in both modes.

    Dropout is left out, and other random numbers are drawn alike. A mode in which `wanted` itself
    cannot be run, or gives two answers to one question, is left out.
    """
    for dtype in (torch.float64, torch.float32):
        try:
            with _in_dtype(wanted, dtype), _in_dtype(found, dtype):
                return _first_difference(wanted, found, graph, dtype, modes)
        except _NotRun:
            continue
    return None


@contextmanager
def _in_dtype(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let a network compute in another dtype; at exit it has the tensors that it had before."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    kept = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(dtype, copy=True)
        yield
    finally:
        for tensor, content in zip(tensors, kept, strict=True):
            tensor.data = content


class _NotRun(Exception):
    """The wanted network does not run in eval mode in this dtype."""


def _first_difference(
    wanted: nn.Module, found: nn.Module, graph: ChannelGraph, dtype: torch.dtype, modes: Modes
) -> Difference | None:
    for mode in modes:
        first = _answers(wanted, graph, mode)
        if first is None and mode is evaluating:
            raise _NotRun
        if first is None:
            continue
        second = _answers(found, graph, mode)
        name = "eval" if mode is evaluating else "train"
        if second is None:
            return Difference("", float("inf"), name)
        if _gap(first, second, dtype) == 0.0:
            continue
        more = _answers(wanted, graph, mode, images=_MORE)
        images, first = (_FEW, first) if more is None else (_MORE, more)
        records = [_Watcher(wanted), _Watcher(found)]
        again = [
            _answers(m, graph, mode, w, images=images)
            for m, w in zip((wanted, found), records, strict=True)
        ]
        if again[0] is None or _gap(first, again[0], dtype):  # it answers at random
            continue
        size = float("inf") if again[1] is None else _gap(first, again[1], dtype)
        if size:
            return Difference(_first_module(*(w.record for w in records), dtype), size, name)
    return None


Record = list[tuple[str, list[Tensor]]]


def _answers(
    model: nn.Module,
    graph: ChannelGraph,
    mode: Any,
    watcher: "_Watcher | None" = None,
    *,
    images: int = _FEW,
) -> list[Tensor] | None:
    """Return what the network gives, None if it fails; tell `watcher` of its modules."""
    watching = nullcontext() if watcher is None else watching_modules(watcher)
    fused = mode is evaluating and any(isinstance(m, _FUSED) for m in model.modules())
    with left_alone(model), mode(model):
        torch.manual_seed(0)
        shaped = repeated(graph.example, images, model)
        inputs = drawn(shaped, lambda t: torch.randn_like(t) if t.is_floating_point() else t)
        try:
            with watching, nullcontext() if fused else _NoDropout():
                outputs = called(model, inputs)
        except Exception:  # the network's own code, in a mode that it need not have
            return None
    return list(_numbers(outputs))


def _numbers(outputs: Any) -> Iterator[Tensor]:
    yield from tensors_in(outputs)
    if isinstance(outputs, list | tuple):
        for value in outputs:
            if isinstance(value, int | float):
                yield torch.tensor(float(value))


class _Watcher:
    """Notes what each module gives."""

    def __init__(self, model: nn.Module):
        self._paths = {id(module): path for path, module in model.named_modules()}
        self.record: Record = []

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> str:
        """Return the module's path."""
        return self._paths.get(id(module), "")

    def leave(self, path: str, out: Any) -> None:
        """Note what it gave."""
        self.record.append((path, [t.detach().clone() for t in tensors_in(out)]))


class _NoDropout(TorchFunctionMode):
    """Lets dropout pass everything: its numbers are drawn for tensors of another size."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if "dropout" in operation_name(func) and isinstance(args[0] if args else None, Tensor):
            return args[0]
        if func is F.multi_head_attention_forward:
            kwargs = {**kwargs, "training": False}  # which says nothing else
        if func is F.scaled_dot_product_attention:
            beside = dict(zip(_BESIDE, args[4:], strict=False))
            args, kwargs = args[:4], {**beside, **kwargs, "dropout_p": 0.0}
        return func(*args, **kwargs)


_BESIDE = ("dropout_p", "is_causal")  # attention's arguments that may stand behind its tensors


def _gap(wanted: list[Tensor], found: list[Tensor], dtype: torch.dtype) -> float:
    """Return the largest difference, 0 within the tolerance, infinity where the shapes differ."""
    if [t.shape for t in wanted] != [t.shape for t in found]:
        return float("inf")
    worst = 0.0
    for a, b in zip(wanted, found, strict=True):
        if not a.numel():
            continue
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        a, b = a.double(), b.double()
        same = (a == b) | (a.isnan() & b.isnan())
        gap = torch.where(same, 0.0, (a - b).abs().nan_to_num(float("inf")))
        size, scale = float(gap.max()), float(a.nan_to_num(0.0, 0.0, 0.0).abs().max())
        if size > _TOLERANCE[dtype] * scale + 1e-300:
            worst = max(worst, size)
    return worst


def _first_module(wanted: Record, found: Record, dtype: torch.dtype) -> str:
    """Return the first module whose outputs have the same shapes and differ, "" for the network."""
    for (path, a), (other, b) in zip(wanted, found, strict=False):
        if path != other:
            return path
        if a and [t.shape for t in a] == [t.shape for t in b] and _gap(a, b, dtype):
            return path
    return ""
