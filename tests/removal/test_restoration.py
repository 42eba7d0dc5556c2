"""A dense network that takes back a removed one's weights, masked, computes what that computes."""

import copy

import pytest
import torch

from tests.networks import (
    Chain,
    Concat,
    Depthwise,
    PaddedResidual,
    Residual,
    Transposed,
    random_masks,
    randomized,
)
from utils.graph.channel_graph import trace_channels
from utils.pruning.scores import filter_weights
from utils.removal.masks import ChannelMasks
from utils.removal.restoration import restore_weights
from utils.removal.surgery import remove_filters

NETWORKS = {
    "sums": lambda: Chain([Residual, PaddedResidual, Residual]),
    "cats and flattening": lambda: Chain([Concat, Depthwise, Concat], flat=True),
    "transposed": lambda: Chain([Transposed]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_were_trained_come_back_to_their_places(name):
    dense = randomized(NETWORKS[name](), seed=0).eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    graph = trace_channels(dense, images)
    prunable = {layer: len(weight) for layer, weight in filter_weights(dense, graph).items()}
    masks = random_masks(prunable, rate=0.4, seed=2)
    removed = remove_filters(dense, graph, masks)
    generator = torch.Generator().manual_seed(3)
    for value in removed.state_dict().values():
        if value.is_floating_point():  # as if it had been trained
            value.add_(0.1 * torch.rand(value.shape, generator=generator).to(value))
    before = copy.deepcopy(dense)
    restore_weights(dense, graph, masks, removed)
    ChannelMasks(dense, graph, masks).apply()
    torch.testing.assert_close(dense(images), removed(images), rtol=1e-9, atol=1e-9)
    stem = ~masks["stem"]
    assert torch.equal(dense.norm.running_mean[stem], before.norm.running_mean[stem])
