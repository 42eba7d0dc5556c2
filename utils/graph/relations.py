"""How the channels of one operation depend on the channels it reads.

Two facts travel along these relations. *Alive*, with the data: may this channel be other than zero
once some filters are masked? *Needed*, against it: does the network's output depend on it? What is
alive and needed has to be computed; everything else can go.

All facts are bool tensors [num_labels], indexed by label.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ZERO, CONSTANT = 0, 1


@dataclass(frozen=True, eq=False)
class Relation(ABC):
    """The labels that operation `node` gives out, in the order of its output channels."""

    node: str
    outputs: Tensor  # [C_out]

    @abstractmethod
    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        """Set `alive` of the outputs from `alive` of the inputs and the filter masks."""

    @abstractmethod
    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        """Raise `needed` of the inputs that a needed and alive output depends on."""

    def complete(self, keep: Tensor) -> None:  # noqa: B027 (most relations need no completion)
        """Raise `keep` of outputs that cannot be dropped one by one."""

    def never_empty(self) -> list[Tensor]:
        """Return the sets of labels of which at least one must be kept."""
        return [self.outputs] if len(self.outputs) else []

    def coupled(self) -> tuple[Tensor, Tensor]:
        """Return pairs of labels ([P], [P]) that live or die together."""
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Source(Relation):
    """The network's input: always there, whole."""

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        alive[self.outputs] = True

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        pass

    def complete(self, keep: Tensor) -> None:
        keep[self.outputs] = True


@dataclass(frozen=True, eq=False)
class Filters(Relation):
    """A conv or linear: each of `groups` blocks of outputs reads one block of the inputs."""

    module: str
    inputs: Tensor  # [C_in]
    groups: int

    @property
    def depthwise(self) -> bool:
        """True if every filter reads a single channel of several."""
        return self.groups == len(self.inputs) > 1

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        mask = masks.get(self.module)
        kept = torch.ones_like(self.outputs, dtype=torch.bool) if mask is None else mask
        if self.depthwise:
            read = alive[self.inputs] | (self.inputs == ZERO)  # padding was never masked
            kept = kept & self._by_group(read).expand(-1, self._width).flatten()
        alive[self.outputs] = kept

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        used = (needed & alive)[self._by_group(self.outputs)].any(1)  # [groups]
        needed[self._by_group(self.inputs)[used]] = True

    def complete(self, keep: Tensor) -> None:
        if self.groups > 1:
            blocks = self._by_group(self.outputs)
            keep[blocks[keep[blocks].any(1)]] = True

    def never_empty(self) -> list[Tensor]:
        inputs = self.inputs[self.inputs > CONSTANT]
        return [self.outputs, inputs] if len(inputs) else [self.outputs]

    def reads(self, keep: Tensor) -> Tensor:
        """Return bool [C_in]: the input positions that the smaller layer reads."""
        if self.groups == 1:
            return keep[self.inputs]
        used = keep[self._by_group(self.outputs)].any(1, keepdim=True)
        return used.expand(-1, len(self.inputs) // self.groups).flatten()

    def coupled(self) -> tuple[Tensor, Tensor]:
        if self.groups == 1:
            return super().coupled()
        return _tied(torch.cat([self._by_group(self.outputs), self._by_group(self.inputs)], 1))

    @property
    def _width(self) -> int:
        return len(self.outputs) // self.groups

    def _by_group(self, labels: Tensor) -> Tensor:
        return labels.reshape(self.groups, -1)


@dataclass(frozen=True, eq=False)
class Norm(Relation):
    """A norm with `groups` sets of channels that share statistics (batch norm: one channel each).

    A zero channel stays zero, because masking zeroes its scale and shift as well; a mask of the
    norm's own says otherwise (a shift that is left makes a constant of a zero channel).
    """

    module: str
    inputs: Tensor  # [C]
    groups: int

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        mask = masks.get(self.module)
        read = alive[self.inputs] | (self.inputs == ZERO)  # padding was never masked
        alive[self.outputs] = read if mask is None else mask

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        used = (needed & alive)[self.outputs.reshape(self.groups, -1)].any(1)
        needed[self.inputs.reshape(self.groups, -1)[used]] = True

    def complete(self, keep: Tensor) -> None:
        blocks = self.outputs.reshape(self.groups, -1)
        keep[blocks[keep[blocks].any(1)]] = True

    def reads(self, keep: Tensor) -> Tensor:
        """Return bool [C]: the input positions that the smaller norm reads."""
        return keep[self.outputs]

    def coupled(self) -> tuple[Tensor, Tensor]:
        blocks = torch.stack([self.outputs, self.inputs]).reshape(2, self.groups, -1)
        return _tied(torch.cat([blocks[0], blocks[1]], 1))


@dataclass(frozen=True, eq=False)
class Combined(Relation):
    """Elementwise: output i combines the labels in row i of `inputs`.

    It is alive if `any` input is (a sum), if `all` are (a product), or if the `first` is (a
    quotient).
    """

    inputs: Tensor  # [C_out, operands]
    mode: str

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        rows = alive[self.inputs]
        alive[self.outputs] = {
            "any": rows.any(1),
            "all": rows.all(1),
            "first": rows[:, 0],
        }[self.mode]

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        needed[self.inputs[(needed & alive)[self.outputs]]] = True

    def coupled(self) -> tuple[Tensor, Tensor]:
        inputs = torch.stack([_without_spread(x) for x in self.inputs.unbind(1)], 1)
        return _tied(torch.cat([self.outputs[:, None], inputs], 1))


@dataclass(frozen=True, eq=False)
class Blocks(Relation):
    """Pixel shuffle: every output channel is made of a whole row of input channels."""

    inputs: Tensor  # [C_out, channels per block]

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        alive[self.outputs] = alive[self.inputs].any(1)

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        needed[self.inputs[(needed & alive)[self.outputs]]] = True

    def reads(self, keep: Tensor) -> Tensor:
        """Return bool [C_in]: whole blocks of the outputs that stay."""
        return keep[self.outputs].repeat_interleave(self.inputs.size(1))

    def coupled(self) -> tuple[Tensor, Tensor]:
        return _tied(torch.cat([self.outputs[:, None], self.inputs], 1))


@dataclass(frozen=True, eq=False)
class Constants(Relation):
    """An elementwise function with f(0) != 0: output i reads input i and is never zero."""

    inputs: Tensor  # [C]

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        alive[self.outputs] = True

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        needed[self.inputs[needed[self.outputs]]] = True

    def coupled(self) -> tuple[Tensor, Tensor]:
        return _tied(torch.stack([self.outputs, self.inputs], 1))


@dataclass(frozen=True, eq=False)
class Whole(Relation):
    """An operation that must see every channel, zero or not (softmax or mean over channels)."""

    inputs: Tensor  # [C]

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        alive[self.outputs] = True

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        if needed[self.outputs].any():
            needed[self.inputs] = True

    def complete(self, keep: Tensor) -> None:
        keep[self.outputs] = True


@dataclass(frozen=True, eq=False)
class Output(Relation):
    """What the network returns; it gives out no labels."""

    inputs: Tensor

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        pass

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        needed[self.inputs] = True


def _tied(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Pair the first entry of every row [R, K] with each of its others, constants left out."""
    first, others = rows[:, :1].expand(-1, rows.size(1) - 1).flatten(), rows[:, 1:].flatten()
    real = others > CONSTANT
    return first[real], others[real]


def _without_spread(labels: Tensor) -> Tensor:
    """Return labels [R] with CONSTANT for those of several rows.

    A channel that is spread over others (a spatial gate, a softmax) does not die with one of them.
    """
    _, where, counts = labels.unique(return_inverse=True, return_counts=True)
    return torch.where(counts[where] > 1, CONSTANT, labels)
