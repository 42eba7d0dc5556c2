"""Which places a smaller network must have, given those it needs."""

from collections.abc import Sequence

from torch import Tensor

from utils.graph.relations import FIRST_CHANNEL, Loose, Relation


def spread(relations: Sequence[Relation], keep: Tensor, loose: Loose) -> Tensor:
    """Return `keep` [num_labels], raised until all operations fit together and none is empty.

    `loose` is what relations take.
    """
    present = keep.clone()
    present[:FIRST_CHANNEL] = True
    while True:
        _settle(relations, present, loose)
        empty = [
            labels[0]
            for relation in relations
            for labels in relation.never_empty()
            if not present[labels].any()
        ]
        if not empty:
            return present
        for label in empty:
            present[label] = True


def _settle(relations: Sequence[Relation], present: Tensor, loose: Loose) -> None:
    before = -1
    while before != int(present.sum()):
        before = int(present.sum())
        for relation in relations:
            relation.spread_present(present, loose)
        for relation in reversed(relations):
            relation.spread_present(present, loose)
