"""How far the images decide the ranks: the noise of the scores, and of the choice they make."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from utils.graph.prunable import Site
from utils.runs import processes

DRAWS = 3  # sets of images, none in two of them, that are compared with one another


class RankRecorder:
    """Keeps the ranks of every image, as the `after_layer` of `estimate_ranks`."""

    def __init__(self):
        self._parts: dict[Site, list[Tensor]] = {}

    def __call__(self, site: Site, ranks: Tensor) -> None:  # [N, C]
        self._parts.setdefault(site, []).append(ranks.to("cpu", torch.int16))

    def ranks(self) -> Mapping[Site, Tensor]:
        """Return {site: int16 [images, filters]}, the images in the order in which they came.

        Of several processes, each of which took a batch in turn, all get the ranks of all.
        """
        found = processes.gathered(self._parts)
        rounds = {site: zip_longest(*(parts.get(site, ()) for parts in found)) for site in found[0]}
        return {
            site: torch.cat([ranks for turn in turns for ranks in turn if ranks is not None])
            for site, turns in rounds.items()
        }


def mean_ranks(ranks: Tensor) -> Tensor:
    """Return the score of every filter over some images: [N, C] -> float64 [C] (HRank, Eq. 5)."""
    return ranks.sum(0, dtype=torch.int64).double() / len(ranks)


def mean_ranks_by_batch(ranks: Tensor, batch_size: int) -> Tensor:
    """Return the scores that each whole batch alone gives: [N, C] -> float64 [batches, C]."""
    whole = ranks[: len(ranks) // batch_size * batch_size]
    return whole.unflatten(0, (-1, batch_size)).double().mean(1)


def standard_errors(ranks: Tensor) -> Tensor:
    """Return the standard error of every filter's mean rank: [N, C], N >= 2 -> float64 [C]."""
    return ranks.double().std(0) / math.sqrt(len(ranks))


@dataclass(frozen=True)
class Cut:
    """Where a layer's scores are cut, and whether the images can tell the two sides apart.

    `gap` is how much more the lowest kept filter scores than the highest removed one, and
    `standard_error` that of the gap: of the difference of their ranks on the same image, averaged
    over the images. `undecided` counts the filters, these two among them, whose score is not more
    than 2 such standard errors away from that of the other side's nearest filter.
    """

    highest_removed: int
    lowest_kept: int
    gap: float
    standard_error: float
    undecided: int

    @property
    def tied(self) -> bool:
        """Whether only the index decided."""
        return self.gap == 0

    @property
    def inside_noise(self) -> bool:
        """Whether the gap is at most 2 of its standard errors."""
        return self.gap <= 2 * self.standard_error


def find_cut(ranks: Tensor, kept: Tensor) -> Cut | None:
    """Return the cut between kept and removed filters of a layer, None where all are kept.

    Args:
        ranks: [N, C], N >= 2.
        kept: bool [C], True for the filters that score highest.
    """
    if kept.all():
        return None
    scores = mean_ranks(ranks)
    highest_removed = int(scores.masked_fill(kept, -math.inf).argmax())
    lowest_kept = int(scores.masked_fill(~kept, math.inf).argmin())
    nearest = torch.where(kept, highest_removed, lowest_kept)  # [C], on the other side of the cut
    differences = (ranks - ranks[:, nearest]).double()  # [N, C], of ranks on the same image
    gaps, errors = differences.mean(0).abs(), standard_errors(differences)
    return Cut(
        highest_removed,
        lowest_kept,
        float(scores[lowest_kept] - scores[highest_removed]),
        float(errors[lowest_kept]),
        int((gaps <= 2 * errors).sum()),
    )


def num_common(kept: Tensor, other: Tensor) -> int:
    """Return how many filters two choices bool [C] both keep."""
    return int((kept & other).sum())


def num_common_by_chance(kept: int, filters: int) -> float:
    """Return how many filters two random choices of `kept` out of `filters` share on average."""
    return kept * kept / filters


def order_correlation(scores: Tensor, other: Tensor) -> float | None:
    """Return Spearman's correlation of two scores [C], in [-1, 1]; ties share their mean position.

    None if all filters score the same in either: then there is no order.
    """
    positions = torch.stack([_positions(scores), _positions(other)])
    if (positions == positions[:, :1]).all(1).any():
        return None
    return float(torch.corrcoef(positions)[0, 1].clamp(-1, 1))


def _positions(scores: Tensor) -> Tensor:
    """Return the position of every score in ascending order, from 0: float64 [C]."""
    below = (scores[:, None] > scores).sum(1)
    equal = (scores[:, None] == scores).sum(1)
    return below + (equal.double() - 1) / 2
