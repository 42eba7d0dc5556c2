"""Criteria: functions that score a conv's filters; higher is kept."""

from collections.abc import Callable

import torch
from torch import Tensor


def l1(weight: Tensor) -> Tensor:
    """Sum of absolute weights of each filter (Li et al., 2017): [F, ...] -> [F]."""
    return weight.flatten(1).abs().sum(1)


def l2(weight: Tensor) -> Tensor:
    """Euclidean norm of each filter's weights: [F, ...] -> [F]."""
    return weight.flatten(1).norm(dim=1)


def fpgm(weight: Tensor) -> Tensor:
    """Sum of distances to all filters of the layer (He et al., 2019): [F, ...] -> [F].

    Filters near the geometric median say what the others say, and score low.
    """
    flat = weight.flatten(1).double()
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


def first(weight: Tensor) -> Tensor:
    """Minus each filter's index: [F, ...] -> [F]. Pruning by it keeps the first filters, blindly.

    On a network that `utils.pruning.sorting` has sorted, the first are the most important ones.
    """
    return -torch.arange(weight.size(0)).float()


def input_energy(weight: Tensor, groups: int = 1) -> Tensor:
    """Sum of squares of the weights that read each input channel: [F, C / groups, ...] -> [C]."""
    slices = weight.double().square().reshape(*weight.shape[:2], -1).sum(2)  # [F, C / groups]
    return slices.unflatten(0, (groups, -1)).sum(1).flatten()


def random(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise, the control that every criterion must beat: [F, ...] -> [F]."""
    return torch.rand(weight.size(0), generator=generator)


WEIGHT_CRITERIA: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": l1,
    "l2": l2,
    "fpgm": fpgm,
    "first": first,
}


def weight_scores(criterion: str, weights: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Score every conv's filters from its weight alone: {conv: [F, ...]} -> {conv: [F]}.

    Raises:
        ValueError: if `criterion` is unknown.
    """
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        return {conv: random(weight, generator) for conv, weight in weights.items()}
    if criterion not in WEIGHT_CRITERIA:
        expected = ", ".join([*WEIGHT_CRITERIA, "random"])
        raise ValueError(f"unknown criterion {criterion!r}: expected one of {expected}")
    return {conv: WEIGHT_CRITERIA[criterion](weight) for conv, weight in weights.items()}
