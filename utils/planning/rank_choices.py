"""Which filters the ranks of some images choose, and those of others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from torch import Tensor

from utils.pruning.plan import plan_by_rates
from utils.rank.rank_study import (
    DRAWS,
    Cut,
    find_cut,
    mean_ranks,
    num_common,
    num_common_by_chance,
    order_correlation,
    standard_errors,
)

NEAR_FULL = 0.95  # of full rank: layers whose mean score is higher are counted apart


@dataclass(frozen=True)
class RankedImages:
    """The ranks of every image, {conv: int16 [N, filters]}; rank files say the first `images`.

    `varied` are the scores that those first images give when they are augmented, or, where all
    images are augmented, when they are not. N is at least DRAWS * images.
    """

    ranks: Mapping[str, Tensor]
    varied: Mapping[str, Tensor]
    images: int

    def scores(self, stop: int, start: int = 0) -> dict[str, Tensor]:
        """Return {conv: float64 [filters]}, the mean ranks over the images from start to stop."""
        return {conv: mean_ranks(ranks[start:stop]) for conv, ranks in self.ranks.items()}


def study_ranks(
    found: RankedImages,
    rates: Mapping[str, float],
    layers: Sequence[Mapping[str, Any]],
    counts: Sequence[int],
) -> dict[str, Any]:
    """Return what holds `overall` and of each of the `layers`, as JSON-able data.

    Args:
        rates: {conv: compress rate}.
        layers, counts: see `write_report`.
    """
    comparisons = _comparisons(found, rates, counts)
    cuts = {
        count: _cuts(found, rates, count) for count in sorted({*counts, found.images})
    }  # {images: {conv: Cut or None}}
    rows = []
    for layer in (layer for layer in layers if layer["conv"] in found.ranks):
        conv = layer["conv"]
        ranks = found.ranks[conv][: found.images]
        errors = standard_errors(ranks)
        kept = comparisons["draws"][0][0].kept[conv]
        rows.append(
            {
                **layer,
                "rate": rates[conv],
                "filters": len(kept),
                "kept": int(kept.sum()),
                "mean_rank": _rounded(mean_ranks(ranks).mean()),
                "spread_of_scores": _rounded(mean_ranks(ranks).std()),
                "variance_over_images": _rounded((errors**2 * len(ranks)).mean()),
                "standard_error": _rounded(errors.mean()),
                "cut": _cut_row(cuts[found.images][conv]),
                "common": {name: _common(pairs, conv) for name, pairs in comparisons.items()},
                "order": {name: _order(pairs, conv) for name, pairs in comparisons.items()},
            }
        )
    return {"overall": _overall(rows, cuts, found.images), "layers": rows}


@dataclass(frozen=True)
class _Choice:
    """Scores {conv: [filters]} and the filters {conv: bool [filters]} that they keep."""

    scores: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]


_Pairs = list[tuple[_Choice, _Choice]]


def _choose(scores: Mapping[str, Tensor], rates: Mapping[str, float]) -> _Choice:
    plan = plan_by_rates(scores, [rates[conv] for conv in scores])
    return _Choice(scores, {layer.conv: layer.mask() for layer in plan.layers})


def _comparisons(
    found: RankedImages, rates: Mapping[str, float], counts: Sequence[int]
) -> dict[str, _Pairs]:
    """Return the choices to compare: of fewer images and the most, of draws, of augmentation."""
    *fewer, most = sorted(set(counts))
    size = found.images
    draws = [_choose(found.scores((k + 1) * size, k * size), rates) for k in range(DRAWS)]
    largest = _choose(found.scores(most), rates)
    return {
        **{str(count): [(_choose(found.scores(count), rates), largest)] for count in fewer},
        "draws": list(combinations(draws, 2)),
        "augmentation": [(draws[0], _choose(found.varied, rates))],
    }


def _cuts(found: RankedImages, rates: Mapping[str, float], count: int) -> dict[str, Cut | None]:
    kept = _choose(found.scores(count), rates).kept
    return {conv: find_cut(found.ranks[conv][:count], kept[conv]) for conv in kept}


def _common(pairs: _Pairs, conv: str) -> float:
    """Return the share of a layer's kept filters that two choices have in common."""
    common = [num_common(one.kept[conv], other.kept[conv]) for one, other in pairs]
    return _rounded(fmean(common) / int(pairs[0][0].kept[conv].sum()))


def _order(pairs: _Pairs, conv: str) -> float | None:
    return _mean_of_known(
        [order_correlation(one.scores[conv], other.scores[conv]) for one, other in pairs]
    )


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(fmean(known)) if known else None


def _cut_row(cut: Cut | None) -> dict[str, Any] | None:
    if cut is None:
        return None
    numbers = {"gap": _rounded(cut.gap), "standard_error": _rounded(cut.standard_error)}
    return {**asdict(cut), **numbers, "inside_noise": cut.inside_noise, "tied": cut.tied}


def _overall(
    rows: Sequence[Mapping[str, Any]], cuts: Mapping[int, Mapping[str, Cut | None]], images: int
) -> dict[str, Any]:
    """Return what the layers say together, at all counts of images, and by kind of layer."""
    names = rows[0]["common"]
    cut_rows = [row for row in rows if row["cut"] is not None] or rows
    lowest = {name: min(cut_rows, key=lambda row: row["common"][name]) for name in names}
    full = [row["mean_rank"] >= NEAR_FULL * min(row["map_size"]) for row in rows]
    kinds = {
        "near_full_rank": [row for row, is_full in zip(rows, full, strict=True) if is_full],
        "below": [row for row, is_full in zip(rows, full, strict=True) if not is_full],
    }
    return {
        "layers": len(rows),
        **_together(rows),
        "spread_of_scores": _rounded(fmean(row["spread_of_scores"] for row in rows)),
        "standard_error": _rounded(fmean(row["standard_error"] for row in rows)),
        "least_common": {
            name: {"conv": row["conv"], "share": row["common"][name]}
            for name, row in lowest.items()
        },
        "order": {name: _mean_of_known([row["order"][name] for row in rows]) for name in names},
        "cuts": {str(count): _count_cuts(found.values()) for count, found in cuts.items()},
        "kinds": {
            kind: {
                **_together(members),
                **_count_cuts([cuts[images][row["conv"]] for row in members]),
            }
            for kind, members in kinds.items()
            if members
        },
    }


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the filters that layers keep, and in common: of those layers that lose some."""
    cut_rows = [row for row in rows if row["cut"] is not None] or rows
    kept = sum(row["kept"] for row in cut_rows)
    chance = sum(num_common_by_chance(row["kept"], row["filters"]) for row in cut_rows)
    return {
        "layers_cut": sum(row["cut"] is not None for row in rows),
        "filters": sum(row["filters"] for row in cut_rows),
        "kept": kept,
        "common_by_chance": _rounded(chance / kept),
        "common": {
            name: _rounded(sum(row["common"][name] * row["kept"] for row in cut_rows) / kept)
            for name in rows[0]["common"]
        },
    }


def _count_cuts(cuts: Iterable[Cut | None]) -> dict[str, int]:
    known = [cut for cut in cuts if cut is not None]
    return {
        "inside_noise": sum(cut.inside_noise for cut in known),
        "tied": sum(cut.tied for cut in known),
        "undecided": sum(cut.undecided for cut in known),
    }


def filter_rows(found: RankedImages, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for every filter: its score, and how its rank varies over the images."""
    scores = found.scores(found.images)
    kept = _choose(scores, rates).kept
    rows = []
    for conv in scores:
        errors = standard_errors(found.ranks[conv][: found.images])
        rows += [
            {
                "conv": conv,
                "filter": index,
                "mean_rank": float(scores[conv][index]),
                "variance_over_images": float(errors[index]) ** 2 * found.images,
                "standard_error": float(errors[index]),
                "kept": int(kept[conv][index]),
            }
            for index in range(len(errors))
        ]
    return rows


def _rounded(value: Any) -> float:
    return round(float(value), 5)
