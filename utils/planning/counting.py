"""What the publications' own counters make of a network at given compress rates."""

from collections.abc import Mapping
from typing import Any

import torch.nn as nn

from utils.metrics.accuracy import Accuracy
from utils.metrics.cost import counts, paper_cost
from utils.metrics.slim_cost import slim_cost
from utils.paper.compare import compare_row
from utils.paper.hrankplus import pooling_macs, slim_widths
from utils.paper.rates import CompressRates, read_rates
from utils.paper.tables import matching_row


def published_counts(rates: CompressRates) -> dict[str, int]:
    """Return the MACs and parameters that the publication's tables print for these rates.

    For HRank those of its get_flops, for HRankPlus those of thop 0.0.31 on its slim network.
    """
    network = rates.network
    if rates.layout == "hrankplus":
        return slim_counts(rates)["published"]
    modules = network.model.named_modules()
    convs = {name: module for name, module in modules if isinstance(module, nn.Conv2d)}
    filters = {name: conv.out_channels for name, conv in convs.items()}
    kept = rates.kept(filters, as_counted=True)
    return counts(paper_cost(network.model, network.image, kept, network.official.counted_inputs))


def beside_paper(
    rates: CompressRates, paper_rule: Mapping[str, int], accuracy: Accuracy | None = None
) -> dict[str, Any] | None:
    """Return the published row of these rates beside what was counted, None without one.

    `paper_rule` holds macs and parameters by HRank's rule; HRankPlus's rows have another.
    """
    row = matching_row(
        rates.network.official.rows(rates.layout),
        rates.values,
        expand=lambda text: read_rates(text, rates.network, rates.layout).values,
    )
    if row is None:
        return None
    counted = paper_rule if rates.layout == "hrank" else published_counts(rates)
    return compare_row(row, counted["macs"], counted["parameters"], accuracy)


def slim_counts(rates: CompressRates) -> dict[str, dict[str, int]]:
    """Return the MACs and parameters of HRankPlus's slim network by both counts.

    "published" is what thop 0.0.31 makes of it, "physical" are the MACs of convs and linears alone.
    """
    network = rates.network
    widths = slim_widths(network, rates.values)
    slim = slim_cost(network.model, network.image, widths)
    by_thop = slim.thop_macs + pooling_macs(network, widths)
    return {
        "published": {"macs": by_thop, "parameters": slim.parameters},
        "physical": {"macs": slim.macs, "parameters": slim.parameters},
    }
