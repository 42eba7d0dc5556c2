"""`rank_generation.py --report`: what the ranks of many images say about the ranks of a few."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.graph.network import Network
from utils.paper.rates import CompressRates, read_rates
from utils.planning.rank_choices import NEAR_FULL, RankedImages, filter_rows, study_ranks
from utils.rank.rank_study import DRAWS
from utils.reports.rank_figures import write_rank_figures
from utils.reports.rank_findings import report_markdown
from utils.runs.atomic_write import write_csv, write_json, write_text


def report_rates(network: Network, text: str) -> CompressRates:
    """Return the rates whose cut is judged: those given, else those of the official README's row.

    Raises:
        ValueError: bad rates, or none given for a network that the README has no row of.
    """
    sources = {row.compress_rate: row.compress_rate_source or "" for row in network.official.hrank}
    published = [rates for rates, source in sources.items() if "HRank README" in source]
    if not text and not published:
        raise ValueError(
            f"--compress_rate is missing: expected the rates whose cut --report judges, "
            f"as none are published for {network.spec}"
        )
    return read_rates(text or published[-1], network)


def write_report(
    folder: Path,
    found: RankedImages,
    rates: CompressRates,
    *,
    layers: Sequence[Mapping[str, Any]],
    counts: Sequence[int],
    batch_size: int,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Write summary.json, summary.md, layers.csv, filters.csv and the figures; return the summary.

    Args:
        layers: {"conv", "map_size", ...facts to repeat} in rate order; those that are not in
            `found`, because they follow another, are left out.
        counts: numbers of images to compare.
        provenance: what the summary says of how the ranks were made.
    """
    rate_of = rates.of_convs({conv: ranks.size(1) for conv, ranks in found.ranks.items()})
    summary = {
        **provenance,
        "compress_rate": rates.text(),
        "images": found.images,
        "counts": sorted(counts),
        "draws": DRAWS,
        "near_full": NEAR_FULL,
        **study_ranks(found, rate_of, layers, counts),
    }
    write_json(folder / "summary.json", summary)
    write_text(folder / "summary.md", report_markdown(summary))
    write_csv(folder / "layers.csv", [_flat(layer) for layer in summary["layers"]])
    write_csv(folder / "filters.csv", filter_rows(found, rate_of))
    write_rank_figures(folder, found.ranks, summary, batch_size)
    return summary


def _flat(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's row with the nested numbers as columns of their own."""
    flat: dict[str, Any] = {}
    for name, value in layer.items():
        nested = value if isinstance(value, Mapping) else None
        flat |= {f"{name}_{key}": inner for key, inner in nested.items()} if nested else {}
        flat |= {} if nested or name == "cut" else {name: value}
    return flat
