"""A pruning plan: which filters of which conv stay, as data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from utils.pruning.compress_rates import WHOLE, num_removed
from utils.runs.schema import TEXT, number, whole

DROPPED = "its branch is dropped"  # the reason of a layer that keeps nothing
PLAN = [  # the schema of what `PruningPlan.as_list` returns
    {"conv": TEXT, "rate": number(0, below=1), "filters": whole(1), "kept": [whole(0)]}
]


@dataclass(frozen=True)
class LayerPlan:
    """The filters of one conv that stay, in ascending order."""

    conv: str
    rate: float
    filters: int
    kept: tuple[int, ...]
    cut_score: float | None = None  # the highest score among the removed filters
    tied_at_cut: bool = False  # a kept filter scores no more: only its index decided
    reason: str = ""  # why it is not simply int(rate * filters) of its own lowest filters

    def __post_init__(self) -> None:
        in_order = list(self.kept) == sorted(set(self.kept))
        if self.reason == DROPPED and not self.kept:
            return
        if not self.kept or not in_order or self.kept[0] < 0 or self.kept[-1] >= self.filters:
            raise ValueError(
                f"plan for {self.conv!r}: kept indices must be ascending, within "
                f"[0, {self.filters}), and at least one; got {list(self.kept)}"
            )

    @property
    def removed(self) -> int:
        """Number of filters that go."""
        return self.filters - len(self.kept)

    def mask(self) -> Tensor:
        """Return bool [filters], True is kept."""
        mask = torch.zeros(self.filters, dtype=torch.bool)
        mask[list(self.kept)] = True
        return mask


@dataclass(frozen=True)
class PruningPlan:
    """The layer plans of a network, in rate order."""

    layers: tuple[LayerPlan, ...]

    def masks(self, first: int | None = None) -> dict[str, Tensor]:
        """Return {conv: mask} of the layers that lose filters, of the `first` n layers only."""
        return {layer.conv: layer.mask() for layer in self.layers[:first] if layer.removed}

    def without(self, dropped: Iterable[str]) -> "PruningPlan":
        """Return the plan by which the layers named keep nothing, since their branch is dropped.

        Raises:
            ValueError: it has no such layer.
        """
        dropped = set(dropped)
        unknown = dropped - {layer.conv for layer in self.layers}
        if unknown:
            raise ValueError(f"no layer {min(unknown)!r} in the plan: expected one that is pruned")
        gone = {"kept": (), "cut_score": None, "tied_at_cut": False, "reason": DROPPED}
        return PruningPlan(
            tuple(replace(x, **gone) if x.conv in dropped else x for x in self.layers)
        )

    def num_kept(self) -> dict[str, int]:
        """Return {conv: filters that stay}."""
        return {layer.conv: len(layer.kept) for layer in self.layers}

    def num_filters(self) -> dict[str, int]:
        """Return {conv: filters that it has in the dense network}."""
        return {layer.conv: layer.filters for layer in self.layers}

    def as_list(self) -> list[dict[str, Any]]:
        """Return the plan as JSON-able data."""
        return [{**asdict(layer), "kept": list(layer.kept)} for layer in self.layers]

    @staticmethod
    def from_list(layers: Sequence[Mapping[str, Any]]) -> "PruningPlan":
        """Read what `as_list` wrote.

        Raises:
            ValueError: if kept indices are out of range, repeated, or missing, or an entry is
                not what `as_list` writes.
        """
        try:
            return PruningPlan(
                tuple(LayerPlan(**{**layer, "kept": tuple(layer["kept"])}) for layer in layers)
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"pruning plan: an entry does not fit LayerPlan: {error}") from None


def plan_by_rates(
    scores: Mapping[str, Tensor], rates: Sequence[float], part: Fraction = WHOLE
) -> PruningPlan:
    """Plan to remove the int(rate * F) lowest-scoring filters of every conv, or a part of them.

    Ties go by index: of equal scores the lower index is removed first, as a stable sort has it.

    Args:
        scores: {conv: [F]}, in the order of `rates`.
        part: of n filters to go, ceil(part * n) are planned.

    Raises:
        ValueError: if a score is NaN or Inf, naming the conv, or a rate is not in [0, 1).
    """
    pairs = zip(scores.items(), rates, strict=True)
    return PruningPlan(tuple(_plan_layer(conv, score, rate, part) for (conv, score), rate in pairs))


def check_finite(layer: str, scores: Tensor) -> None:
    """Refuse scores that cannot be ordered.

    Raises:
        ValueError: naming the layer and how many of its scores are NaN or Inf.
    """
    wrong = int((~scores.isfinite()).sum())
    if wrong:
        raise ValueError(f"scores of {layer!r}: {wrong} of {len(scores)} are NaN or Inf")


def _plan_layer(conv: str, scores: Tensor, rate: float, part: Fraction) -> LayerPlan:
    check_finite(conv, scores)
    removed = num_removed(rate, len(scores), part)
    ordered, order = scores.sort(stable=True)
    kept = tuple(sorted(order[removed:].tolist()))
    if not removed:
        return LayerPlan(conv, rate, len(scores), kept)
    cut = float(ordered[removed - 1])
    return LayerPlan(conv, rate, len(scores), kept, cut, bool(ordered[removed] == cut))
