"""Batch norms of several processes: the statistics are those of all their images together."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.graph.aligned import is_aligned
from utils.graph.emptied import is_emptied
from utils.runs import processes


@contextlib.contextmanager
def synchronised_norms(model: nn.Module) -> Iterator[None]:
    """Let every batch norm of a training `model` see the images of all processes in the block.

    The modules stay what they are: names, weights and running statistics are their own.
    """
    several = processes.num_processes() > 1
    every = [m for m in model.modules() if several and isinstance(m, _BatchNorm) and m.training]
    norms = [norm for norm in every if not is_emptied(norm)]
    try:
        for norm in norms:
            on_gpu = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # with this one's own tensors
            forward = partial(_normalise, norm, on_gpu.forward)
            norm.forward = partial(norm.around, forward) if is_aligned(norm) else forward
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)


def differentiable_sum(tensor: Tensor) -> Tensor:
    """Return what `summed` does; the gradients of all processes come back through it, summed."""
    return _Sum.apply(tensor)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return processes.summed(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return processes.summed(gradient)


def _normalise(
    norm: _BatchNorm, on_gpu: Callable[[Tensor], Tensor], inputs: Tensor
) -> Tensor:  # [N, C, ...], N may be 0
    """Do what the norm does in training; torch's SyncBatchNorm, `on_gpu`, refuses the CPU."""
    if inputs.is_cuda:  # of no images, it would send numbers of their type, and others float32
        return on_gpu(inputs if len(inputs) else inputs.float()).to(inputs.dtype)
    values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    over = [0, *range(2, inputs.dim())]
    per_channel = [1, -1, *[1] * (inputs.dim() - 2)]
    count = processes.total(inputs.numel() // inputs.size(1))
    mean = differentiable_sum(values.sum(over)) / count  # [C]
    centred = values - mean.view(per_channel)
    variance = differentiable_sum(centred.square().sum(over)) / count
    _keep_statistics(norm, mean.detach(), variance.detach() * count / (count - 1))
    scaled = centred * (variance + norm.eps).rsqrt().view(per_channel)
    if norm.affine:
        scaled = scaled * norm.weight.view(per_channel) + norm.bias.view(per_channel)
    return scaled.to(inputs.dtype)


@torch.no_grad()
def _keep_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.track_running_stats:
        norm.num_batches_tracked += 1
        share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.to(norm.running_mean), share)
        norm.running_var.lerp_(variance.to(norm.running_var), share)
