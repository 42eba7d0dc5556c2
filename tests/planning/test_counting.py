"""The publications' counters, against what their own code counted."""

import pytest
import torch

from models.registry import build_model
from tests.reference import HRANKPLUS_RATES, needs_reference, reference
from utils.metrics.cost import counts, physical_cost
from utils.options.networks import outline
from utils.paper.compare import EXACT
from utils.paper.official import official_facts
from utils.paper.rates import read_rates
from utils.planning.counting import beside_paper, published_counts, slim_counts

THOP = "b_thop_0.0.31.post2005241907"
BASELINES = {
    "hrank": {
        "vgg_16_bn": 13,
        "resnet_56": 55,
        "resnet_110": 109,
        "densenet_40": 39,
        "googlenet": 10,
        "resnet_50": 53,
    },
    "hrankplus": HRANKPLUS_RATES,
}


def cases(layout):
    """(network, rates, what was counted), the baselines last."""
    flops = reference("flops.json")
    if not flops:
        return []
    strings = flops["hrank_strings" if layout == "hrank" else "plus_strings"]
    rows = [(row["arch"], row["compress_rate"], row) for row in strings]
    return rows + [
        (arch, f"[0.0]*{number}", flops["baselines"][arch])
        for arch, number in BASELINES[layout].items()
    ]


def as_counts(counted):
    return {"macs": counted["flops"], "parameters": counted["params"]}


@needs_reference
@pytest.mark.parametrize(("arch", "text", "counted"), cases("hrank"))
def test_hranks_rule_gives_what_its_get_flops_gives(arch, text, counted):
    found = published_counts(read_rates(text, outline(arch)))
    assert found == as_counts(counted["a_hrank_get_flops"])


@needs_reference
@pytest.mark.parametrize(("arch", "text", "counted"), cases("hrankplus"))
def test_hrankpluss_rule_gives_what_thop_gives(arch, text, counted):
    rates = read_rates(text, outline(arch), "hrankplus")
    assert published_counts(rates) == as_counts(counted[THOP])
    assert slim_counts(rates)["physical"] == as_counts(counted["c_plain"])


@pytest.mark.parametrize("arch", BASELINES["hrankplus"])
def test_nothing_removed_leaves_the_dense_network(arch):
    rates = read_rates(f"[0.0]*{BASELINES['hrankplus'][arch]}", outline(arch), "hrankplus")
    assert slim_counts(rates)["physical"] == counts(
        physical_cost(rates.network.model, rates.network.image)
    )


def test_every_input_of_a_transition_has_its_filter():
    with torch.device("meta"):
        model = build_model("densenet_40")
    counted = official_facts("densenet_40").counted_inputs
    assert list(counted) == ["trans1.conv1", "trans2.conv1"]
    for transition, convs in counted.items():
        filters = sum(model.get_submodule(conv).out_channels for conv in convs)
        assert filters == model.get_submodule(transition).in_channels


def test_a_row_is_found_in_its_own_layout_and_counted_by_its_own_rule():
    rates = read_rates("[0.]+[0.18]*29", outline("resnet_56"), "hrankplus")
    found = beside_paper(rates, {"macs": 1, "parameters": 1})
    assert (found["row"], found["verdict"]) == ("28.0%", EXACT)
    rates = read_rates("[0.1]*55", outline("resnet_56"))
    assert beside_paper(rates, {"macs": 1, "parameters": 1}) is None
