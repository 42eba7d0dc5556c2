"""Masks: pruned channels are exactly zero, and stay so while the network trains."""

import torch

from tests.networks import Chain, Depthwise, Residual, Transposed, random_masks, randomized
from utils.graph.channel_graph import trace_channels
from utils.removal.masks import ChannelMasks

IMAGE = torch.zeros(1, 3, 8, 8)


def masked_chain(steps):
    """Return (model, graph, masks) with random masks applied to all layers but the classifier."""
    model = randomized(Chain(steps), seed=0)
    graph = trace_channels(model, IMAGE)
    filters = {name: n for name, n in graph.filters().items() if name != "head"}
    masks = random_masks(filters, 0.5, seed=0)
    return model, graph, masks


def test_filter_bias_scale_and_shift_are_zero_and_the_rest_is_untouched():
    model, graph, masks = masked_chain([Residual])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ChannelMasks(model, graph, masks).apply()
    for conv, norm in {"stem": "norm", "steps.0.conv1": "steps.0.norm1"}.items():
        removed = ~masks[conv]
        assert removed.any()
        for module in (conv, norm):
            for kind in ("weight", "bias"):
                name = f"{module}.{kind}"
                assert not model.get_parameter(name)[removed].any()
                assert torch.equal(model.get_parameter(name)[~removed], before[name][~removed])
    assert torch.equal(model.head.weight, before["head.weight"])


def test_a_transposed_conv_is_masked_along_its_second_dimension():
    model, graph, masks = masked_chain([Transposed])
    ChannelMasks(model, graph, masks).apply()
    weight = model.get_parameter("steps.0.up.weight")
    assert not weight[:, ~masks["steps.0.up"]].any()
    assert weight[:, masks["steps.0.up"]].any()


def test_masked_channels_stay_zero_through_training_steps():
    model, graph, masks = masked_chain([Residual, Depthwise])
    applied = ChannelMasks(model, graph, masks)
    applied.apply()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    maps = {}
    for name in ("norm", "steps.0.norm1", "steps.0.norm2"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: maps.update({name: output})
        )
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        applied.apply()
    model(torch.randn(4, 3, 8, 8, dtype=torch.float64))
    for norm, conv in {"norm": "stem", "steps.0.norm2": "steps.0.conv2"}.items():
        assert not maps[norm][:, ~masks[conv]].any()
        assert maps[norm][:, masks[conv]].any()


def test_no_mask_changes_nothing():
    model, graph, _ = masked_chain([Residual])
    before = [p.detach().clone() for p in model.parameters()]
    ChannelMasks(model, graph, {}).apply()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
