"""Recalibration: running statistics of a network's batch norms, re-estimated after a cut.

What is removed changes what the norms behind it read, while their running statistics still are
those of the whole network. A pass over train images in batches, without labels or gradients, gives
them anew (as in fvcore's precise_bn, which averages the moments of batches; these are pooled).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.runs import processes
from utils.runs.borrowed_state import evaluating


class _Moments:
    """Sums over what one norm reads, float64 [C], and how many values a channel had."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | int = 0
        self.total_of_squares: Tensor | int = 0

    def add(self, values: Tensor) -> None:  # [N, C, ...]
        over = [0, *range(2, values.dim())]
        values = values.double()
        self.count += values.numel() // values.size(1)
        self.total = self.total + values.sum(over).cpu()
        self.total_of_squares = self.total_of_squares + values.square().sum(over).cpu()

    def __add__(self, other: "_Moments") -> "_Moments":
        both = _Moments()
        both.count = self.count + other.count
        both.total = self.total + other.total
        both.total_of_squares = self.total_of_squares + other.total_of_squares
        return both


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set every batch norm's running mean and variance to those of what it reads on `batches`.

    Each batch is normalized by its own statistics on the way, as in training; mean and (unbiased)
    variance are of all positions of all images together, summed in float64. Everything else, also
    dropout, is as in evaluation; modes, momenta and counters are as before. A norm that does not
    run, or keeps no statistics, is left as it is.

    Args:
        batches: images [N, C, H, W] on the model's device, two or more each; of several processes,
            each has its own, and all get the statistics of all.

    Returns:
        The number of images.

    Raises:
        ValueError: there are no images, or a norm reads NaN or Inf; the message names it.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    moments, images = {name: _Moments() for name in norms}, 0
    with evaluating(model), _by_batch(norms, moments):
        for batch in batches:
            model(batch)
            images += len(batch)
    images = sum(processes.gathered(images))
    if images == 0:
        raise ValueError("cannot re-estimate the norms' statistics from no images")
    parts = processes.gathered(moments)
    for name, norm in norms.items():
        _keep(name, norm, sum((part[name] for part in parts), start=_Moments()))
    return images


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    """Return {name: running mean or variance [C]} of the norms' statistics, copies."""
    return {
        f"{name}.{kind}": getattr(module, kind).clone()
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
        for kind in ("running_mean", "running_var")
    }


@contextmanager
@torch.no_grad()
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let the norms' statistics change within the block; then they are what they were before."""
    before = statistics_of(model)
    try:
        yield
    finally:
        for name, value in before.items():
            model.get_buffer(name).copy_(value)


@contextmanager
def _by_batch(norms: dict[str, nn.Module], moments: dict[str, _Moments]) -> Iterator[None]:
    """Let the norms normalize by each batch, keep their statistics, and add to the moments."""
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms.values()]
    handles = []
    try:
        for name, norm in norms.items():
            norm.momentum = 0.0  # running statistics stay what they are until the end
            norm.training = True  # `evaluating` gives the flag back
            handles.append(
                norm.register_forward_pre_hook(
                    lambda norm, inputs, name=name: moments[name].add(inputs[0])
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum, tracked in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(tracked)


def _keep(name: str, norm: nn.Module, moments: _Moments) -> None:
    if moments.count < 2:  # it did not run
        return
    mean = moments.total / moments.count
    variance = (moments.total_of_squares - moments.count * mean**2) / (moments.count - 1)
    if not (mean.isfinite().all() and variance.isfinite().all()):
        raise ValueError(f"norm {name!r} reads values that are not finite: expected finite ones")
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance.clamp(min=0))
