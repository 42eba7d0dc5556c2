"""State that is borrowed and handed back: whether a network's modules train or evaluate."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Yield `model` in eval mode; at exit each module is in the mode it was in before."""
    with _mode(model, training=False):
        yield model


@contextmanager
def training(model: nn.Module) -> Iterator[nn.Module]:
    """Yield `model` in train mode; at exit each module is in the mode it was in before."""
    with _mode(model, training=True):
        yield model


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    # A module may be frozen in eval mode inside a training network: flags go back one by one.
    flags = [(module, module.training) for module in model.modules()]
    model.train(not training)  # some modules cache in one mode and forget it in the other
    model.train(training)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
