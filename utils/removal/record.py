"""How a removal was done besides its masks: what a file holds so that loading does the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.channel_graph import ChannelGraph

ALIGN = ("compact", "zeros")
WHOLE = 4  # the last of the ways to let an operation follow
Places = dict[tuple[int, int], int]  # (run, operation) -> which way
NO_LABELS = torch.empty(0, dtype=torch.long)
_NAME = "_removals"  # the attribute of a removed network


@dataclass(frozen=True, eq=False)
class Removal:
    """How channels were removed.

    `align` is how those are left that do not line up, `ways` how operations were made to follow
    that do not by themselves. Of the parameters that the network's own code adds to channels, those
    with labels `unmasked` [K] were not masked with them. The constants with labels `folded` [K]
    went into the layers that read them; None says that this is still to be found out.
    """

    align: str = "compact"
    ways: Places = field(default_factory=dict)
    unmasked: Tensor = NO_LABELS
    folded: Tensor | None = None

    def data(self) -> dict[str, Any]:
        """Return it as a file holds it."""
        return {
            "align": self.align,
            "ways": torch.tensor([[*k, v] for k, v in self.ways.items()]).long().reshape(-1, 3),
            "unmasked": self.unmasked,
            "folded": NO_LABELS if self.folded is None else self.folded,
        }


def removals_of(model: nn.Module) -> tuple[Removal, ...]:
    """Return how a network, and those it was made of, were made smaller, the first time first."""
    return vars(model).get(_NAME, ())


def last_removal(model: nn.Module) -> Removal | None:
    """Return how a network was made smaller the last time, None if it says nothing of it."""
    return next(reversed(removals_of(model)), None)


def note_removal(slim: nn.Module, removal: Removal) -> None:
    """Let a network that was just made smaller say how; its copies say it, too."""
    vars(slim)[_NAME] = (*removals_of(slim), removal)


def read_removal(data: Any, graph: ChannelGraph, path: Any) -> Removal:
    """Return what `Removal.data` gave, for a network with that graph.

    Raises:
        ValueError: it is something else, or of another network.
    """
    if not isinstance(data, Mapping) or data.get("align") not in ALIGN:
        raise ValueError(f"{path}: 'removals' do not say how filters were removed: {data!r:.80}")
    ways, labels = data.get("ways"), [data.get("unmasked"), data.get("folded", NO_LABELS)]
    if not are_whole_numbers(ways, (-1, 3)) or not all(
        are_whole_numbers(each, (-1,)) for each in labels
    ):
        raise ValueError(f"{path}: 'removals' hold {data!r:.80}: expected whole numbers")
    fits = bool((torch.cat(labels) < graph.num_labels).all()) and all(
        run < len(graph.runs) and operation < len(graph.runs[run].operations) and way <= WHOLE
        for run, operation, way in ways.tolist()
    )
    if not fits:
        raise ValueError(f"{path}: 'removals' name operations that the network does not have")
    found = {(run, operation): way for run, operation, way in ways.tolist()}
    return Removal(data["align"], found, *labels)


def are_whole_numbers(values: Any, shape: Sequence[int]) -> bool:
    """True for int64 numbers from 0 of that shape, -1 for any size."""
    return (
        type(values) is Tensor
        and values.layout == torch.strided
        and not values.is_meta
        and values.dtype == torch.int64
        and values.dim() == len(shape)
        and all(n in (-1, size) for n, size in zip(shape, values.shape, strict=True))
        and bool((values >= 0).all())
    )
