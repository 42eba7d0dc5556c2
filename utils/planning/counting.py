"""What the publications' own counters make of a network at given compress rates."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from models.registry import build_model, example_images
from utils.metrics.accuracy import Accuracy
from utils.metrics.cost import counts, paper_cost, physical_cost
from utils.metrics.slim_cost import SlimCost, slim_cost
from utils.paper.compare import compare_row
from utils.paper.counted_inputs import counted_inputs
from utils.paper.hrankplus import pooling_macs, slim_widths
from utils.paper.rates import CompressRates, read_rates
from utils.paper.tables import matching_row


def published_counts(rates: CompressRates) -> dict[str, int]:
    """Return the MACs and parameters that the publication's tables print for these rates.

    For HRank those of its get_flops, for HRankPlus those of thop 0.0.31 on its slim network.
    """
    model, example = _dense(rates.arch)
    if rates.layout == "hrankplus":
        slim, pooling = _slim(rates)
        return {"macs": slim.thop_macs + pooling, "parameters": slim.parameters}
    convs = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    filters = {name: conv.out_channels for name, conv in convs.items()}
    kept = rates.kept(filters, as_counted=True)
    return counts(paper_cost(model, example, kept, counted_inputs(rates.arch)))


def beside_paper(
    rates: CompressRates, paper_rule: Mapping[str, int], accuracy: Accuracy | None = None
) -> dict[str, Any] | None:
    """Return the published row of these rates beside what was counted, None without one.

    `paper_rule` holds macs and parameters by HRank's rule; HRankPlus's rows have another.
    """
    row = matching_row(
        rates.arch,
        rates.values,
        expand=lambda text: read_rates(text, rates.arch, rates.layout).values,
        layout=rates.layout,
    )
    if row is None:
        return None
    counted = paper_rule if rates.layout == "hrank" else published_counts(rates)
    return compare_row(row, counted["macs"], counted["parameters"], accuracy)


def dense_counts(arch: str) -> dict[str, int]:
    """Return the conv and linear MACs and all parameters of the dense network."""
    return counts(physical_cost(*_dense(arch)))


def slim_counts(rates: CompressRates) -> dict[str, int]:
    """Return the conv and linear MACs and all parameters of HRankPlus's slim network."""
    slim, _ = _slim(rates)
    return {"macs": slim.macs, "parameters": slim.parameters}


@cache
def _slim(rates: CompressRates) -> tuple[SlimCost, int]:
    widths = slim_widths(rates.arch, rates.values)
    return slim_cost(*_dense(rates.arch), widths), pooling_macs(rates.arch, widths)


@cache
def _dense(arch: str) -> tuple[nn.Module, Tensor]:
    """Return the dense network and an image, without numbers in them."""
    with torch.device("meta"):
        return build_model(arch), example_images(arch)
