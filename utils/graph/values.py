"""What is known of each tensor of a running network: the labels of its positions.

In-place operations are seen through every name: what shares memory with a tensor that is written to
gets new labels where they overlap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.graph.labels import compressed, everywhere, without_borders
from utils.graph.relations import CONSTANT


@dataclass(frozen=True, eq=False)
class Value:
    """The labels of a tensor's positions.

    An activation is `live` and has one plane of labels, of its shape. What is made of parameters
    alone has a plane for each of their dimensions, and none if no position of it may go.
    `zeroing` names the parameters whose zeros make zeros of it, None if none do. `origin` is its
    name, if it is a parameter itself.
    """

    planes: tuple[Tensor, ...] = ()
    live: bool = False
    zeroing: frozenset[str] | None = None
    origin: str | None = None

    def plane(self, shape: torch.Size) -> Tensor:
        """Return the labels of a value of one plane or none."""
        return self.planes[0] if self.planes else everywhere(CONSTANT, shape)


def live(labels: Tensor) -> Value:
    """Return an activation with these labels."""
    return Value((labels,), True)


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples, dicts and dataclasses, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
    elif hasattr(values, "__dataclass_fields__") and not isinstance(values, type):
        for name in values.__dataclass_fields__:
            yield from tensors_in(getattr(values, name, None))


def mapped(values: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return nested arguments with every tensor changed."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, dict):
        return {key: mapped(value, change) for key, value in values.items()}
    if isinstance(values, list | tuple):
        items = [mapped(value, change) for value in values]
        if isinstance(values, list):
            return items
        return type(values)(*items) if hasattr(values, "_fields") else tuple(items)
    return values


class Values:
    """The values of all tensors seen in a run; it keeps them alive, so that no id is used twice.

    Args:
        parameter: returns the value of a parameter or buffer by its name.
        names: {id of a parameter or buffer: its name}.
    """

    def __init__(self, parameter: Callable[[str], Value], names: dict[int, str]):
        self._parameter, self._names = parameter, names
        self._known: dict[int, tuple[Tensor, Value]] = {}
        self._sharing: dict[int, list[Tensor]] = {}

    def get(self, tensor: Tensor) -> Value:
        """Return what is known of the tensor."""
        known = self._known.get(id(tensor))
        if known is not None:
            return known[1]
        if id(tensor) in self._names:
            return self._parameter(self._names[id(tensor)])
        sharing = self._sharing.get(_storage(tensor), [])
        if not sharing:
            return Value()
        value = self._through(tensor, sharing)
        self.put(tensor, value)
        return value

    def put(self, tensor: Tensor, value: Value) -> None:
        """Note the value of a tensor that was just made."""
        if id(tensor) not in self._known:
            self._sharing.setdefault(_storage(tensor), []).append(tensor)
        self._known[id(tensor)] = tensor, value

    def overwrite(self, tensor: Tensor, value: Value) -> None:
        """Note the value of a tensor that was written to, and of what shares its memory."""
        others = [t for t in self._sharing.get(_storage(tensor), []) if t is not tensor]
        before = [(other, self.get(other)) for other in others]
        self.put(tensor, value)
        for other, old in before:
            if _place(other) == _place(tensor):
                self.put(other, value)
            elif old.live:
                memory = _memory(other)
                _window(memory, other).copy_(old.plane(other.shape))
                _window(memory, tensor).copy_(value.plane(tensor.shape))
                labels = compressed(_window(memory, other).clone())
                self.put(other, Value((without_borders(labels),), True))

    def _through(self, tensor: Tensor, sharing: list[Tensor]) -> Value:
        """Return the value of an unseen tensor in memory that others were seen in."""
        for other in sharing:
            if _place(other) == _place(tensor):
                return self._known[id(other)][1]
        memory = _memory(tensor)
        for other in sharing:
            value = self._known[id(other)][1]
            if not value.live:
                return Value()  # a part of parameters, of which no position may go
            _window(memory, other).copy_(value.plane(other.shape))
        labels = compressed(_window(memory, tensor).clone())
        return Value((without_borders(labels),), True)


def shared(one: Tensor, other: Tensor) -> bool:
    """True if both lie in the same memory."""
    return _storage(one) == _storage(other)


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (RuntimeError, NotImplementedError):  # sparse, meta: shares with nothing
        return id(tensor)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _memory(tensor: Tensor) -> Tensor:
    """Return constant labels for the whole memory that the tensor lies in."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    return torch.full((size,), CONSTANT)


def _window(memory: Tensor, tensor: Tensor) -> Tensor:
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
