"""Labels of parameters and buffers: one for each position along each dimension."""

from collections.abc import Iterator

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.labels import along
from utils.graph.relations import FIRST_CHANNEL, Tied
from utils.graph.values import Value


class ParameterLabels:
    """Gives out labels; those of a parameter are given out once, when it is first read.

    A tensor with several names (tied weights) goes by its first.

    Attributes:
        names: {id of a parameter or buffer: its name}.
        paths: {id of a module: its path}.
        labels: {name: labels [size] of every dimension} of the parameters read so far.
        masked: {name: dimensions along which masks may zero it}.
        ties: labels of parameters that met one another.
    """

    def __init__(self, model: nn.Module):
        named = [*model.named_parameters(), *model.named_buffers()]
        self.names: dict[int, str] = {}
        for name, tensor in named:
            self.names.setdefault(id(tensor), name)
        self.tensors = {self.names[id(tensor)]: tensor for _, tensor in named}
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.modules = dict(model.named_modules())
        self.labels: dict[str, tuple[Tensor, ...]] = {}
        self.masked: dict[str, set[int]] = {}
        self.ties: list[Tied] = []
        self.layers: dict[str, set[str]] = {}  # modules whose weights have names of their own
        self.num_labels = FIRST_CHANNEL

    def fresh(self, count: int) -> Tensor:
        """Return labels that nothing else has."""
        self.num_labels += count
        return torch.arange(self.num_labels - count, self.num_labels)

    def value(self, name: str) -> Value:
        """Return the labels of a parameter or buffer."""
        tensor = self.tensors[name]
        if tensor.dim() == 0 or not (tensor.is_floating_point() or tensor.dtype == torch.bool):
            return Value()
        if name not in self.labels:
            self.labels[name] = tuple(self.fresh(size) for size in tensor.shape)
        planes = tuple(
            along(vector, dim, tensor.shape)
            for dim, vector in enumerate(self.labels[name])
            if len(vector) > 1
        )
        return Value(planes, False, frozenset([name]), name)

    def mask_rows(self, names: frozenset[str] | None, rows: Tensor) -> bool:
        """Let masks zero the parameters along the dimension that holds `rows`; False if none.

        Each may hold a part of them: biases may be joined.
        """
        found = {name: self._dims_of(name, rows) for name in names or ()}
        if not found or not all(found.values()):
            return False
        for name, dims in found.items():
            self.masked.setdefault(name, set()).update(dims)
        return True

    def trained(self, names: frozenset[str]) -> bool:
        """True if all of these are parameters, none a buffer."""
        return bool(names) and all(isinstance(self.tensors[n], nn.Parameter) for n in names)

    def _dims_of(self, name: str, rows: Tensor) -> set[int]:
        wanted = [rows.unique()]
        wanted += self._tied_to(wanted[0])
        vectors = enumerate(self.labels[name])
        return {dim for dim, vector in vectors if any(torch.isin(vector, w).all() for w in wanted)}

    def _tied_to(self, rows: Tensor) -> Iterator[Tensor]:
        for tie in self.ties:
            left, right = tie.inputs.unbind(1)
            if torch.equal(left.unique(), rows):
                yield right.unique()
            if torch.equal(right.unique(), rows):
                yield left.unique()
