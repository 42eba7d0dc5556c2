"""What stands around a forward pass: who is told of its modules, and that it leaves no trace."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, handle_torch_function


@contextmanager
def watching_modules(run: Any) -> Iterator[None]:
    """Tell `run` when a module is entered and left, by its `enter` and `leave`.

    A module that raises an error is never left. Code that TorchScript compiled is an operation.
    """
    original = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        entered = run.enter(module, args, kwargs)
        out = original(module, *args, **kwargs)
        run.leave(entered, out)
        return out

    compiled = {kind: kind.__call__ for kind in (torch._C.ScriptFunction, torch._C.ScriptMethod)}
    nn.Module.__call__ = call
    for kind, run_it in compiled.items():
        kind.__call__ = _as_operation(run_it)
    try:
        yield
    finally:
        nn.Module.__call__ = original
        for kind, run_it in compiled.items():
            kind.__call__ = run_it


def _as_operation(run_it: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call of compiled code that a running mode sees as one of torch's functions."""

    def call(code: Any, *args: Any, **kwargs: Any) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            return run_it(code, *args, **kwargs)

        operation.__name__ = "compiled"
        return handle_torch_function(operation, (), *args, **kwargs)

    return call


def is_self_attention(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """True for what nn.MultiheadAttention calls on one tensor: queries, keys and values of it."""
    return func is F.multi_head_attention_forward and args[0] is args[1] is args[2]


@contextmanager
def seen_through(mode: TorchFunctionMode) -> Iterator[None]:
    """Let a mode that handles one of torch's functions written in Python see what that calls."""
    original = F.has_torch_function
    F.has_torch_function = lambda _: False  # else it asks the mode again
    try:
        with mode:
            yield
    finally:
        F.has_torch_function = original


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Put back, at exit, what a forward pass may change: modes, attributes, buffers, RNG.

    Code that torch.compile compiles runs as it is written.
    """
    kept = [
        (module, {key: (value, _shallow(value)) for key, value in vars(module).items()})
        for module in model.modules()
    ]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    with torch.random.fork_rng(devices=[]), _uncompiled():
        try:
            yield
        finally:
            for module, attributes in kept:
                vars(module).clear()
                for key, (value, content) in attributes.items():
                    vars(module)[key] = _at_rest(value)
                    _refill(value, content)
            for buffer, content in buffers:
                if buffer.is_meta or not torch.equal(
                    buffer, content
                ):  # versions tell no statistics
                    buffer.detach().copy_(content)


def _uncompiled() -> AbstractContextManager:
    """Let compiled code run as it is written; if the compiler was not loaded, there is none."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _shallow(value: Any) -> Any:
    return value.copy() if type(value) in (dict, list, set) else None


def _at_rest(value: Any) -> Any:
    """Return a value; a tensor that the last forward pass computed without what it came from."""
    return value.detach() if isinstance(value, Tensor) and not value.is_leaf else value


def _refill(value: Any, content: Any) -> None:
    if type(value) is list:
        value[:] = content
    elif type(value) in (dict, set):
        value.clear()
        value.update(content)
