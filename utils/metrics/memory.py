"""Memory that the activations of one forward pass need at the same time."""

import weakref
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from utils.runs.borrowed_state import evaluating


def peak_activation_bytes(model: nn.Module, example: Tensor) -> int:
    """Return the most bytes of activations alive at once while `example` [N, C, H, W] passes.

    The pass runs in eval mode and without gradients, as the network's Python code has it run.
    After each operator, the storages that are still referred to count: the input, which the caller
    holds throughout, every intermediate result until its last reference goes, and what the operator
    has just made. Views and in-place operators make no storage. Parameters and buffers do not
    count. Nor does what an operator allocates and frees within itself (the workspace of a conv):
    `allocated_bytes` sees that on a GPU.
    """
    weights = [*model.parameters(), *model.buffers()]
    with evaluating(model), torch.no_grad():
        images = example.clone()  # a storage that holds the images and nothing else
        with _StorageWatch(ignored=weights) as watch:
            watch.see(images)
            model(images)
    return watch.peak_bytes


def allocated_bytes(model: nn.Module, example: Tensor) -> int | None:
    """Return the most bytes that a GPU's allocator held for a pass of `example`, None on a CPU.

    What was allocated before, the weights above all, does not count; a copy of the input does, as
    do workspaces and the allocator's rounding.
    """
    if example.device.type != "cuda":
        return None
    with evaluating(model), torch.no_grad():
        torch.cuda.synchronize(example.device)
        torch.cuda.reset_peak_memory_stats(example.device)
        before = torch.cuda.memory_allocated(example.device)
        model(example.clone())
        torch.cuda.synchronize(example.device)
        return torch.cuda.max_memory_allocated(example.device) - before


class _StorageWatch(TorchDispatchMode):
    """Follows the storages of results; a storage is forgotten at the moment that it is freed."""

    def __init__(self, ignored: list[Tensor]):
        super().__init__()
        self.peak_bytes = 0
        self._ignored = {id(storage) for storage in _storages(ignored)}
        # A storage has one Python object as long as it lives, so that a weak reference follows it.
        self._alive: weakref.WeakValueDictionary = weakref.WeakValueDictionary()

    def see(self, results: object) -> None:
        """Take in the storages of new results, and how much is alive with them."""
        for storage in _storages(tree_leaves(results)):
            if id(storage) not in self._ignored:
                self._alive[id(storage)] = storage
        alive = sum(storage.nbytes() for storage in self._alive.values())
        self.peak_bytes = max(self.peak_bytes, alive)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.see(out)
        return out


def _storages(values: list) -> Iterator[torch.UntypedStorage]:
    return (value.untyped_storage() for value in values if isinstance(value, Tensor))
