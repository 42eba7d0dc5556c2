"""Convs and linears that multiply their nonzero weights alone, by torch.sparse's CSR product."""

import copy
import warnings
from collections.abc import Mapping

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class SparseConv2d(nn.Module):
    """A conv for inference: its weight as a CSR matrix times the unfolded input, image by image."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.weight = _csr(conv.weight.flatten(1))  # [F, C * kh * kw]
        self.bias = None if conv.bias is None else conv.bias.detach()[:, None]
        self._kernel = conv.kernel_size
        self._window = {
            name: getattr(conv, name) for name in ("dilation", "padding", "stride")
        }  # as F.unfold names them

    def forward(self, images: Tensor) -> Tensor:
        """Return [N, F, H', W'] of images [N, C, H, W]."""
        columns = F.unfold(images, self._kernel, **self._window)  # [N, C * kh * kw, H' * W']
        maps = torch.stack([self.weight @ one for one in columns])  # [N, F, H' * W']
        if self.bias is not None:
            maps += self.bias
        return maps.unflatten(2, self._map_size(images))

    def _map_size(self, images: Tensor) -> tuple[int, ...]:
        """Return (H', W')."""
        window = (self._kernel, *self._window.values())
        return tuple(
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, dilation, padding, stride in zip(
                images.shape[2:], *window, strict=True
            )
        )


class SparseLinear(nn.Module):
    """A linear for inference: its weight as a CSR matrix times the input."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = _csr(linear.weight)  # [F, C]
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, features: Tensor) -> Tensor:
        """Return [N, F] of features [N, C]."""
        out = (self.weight @ features.T).T
        return out if self.bias is None else out + self.bias


def sparse_layer(module: nn.Module) -> nn.Module | None:
    """Return what computes the same as a conv or linear that holds zeros, None for other modules.

    Grouped convs, and those that pad with something else than zeros, are among the others.
    """
    kinds = {nn.Conv2d: SparseConv2d, nn.Linear: SparseLinear}
    kind = kinds.get(type(module))
    if kind is None or bool(module.weight.all()):
        return None
    if kind is SparseConv2d:
        plain = module.groups == 1 and module.padding_mode == "zeros"
        if not plain or isinstance(module.padding, str):
            return None
    return kind(module)


def sparse_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return {layer: its sparse form} of the layers that have one."""
    found = {name: sparse_layer(module) for name, module in model.named_modules()}
    return {name: layer for name, layer in found.items() if layer is not None}


def with_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Return a copy of `model` with {name: layer} in the place of its own."""
    model = copy.deepcopy(model)
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return model


def _csr(matrix: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return matrix.detach().to_sparse_csr()
