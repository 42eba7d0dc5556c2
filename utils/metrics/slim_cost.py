"""MACs and parameters of a slim network that is given as widths of a dense one's layers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.runs.borrowed_state import evaluating

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_COUNTED = (nn.Conv2d, nn.Linear, *_NORMS)


@dataclass(frozen=True)
class SlimCost:
    """What a slim network costs for one image.

    `macs` are those of its convs and linears, `parameters` all it has. `thop_macs` is what thop
    0.0.31, HRankPlus's counter, makes of convs, linears and norms: it adds one for each number that
    a conv with a bias gives out, and two for each that a norm does.
    """

    macs: int
    thop_macs: int
    parameters: int


def slim_cost(model: nn.Module, example: Tensor, widths: Mapping[str, tuple[int, int]]) -> SlimCost:
    """Count the network that `model` would be with the channels of `widths`; it is not built.

    `widths` maps the name of each conv, norm and linear to (channels it reads, channels it writes).
    A conv is dense or depthwise. The size of the maps is that of `example` [1, C, H, W] passing
    through the dense `model` in eval mode.

    Raises:
        ValueError: `widths` lacks a layer that runs, or names one that does not.
    """
    sizes = _map_sizes(model, example)
    missing, unknown = sizes.keys() - widths.keys(), widths.keys() - sizes.keys()
    if missing or unknown:
        wrong = f"none for {min(missing)!r}" if missing else f"some for {min(unknown)!r}"
        raise ValueError(f"widths: expected those of the layers that run, got {wrong}")
    macs = thop_macs = parameters = 0
    for name, size in sizes.items():
        module, (inputs, outputs) = model.get_submodule(name), widths[name]
        bias = outputs * (module.bias is not None)
        if isinstance(module, _NORMS):
            thop_macs += 2 * outputs * size
            parameters += outputs + bias
            continue
        is_conv = isinstance(module, nn.Conv2d)
        weights = outputs * module.weight[0, 0].numel() * _read(module, inputs)
        macs += weights * size
        thop_macs += (weights + bias * is_conv) * size
        parameters += weights + bias
    return SlimCost(macs, thop_macs, parameters)


def _read(module: nn.Module, inputs: int) -> int:
    """Return how many channels each filter reads: all of them, or the one of a depthwise conv."""
    return inputs if getattr(module, "groups", 1) == 1 else 1


def _map_sizes(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Return {layer: H * W of the maps it writes, 1 of a vector}, in the order they run."""
    with evaluating(model), torch.no_grad(), _recording(model) as sizes:
        model(example)
    return sizes


@contextmanager
def _recording(model: nn.Module) -> Iterator[dict[str, int]]:
    sizes: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, _COUNTED):

            def record(module, args, out, name=name):
                sizes[name] = out.shape[2:].numel()

            handles.append(module.register_forward_hook(record))
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
