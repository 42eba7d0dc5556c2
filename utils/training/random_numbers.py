"""The random numbers that a network draws where it computes: torch's own, of each device."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed them within the block; the caller's come back after."""
    with torch.random.fork_rng(devices=_gpus(model)):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed reaches every other device
        for index in _gpus(model):
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def random_state(model: nn.Module) -> list[Tensor]:
    """Return where in their sequence they are, on the CPU and on the model's GPUs."""
    return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, _gpus(model))]


def set_random_state(model: nn.Module, state: list[Tensor]) -> None:
    """Go on from `state`; what it says of GPUs that the model is not on is passed over."""
    torch.set_rng_state(state[0])
    for index, own in zip(_gpus(model), state[1:], strict=False):
        torch.cuda.set_rng_state(own, index)


def _gpus(model: nn.Module) -> list[int]:
    return sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
