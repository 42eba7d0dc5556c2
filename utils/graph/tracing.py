"""A network's torch.fx trace, which follows train() and eval() as the network does.

A trace freezes `self.training`, wherever the network's own code reads it. So the network is traced
in both modes, and arguments that are False in eval and True in train mode (the `training` of a
functional dropout) read their module's flag again. Where the two modes do different operations, the
trace holds those of eval mode: an auxiliary head that only training calls is not in it.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch.fx as fx
import torch.nn as nn

from utils.runs.borrowed_state import evaluating, training

# Leaves although they are not torch's own: they read `self.training`, and leave channels in place.
_STOCHASTIC = ("StochasticDepth", "DropPath")


def trace(model: nn.Module) -> fx.GraphModule:
    """Return the model's fx trace, sharing its parameters.

    Raises:
        ValueError: if torch.fx cannot trace the model, with torch.fx's reason.
    """
    before = set(vars(model))
    try:
        with training(model):
            trained = ChannelTracer().trace(model)
    except Exception:  # a network may train in ways that cannot be traced
        trained = fx.Graph()
    for constant in set(vars(model)) - before:  # the other trace gives its constants these names
        delattr(model, constant)
    try:
        with evaluating(model):
            graph = ChannelTracer().trace(model)
    except Exception as error:  # torch.fx raises whatever the model's own code raises on proxies
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ValueError(f"torch.fx cannot trace {type(model).__name__}: {reason}") from error
    _follow_mode(graph, trained)
    return fx.GraphModule(model, graph)


class ChannelTracer(fx.Tracer):
    """Keeps every module whole that computes by one of torch.nn's own `forward` methods.

    That includes a user's subclass of nn.Conv2d.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        containers = nn.Sequential | nn.ModuleList | nn.ModuleDict
        from_torch = type(m).forward.__module__.startswith("torch.nn.modules")
        return from_torch and not isinstance(m, containers) or type(m).__name__ in _STOCHASTIC


def _follow_mode(graph: fx.Graph, trained: fx.Graph) -> None:
    """Let arguments that are False in `graph` and True in `trained` read the module's flag."""
    twins = dict(_numbered(trained))
    for key, node in list(_numbered(graph)):
        twin = _arguments(twins[key]) if key in twins else {}
        for name, argument in _arguments(node).items():
            if argument is False and twin.get(name) is True:
                with graph.inserting_before(node):
                    flag = graph.get_attr(".".join(filter(None, [owner(node), "training"])))
                update = node.update_arg if isinstance(name, int) else node.update_kwarg
                update(name, flag)


def _numbered(graph: fx.Graph) -> Iterator[tuple[tuple[Any, ...], fx.Node]]:
    """Yield nodes, each with a name of its own that is the same in every trace of the network."""
    seen: Counter[tuple[Any, ...]] = Counter()
    for node in graph.nodes:
        operation = owner(node), node.op, node.target
        yield (*operation, seen[operation]), node
        seen[operation] += 1


def owner(node: fx.Node) -> str:
    """Return the path of the module whose code the node is, "" for the network itself."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return stack[-1][0] if stack else ""


def _arguments(node: fx.Node) -> dict[int | str, Any]:
    return {**dict(enumerate(node.args)), **node.kwargs}
