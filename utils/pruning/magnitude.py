"""Fine-grained pruning: single weights of small magnitude go, and stay zero in training."""

from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from utils.removal.masks import ParameterMasks

_PRUNED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def prunable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return {layer: weight} of the convs and linears, in order; biases and norms stay whole."""
    return {
        name: module.weight.detach()
        for name, module in model.named_modules()
        if isinstance(module, _PRUNED)
    }


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Return the mask (bool, True is kept) that zeroes round(numel * sparsity) of the weights.

    Those of least magnitude go, so weights that are zero already are the first to be counted. Ties
    go by index, the lower first: a threshold at the k-th magnitude would take all equal ones.

    Raises:
        ValueError: the sparsity is not in [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}: expected at least 0, less than 1")
    order = weight.abs().flatten().argsort(stable=True)
    mask = torch.ones_like(order, dtype=torch.bool)
    mask[order[: round(weight.numel() * sparsity)]] = False
    return mask.view(weight.shape)


def global_masks(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return {layer: mask} by one threshold for all weights, as if they were one tensor.

    Ties go by the order of the layers, then by index. A layer may lose all of its weights.

    Raises:
        ValueError: the sparsity is not in [0, 1).
    """
    together = torch.cat([weight.flatten() for weight in weights.values()])
    parts = magnitude_mask(together, sparsity).split([w.numel() for w in weights.values()])
    return {
        layer: part.view(weight.shape)
        for (layer, weight), part in zip(weights.items(), parts, strict=True)
    }


def pattern_mask(weight: Tensor, kept: int = 2, of: int = 4) -> Tensor | None:
    """Return the mask that keeps `kept` of every `of` neighbouring input channels (dim 1).

    At each filter and kernel position the largest magnitudes stay, of equal ones the higher index.
    None where the input channels are not a multiple of `of`: that tensor stays dense.
    """
    if weight.size(1) % of:
        return None
    blocks = weight.abs().movedim(1, -1).unflatten(-1, (-1, of))  # [..., C / of, of]
    lowest = blocks.argsort(dim=-1, stable=True)[..., : of - kept]
    mask = torch.ones_like(blocks, dtype=torch.bool).scatter_(-1, lowest, False)
    return mask.flatten(-2).movedim(-1, 1).contiguous()


def cubic_sparsity(final: float, step: int, steps: int) -> float:
    """Return the sparsity after `step` of `steps`: s_t = s_f (1 - (1 - t/N)^3).

    Zhu and Gupta, 2017, "To prune, or not to prune", Eq. 1, from a dense network: much goes
    early, while much is redundant. The last step gives `final` itself.
    """
    return final * (1 - (1 - step / steps) ** 3)


class WeightMasks(ParameterMasks):
    """Zeroes the masked weights of convs and linears, by {layer: mask of the weight's shape}."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]):
        super().__init__()
        for layer, mask in masks.items():
            weight = model.get_submodule(layer).weight
            self.add(layer, weight, mask.to(weight))
