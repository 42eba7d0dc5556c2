"""Filters that are gone take no part in the scores of those that are left."""

import pytest
import torch

from tests.networks import Chain, Concat, Residual, random_masks, randomized
from utils.graph.channel_graph import trace_channels
from utils.pruning.rescoring import below_the_rest, rescore_filters
from utils.pruning.scores import filter_weights, score_filters
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm", "input_norm", "bn_scale"])
def test_a_masked_network_scores_as_the_removed_one_does(criterion):
    model = randomized(Chain([Concat, Concat]), seed=0)  # no sums: a mask leaves what it keeps
    graph = trace_channels(model, IMAGE)
    masks = random_masks(
        {layer: len(w) for layer, w in filter_weights(model, graph).items()}, 0.4, 1
    )
    slim = remove_filters(model, graph, masks)
    ChannelMasks(model, graph, masks).apply()
    found = rescore_filters(model, graph, criterion, masks)
    expected = score_filters(slim, trace_channels(slim, IMAGE), criterion)
    assert list(found) == list(expected)
    for layer, scores in expected.items():
        torch.testing.assert_close(found[layer][masks[layer]], scores)
    assert any(len(scores) < len(found[layer]) for layer, scores in expected.items())


def test_what_is_gone_scores_below_what_is_left_and_nothing_else_changes():
    scores = {"a": torch.tensor([3.0, -2.0, 5.0]), "b": torch.tensor([0.0, 1.0])}
    lowered = below_the_rest(scores, {"a": torch.tensor([False, True, True])})
    assert lowered["a"].tolist() == [-3.0, -2.0, 5.0]
    assert torch.equal(lowered["b"], scores["b"]) and scores["a"][0] == 3


def test_the_whole_network_is_scored_as_ever():
    model = randomized(Chain([Residual]), seed=3)
    graph = trace_channels(model, IMAGE)
    for criterion in ("fpgm", "input_norm"):
        found = rescore_filters(model, graph, criterion, {})
        for layer, scores in score_filters(model, graph, criterion).items():
            assert torch.equal(found[layer], scores)
