"""Compress rates in both layouts, and what they leave of each conv."""

from functools import cache

import pytest
import torch

from models.registry import ARCHITECTURES, build_model
from tests.reference import needs_reference, reference
from utils.options.networks import outline
from utils.paper.hrankplus import slim_widths
from utils.paper.rates import read_rates
from utils.pruning.compress_rates import num_removed


@cache
def filters_of(arch):
    with torch.device("meta"):
        model = build_model(arch)
    return {x.conv: model.get_submodule(x.conv).out_channels for x in outline(arch).layers.layers}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_rates_reach_every_conv_as_the_official_rule_has_it(arch):
    known = outline(arch).layers
    values = [i / (2 * known.num_rates) for i in range(known.num_rates)]
    rates = read_rates("+".join(f"[{value:.4f}]" for value in values), outline(arch))
    kept, filters = rates.kept(filters_of(arch)), filters_of(arch)
    assert list(kept) == [layer.conv for layer in known.layers]
    for layer in known.layers:
        f = filters[layer.conv]
        assert kept[layer.conv] == f - int(float(f"{values[layer.rate]:.4f}") * f)
    assert read_rates(rates.text(), outline(arch)) == rates


def plus_strings():
    rows = reference("flops.json").get("plus_strings", [])
    return [
        pytest.param(r["arch"], r["compress_rate"], id=f"{r['arch']} {i}")
        for i, r in enumerate(rows)
    ]


@needs_reference
@pytest.mark.parametrize(("arch", "text"), plus_strings())
def test_a_share_of_the_filters_goes_as_hrankplus_has_it(arch, text):
    rates, filters = read_rates(text, outline(arch), "hrankplus"), filters_of(arch)
    widths = slim_widths(outline(arch), rates.values)
    for conv, rate in rates.of_convs(filters).items():
        assert filters[conv] - num_removed(rate, filters[conv]) == widths[conv].outputs
    assert read_rates(rates.text(), outline(arch), "hrankplus") == rates


def test_googlenet_counts_c4_by_the_rate_of_d4():
    text, filters = "[0.10]+[0.8]*5+[0.85]+[0.8]*3", filters_of("googlenet")
    masked = read_rates(text, outline("googlenet")).kept(filters)
    counted = read_rates(text, outline("googlenet")).kept(filters, as_counted=True)
    differ = {conv for conv in masked if masked[conv] != counted[conv]}
    assert {conv.partition(".")[0] for conv in differ} == {"inception_c4"}
    assert (masked["inception_c4.branch1x1.0"], counted["inception_c4.branch1x1.0"]) == (26, 20)


def test_a_wrong_number_of_rates_is_an_error():
    with pytest.raises(ValueError, match="compress rate: 9 rates for googlenet, expected 10"):
        read_rates("[0.1]*9", outline("googlenet"))
    with pytest.raises(ValueError, match="30 rates for .*expected 55; these .*--layout hrankplus"):
        read_rates("[0.1]*30", outline("resnet_56"))
    with pytest.raises(ValueError, match="29 rates for resnet_56, HRankPlus expects 30"):
        read_rates("[0.]+[0.18]*28", outline("resnet_56"), "hrankplus")
    with pytest.raises(ValueError, match="HRankPlus has no 'resnet_20': expected one of vgg_16_bn"):
        read_rates("[0.1]*19", outline("resnet_20"), "hrankplus")


@pytest.mark.parametrize(
    ("arch", "text", "layout"),
    [
        ("resnet_56", "[0.1]+[0.6]*35+[0.0]*2+[0.6]*6+[0.4]*11", "hrank"),
        ("googlenet", "[0.10]+[0.8]*5+[0.85]+[0.8]*3", "hrank"),
        ("resnet_56", "[0.]+[0.18]*29", "hrankplus"),
    ],
)
def test_the_rates_of_the_convs_remove_what_is_not_kept(arch, text, layout):
    rates, filters = read_rates(text, outline(arch), layout), filters_of(arch)
    gone = {c: num_removed(rate, filters[c]) for c, rate in rates.of_convs(filters).items()}
    assert gone == {conv: filters[conv] - left for conv, left in rates.kept(filters).items()}
