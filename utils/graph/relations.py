"""How the channels of one operation depend on the channels it reads.

Three facts travel along these relations. *Alive*, with the data: may this channel be other than
zero once some filters are masked? *Needed*, against it: does the network's output depend on it?
*Present*, both ways: is there a place for it in the smaller network, be it for a zero?

All facts are bool tensors [num_labels], indexed by label, and are only ever raised. Channels of
activations have labels, and so have the positions of parameters along each of their dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

ZERO = 0  # a place that is there and always zero (padding)
CONSTANT = 1  # no channel: a number for all places, or a place nobody can take away
FIXED = 2  # a constant that has a size of its own where channels lie: its places stay
FIRST_CHANNEL = 3
Loose = Mapping[str, bool]
_NONE: Loose = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Relation(ABC):
    """The labels that operation `node` gives out, in the order of its output channels."""

    node: str
    outputs: Tensor  # [C_out]

    @abstractmethod
    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        """Raise `alive` of the outputs from `alive` of the inputs and the filter masks."""

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        """Raise `needed` of the inputs, row by row, that a needed and alive output depends on."""
        needed[self.inputs[(needed & alive)[self.outputs]]] = True

    @abstractmethod
    def spread_present(self, present: Tensor, loose: Loose) -> None:
        """Raise `present` until what the operation reads and gives fits together.

        The layers in `loose` may pick from their input, and write into a wider output; the norms
        among them for which it says True may leave out zeros that they read.
        """

    def never_empty(self) -> list[Tensor]:
        """Return the sets of labels of which at least one must be present."""
        return [self.outputs] if len(self.outputs) else []

    def coupled(self, loose: Loose = _NONE) -> tuple[Tensor, Tensor]:
        """Return pairs of labels ([P], [P]) that live or die together."""
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Source(Relation):
    """The network's input: always there, whole."""

    is_alive = is_present = True  # whatever else is

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        alive[self.outputs] |= self.is_alive

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        pass

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        present[self.outputs] |= self.is_present

    def never_empty(self) -> list[Tensor]:
        return super().never_empty() if self.is_present else []


@dataclass(frozen=True, eq=False)
class Filters(Relation):
    """A conv or linear: each of `groups` blocks of outputs reads one block of the inputs.

    `rows` are labels of the weight's filters and bias, `columns` those of the weight's input
    positions, of which a grouped layer has none that may go. `padding` are zeros that no mask made.
    """

    module: str
    inputs: Tensor  # [C_in]
    padding: Tensor  # bool [C_in]
    groups: int
    rows: Tensor  # [P, C_out]
    columns: Tensor  # [C_in], or [0]
    maskable: bool = True  # are its outputs zero where its rows are?

    @property
    def depthwise(self) -> bool:
        """True if every filter reads a single channel of several."""
        return self.groups == len(self.inputs) > 1

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        kept = masks.get(self.module, torch.ones_like(self.outputs, dtype=torch.bool))
        if self.depthwise:
            read = self._by_group(alive[self.inputs] | self.padding)
            kept = kept & read.expand(-1, len(kept) // self.groups).flatten()
        _lift(alive, self.rows, kept)
        _lift(alive, self.columns, alive[self.inputs[: len(self.columns)]])
        _lift(alive, self.outputs, alive[self.rows].any(0))

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        outputs = (needed & alive)[self.outputs]
        _lift(needed, self.rows, outputs)
        used = outputs.reshape(self.groups, -1).any(1)  # [groups]
        needed[self._by_group(self.inputs)[used]] = True
        _lift(needed, self.columns, needed[self.inputs[: len(self.columns)]] & used.any())

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        aligned = self.module in loose
        rows = present[self.rows].any(0)
        if not aligned:
            rows = rows | present[self.outputs]
        if self.groups > 1:
            blocks = rows.reshape(self.groups, -1).any(1, keepdim=True)
            if not aligned:
                blocks = blocks | self._by_group(present[self.inputs]).any(1, keepdim=True)
            rows = blocks.expand(-1, len(self.outputs) // self.groups).flatten()
            read = blocks.expand(-1, len(self.inputs) // self.groups).flatten()
            _lift(present, self.inputs, read)
        elif len(self.columns):
            columns = present[self.columns]
            if not aligned:
                columns = columns | present[self.inputs]
            _lift(present, self.columns, columns)
            _lift(present, self.inputs, columns)
        _lift(present, self.rows, rows)
        _lift(present, self.outputs, rows)

    def never_empty(self) -> list[Tensor]:
        sets = [self.outputs, self.rows[0], self.columns, self.inputs[self.inputs > FIXED]]
        return [labels for labels in sets if len(labels)]

    def coupled(self, loose: Loose = _NONE) -> tuple[Tensor, Tensor]:
        if self.groups == 1:
            return super().coupled(loose)
        return paired(torch.cat([self._by_group(self.outputs), self._by_group(self.inputs)], 1))

    def _by_group(self, labels: Tensor) -> Tensor:
        return labels.reshape(self.groups, -1)


@dataclass(frozen=True, eq=False)
class Norm(Relation):
    """A norm with `groups` sets of channels that share statistics (batch norm: one channel each).

    A zero channel stays zero, because masking zeroes its scale and shift as well; a mask of the
    norm's own says otherwise (a shift that is left makes a constant of a zero channel). `rows` are
    the labels of its parameters and running statistics, `padding` as of `Filters`.
    """

    module: str
    inputs: Tensor  # [C]
    padding: Tensor  # bool [C]
    groups: int
    rows: Tensor  # [P, C]

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        mask = masks.get(self.module)
        read = alive[self.inputs] | self.padding
        _lift(alive, self.rows, read if mask is None else mask)
        _lift(alive, self.outputs, alive[self.rows].any(0))

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        outputs = (needed & alive)[self.outputs]
        _lift(needed, self.rows, outputs)
        needed[self.inputs.reshape(self.groups, -1)[outputs.reshape(self.groups, -1).any(1)]] = True

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        rows = present[self.rows].any(0)
        if self.module not in loose:
            rows = rows | present[self.outputs] | present[self.inputs]
        if not loose.get(self.module, False):
            blocks = rows.reshape(self.groups, -1).any(1, keepdim=True)
            rows = blocks.expand(-1, len(rows) // self.groups).flatten()
        for labels in (self.rows, self.inputs, self.outputs):
            _lift(present, labels, rows)

    def never_empty(self) -> list[Tensor]:
        return [self.outputs, self.rows[0]]

    def coupled(self, loose: Loose = _NONE) -> tuple[Tensor, Tensor]:
        groups = len(self.inputs) if loose.get(self.module, False) else self.groups
        blocks = torch.stack([self.outputs, self.inputs]).reshape(2, groups, -1)
        return paired(torch.cat([blocks[0], blocks[1]], 1))


@dataclass(frozen=True, eq=False)
class Combined(Relation):
    """Elementwise: output i combines the labels in row i of `inputs`.

    It is alive if `any` input is (a sum), if `all` are (a product), if the `first` is (a quotient),
    or always (`never` zero: a sigmoid). Where channels are zero, parameters among the operands
    are masked with them, as a norm's shift is. An operand that does not `span` all channels of the
    output is broadcast over some.
    """

    inputs: Tensor  # [C_out, operands]
    mode: str
    spans: tuple[bool, ...]
    parameters: tuple[bool, ...]

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        if any(self.parameters) and not all(self.parameters):
            live = alive[self.inputs][:, [not p for p in self.parameters]].any(1, keepdim=True)
            _lift(alive, self.inputs[:, list(self.parameters)], live)
        rows = alive[self.inputs]
        ways = {"any": rows.any(1), "all": rows.all(1), "first": rows[:, 0]}
        _lift(alive, self.outputs, ways.get(self.mode, torch.ones_like(rows[:, 0])))

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        there, none = present[self.inputs], self.inputs == CONSTANT
        spanning = (there & ~none)[:, list(self.spans)].any(1)
        _lift(present, self.outputs, spanning if any(self.spans) else (there | none).all(1))
        _lift(present, self.inputs, present[self.outputs][:, None])

    def coupled(self, loose: Loose = _NONE) -> tuple[Tensor, Tensor]:
        inputs = torch.stack([_without_spread(x) for x in self.inputs.unbind(1)], 1)
        return paired(torch.cat([self.outputs[:, None], inputs], 1))


@dataclass(frozen=True, eq=False)
class Summed(Relation):
    """Output i is a sum over row i of `inputs`: a zero in it may go."""

    inputs: Tensor  # [C_out, K]

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        _lift(alive, self.outputs, alive[self.inputs].any(1))

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        _lift(present, self.outputs, present[self.inputs].any(1))

    def never_empty(self) -> list[Tensor]:
        return [self.outputs, *self.inputs.unbind(0)]


class Blocks(Summed):
    """Every output channel is made of a whole row of input channels (pixel shuffle)."""

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        all_or_none(self.inputs, self.outputs, present)

    def never_empty(self) -> list[Tensor]:
        return [self.outputs]

    def coupled(self, loose: Loose = _NONE) -> tuple[Tensor, Tensor]:
        return paired(torch.cat([self.outputs[:, None], self.inputs], 1))


@dataclass(frozen=True, eq=False)
class Whole(Relation):
    """What must see every channel of a row, zero or not (softmax); nobody knows a `barrier`."""

    inputs: Tensor  # [R, K], one output each
    barrier: bool = False

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        alive[self.outputs] = True

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        all_or_none(self.inputs, self.outputs, present)


class Absent(Source):
    """Zeros that an aligned layer gives between its channels; they stay beside what needs them."""

    is_alive = is_present = False


class Stays(Source):
    """Positions of parameters that the network's code needs where they are."""

    is_alive = False


class Unmasked(Source):
    """Positions of parameters that are never masked, since zero there is not zero behind."""

    is_present = False


@dataclass(frozen=True, eq=False)
class Tied(Relation):
    """Positions of parameters that meet one another: there together, or not at all."""

    inputs: Tensor  # [P, 2]

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        either = alive[self.inputs].any(1)
        _lift(alive, self.inputs, either[:, None])

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        either = needed[self.inputs].any(1)
        _lift(needed, self.inputs, either[:, None])

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        either = present[self.inputs].any(1)
        _lift(present, self.inputs, either[:, None])


@dataclass(frozen=True, eq=False)
class Output(Relation):
    """What the network returns; it gives out no labels."""

    inputs: Tensor

    def spread_alive(self, alive: Tensor, masks: Mapping[str, Tensor]) -> None:
        pass

    def spread_needed(self, needed: Tensor, alive: Tensor) -> None:
        needed[self.inputs] = True

    def spread_present(self, present: Tensor, loose: Loose) -> None:
        present[self.inputs] = True


class Decided(Output):
    """What the network turns into a Python number, which it may decide by."""


def all_or_none(inputs: Tensor, outputs: Tensor, present: Tensor) -> None:
    """Let an output be there with all of its row of inputs."""
    there = (present[inputs] & (inputs >= FIRST_CHANNEL)).any(1)
    _lift(present, outputs, present[outputs] | there)
    _lift(present, inputs, present[outputs][:, None])


def _lift(fact: Tensor, labels: Tensor, flags: Tensor) -> None:
    """Raise `fact` of the labels that are flagged; labels may occur more than once."""
    fact[labels[flags.expand_as(labels)]] = True


def paired(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Pair the first entry of every row [R, K] with each of its others, constants left out."""
    first, others = rows[:, :1].expand(-1, rows.size(1) - 1).flatten(), rows[:, 1:].flatten()
    real = others >= FIRST_CHANNEL
    return first[real], others[real]


def _without_spread(labels: Tensor) -> Tensor:
    """Return labels [R] with CONSTANT for those of several rows, which do not die with one."""
    _, where, counts = labels.unique(return_inverse=True, return_counts=True)
    return torch.where(counts[where] > 1, CONSTANT, labels)
