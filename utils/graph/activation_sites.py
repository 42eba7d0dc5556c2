"""Where a conv's own feature map is: behind its norms and activations, as a value of the graph."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch.nn as nn
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.graph.call_sites import CallSite, CallSites
from utils.graph.channel_graph import ChannelGraph
from utils.graph.forward_pass import watching_modules
from utils.graph.operations import COPIES, ELEMENTWISE, operation_name
from utils.graph.relations import Filters, Norm
from utils.graph.tracing import Operation, Run
from utils.graph.values import tensors_in


@dataclass(frozen=True)
class ActivationSite:
    """A conv's own activation: what this call of a function gives in eval mode.

    `module` is the module whose output it is, "" where the network's own code computes it.
    `SiteValues` captures it either way, also where a module is called several times.
    """

    conv: str
    call: CallSite
    module: str


def activation_sites(graph: ChannelGraph) -> dict[str, ActivationSite]:
    """Return {conv or linear: its own activation}, in the order they run.

    From the layer on, norms and activations, be they modules or functions, are followed as long as
    nothing else reads what comes before them: a pooling, a sum, or a cat ends the way. A layer that
    runs twice is left out: it has no one feature map.
    """
    run = graph.runs[0]
    readers = _readers(run)
    sites: dict[str, ActivationSite | None] = {}
    for at, operation in enumerate(run.operations):
        for relation in run.relations[slice(*operation.made)]:
            if isinstance(relation, Filters):
                twice = relation.module in sites
                last = _last_of(run, at, readers)
                sites[relation.module] = None if twice else _site(run, relation.module, last)
    return {layer: site for layer, site in sites.items() if site is not None}


def _readers(run: Run) -> dict[int, list[int]]:
    """Return {id of a value: the operations that read it}."""
    readers: dict[int, list[int]] = {}
    for at, operation in enumerate(run.operations):
        for value in operation.reads:
            readers.setdefault(id(value), []).append(at)
    return readers


def _last_of(run: Run, at: int, readers: dict[int, list[int]]) -> int:
    while True:
        (value,) = run.operations[at].gives
        reading = readers.get(id(value), [])
        if len(reading) != 1 or not _is_own(run, run.operations[reading[0]]):
            return at
        at = reading[0]


def _is_own(run: Run, operation: Operation) -> bool:
    """True for a norm or an activation of one value."""
    made = run.relations[slice(*operation.made)]
    if len([value for value in operation.reads if value.live]) != 1 or len(operation.gives) != 1:
        return False
    if any(isinstance(relation, Norm) for relation in made) or "norm" in operation.name:
        return True
    return operation.name in (ELEMENTWISE | COPIES | {"prelu"})


def _site(run: Run, layer: str, at: int) -> ActivationSite:
    operation = run.operations[at]
    (value,) = operation.gives
    owners = [c.path for c in run.calls if c.gives is value and c.start <= at < c.stop]
    calls = [c.path for c in run.calls]
    module = owners[-1] if owners and calls.count(owners[-1]) == 1 else ""
    return ActivationSite(layer, operation.site, module)


class SiteValues(TorchFunctionMode):
    """Tells what these calls of functions give, in a forward pass of `model` in eval mode."""

    def __init__(
        self,
        model: nn.Module,
        calls: Collection[CallSite],
        tell: Callable[[CallSite, Tensor], None],
    ):
        super().__init__()
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._calls, self._tell = frozenset(calls), tell

    def __enter__(self):
        self._sites = CallSites(self._paths)
        self._watching = watching_modules(self)
        self._watching.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._watching.__exit__(*error)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Note that a module is called."""
        self._sites.enter(module)

    def leave(self, entered: None, out: Any) -> None:
        """Note that it has returned."""
        self._sites.leave()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        call = self._sites.next(operation_name(func))
        if call in self._calls:
            self._tell(call, next(tensors_in(out)))
        return out
