"""Fine-grained masks: exact numbers of zeros, ties by index, and zeros that stay in training."""

import itertools

import pytest
import torch
from torch import nn

from models.registry import build_model
from tests.networks import Chain, Residual, randomized
from utils.pruning.magnitude import (
    WeightMasks,
    cubic_sparsity,
    global_masks,
    magnitude_mask,
    pattern_mask,
    prunable_weights,
)

SPARSITIES = (0.0, 0.001, 0.1, 0.25, 0.5, 0.8, 0.9, 0.95, 0.999)


@pytest.mark.parametrize("shape", [(1,), (2, 1), (7, 3), (5, 4, 3, 3), (10, 64)])
@pytest.mark.parametrize("kind", ["random", "few values", "all equal", "half zero"])
def test_exactly_so_many_weights_go_and_none_that_stays_is_smaller(shape, kind):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if kind == "few values":
        weight = weight.round()
    if kind == "all equal":
        weight = weight.sign()
    if kind == "half zero":
        weight = weight.relu()
    for sparsity in SPARSITIES:
        mask = magnitude_mask(weight, sparsity)
        gone, kept = weight[~mask].abs(), weight[mask].abs()
        assert mask.shape == weight.shape and mask.dtype == torch.bool
        assert len(gone) == round(weight.numel() * sparsity)
        assert not len(gone) or not len(kept) or gone.max() <= kept.min()


def test_of_equal_magnitudes_the_lower_index_goes():
    mask = magnitude_mask(torch.tensor([[2.0, -1.0, 1.0], [0.0, 1.0, -2.0]]), 0.5)
    assert mask.tolist() == [[True, False, False], [False, True, True]]


def test_masks_of_rising_sparsity_are_nested_once_they_are_applied():
    weight = torch.randn(40, 5).round()
    before = torch.ones_like(weight, dtype=torch.bool)
    for sparsity in SPARSITIES[3:]:
        mask = magnitude_mask(weight, sparsity)
        assert not (mask & ~before & (weight != 0)).any()
        weight, before = weight * mask, mask


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 2.0, float("nan")])
def test_a_sparsity_out_of_range_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"sparsity is .*: expected at least 0, less than 1"):
        magnitude_mask(torch.ones(3), sparsity)


def test_one_threshold_for_all_layers_is_that_of_all_weights_as_one_tensor():
    weights = {"a": torch.randn(6, 4), "b": 3 * torch.randn(8, 2, 3, 3), "c": torch.zeros(5)}
    together = torch.cat([weight.flatten() for weight in weights.values()])
    for sparsity in SPARSITIES:
        masks = global_masks(weights, sparsity)
        assert {name: mask.shape for name, mask in masks.items()} == {
            name: weight.shape for name, weight in weights.items()
        }
        flat = torch.cat([mask.flatten() for mask in masks.values()])
        assert torch.equal(flat, magnitude_mask(together, sparsity))
    assert not global_masks(weights, 0.25)["c"].any()  # a layer of zeros is the first to go


@pytest.mark.parametrize("shape", [(3, 8), (5, 4, 3, 3), (2, 16, 1, 1)])
@pytest.mark.parametrize(("kept", "of"), [(2, 4), (1, 4), (1, 2)])
def test_of_every_four_input_channels_two_stay(shape, kept, of):
    for weight in (torch.randn(shape), torch.ones(shape), torch.zeros(shape)):
        mask = pattern_mask(weight, kept, of)
        blocks = mask.movedim(1, -1).unflatten(-1, (-1, of))
        assert (blocks.sum(-1) == kept).all()
        slow = weight.abs().movedim(1, -1).flatten()
        flat = mask.movedim(1, -1).flatten()
        for start in range(0, len(slow), of):
            block = slow[start : start + of].tolist()
            order = sorted(range(of), key=lambda k, block=block: (block[k], k))
            assert flat[start : start + of].tolist() == [k in order[of - kept :] for k in range(of)]


def test_input_channels_that_are_no_multiple_stay_dense():
    assert pattern_mask(torch.randn(16, 3, 3, 3)) is None


def test_the_cubic_schedule_gives_what_the_paper_says():
    found = [cubic_sparsity(0.8, step, 4) for step in range(5)]
    assert found == pytest.approx([0, 0.8 * 37 / 64, 0.8 * 7 / 8, 0.8 * 63 / 64, 0.8])
    assert found[-1] == 0.8
    assert cubic_sparsity(0.9, 1, 1) == 0.9
    gains = [b - a for a, b in itertools.pairwise(found)]
    assert gains == sorted(gains, reverse=True)


def test_convs_and_linears_are_pruned_but_no_bias_and_no_norm():
    model = build_model("resnet_8")
    weights = prunable_weights(model)
    expected = {name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert weights.keys() == expected and len(expected) == 8
    masks = {layer: torch.zeros_like(weight, dtype=bool) for layer, weight in weights.items()}
    WeightMasks(model, masks).apply()
    names = {name for name, value in model.named_parameters() if not value.any()}
    biases = {name for name, value in build_model("resnet_8").named_parameters() if not value.any()}
    assert names == {f"{layer}.weight" for layer in expected} | biases


@pytest.mark.parametrize("nesterov", [False, True])
def test_masked_weights_stay_zero_through_momentum_and_weight_decay(nesterov):
    model = randomized(Chain([Residual]), seed=0)
    masks = {layer: magnitude_mask(w, 0.7) for layer, w in prunable_weights(model).items()}
    how = {"momentum": 0.9, "weight_decay": 5e-3, "nesterov": nesterov}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **how)
    applied, images = WeightMasks(model, masks), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    optimizer.zero_grad()
    model(images).square().sum().backward()
    optimizer.step()  # momentum that pushes the weights that are to go
    applied.apply()
    before = {layer: weight.clone() for layer, weight in prunable_weights(model).items()}
    for _ in range(3):
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
        applied.apply()
    for layer, weight in prunable_weights(model).items():
        assert not weight[~masks[layer]].any()
        assert (weight != before[layer])[masks[layer]].all()


def test_weights_that_were_zeroed_for_a_while_come_back():
    model = build_model("resnet_8")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = {layer: magnitude_mask(w, 0.5) for layer, w in prunable_weights(model).items()}
    applied = WeightMasks(model, masks)
    assert applied.modules == masks.keys()
    with applied.applied():
        assert not torch.equal(model.conv1.weight, before["conv1.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
