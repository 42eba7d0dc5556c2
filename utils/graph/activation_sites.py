"""Where a conv's own feature map is: the last module of norms and activations behind it."""

import torch.fx as fx
import torch.nn as nn

from utils.graph.tracing import trace

_ELEMENTWISE = (
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.activation",
    "torch.nn.modules.instancenorm",
)


def activation_sites(model: nn.Module) -> dict[str, str]:
    """Return {conv: module whose output is the conv's own activation}, in the order they run.

    From the conv on, norms and activations are followed as long as nothing else reads what comes
    before them: a pooling, a sum, or a cat ends the way. A conv that runs twice is left out: it has
    no one feature map.

    Raises:
        ValueError: if torch.fx cannot trace the model.
    """
    traced = trace(model)
    modules = dict(traced.named_modules())
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    sites: dict[str, str] = {}
    for node in calls:
        if isinstance(modules[node.target], nn.Conv2d):
            sites[node.target] = "" if node.target in sites else _last_of(node, modules)
    return {conv: site for conv, site in sites.items() if site}


def _last_of(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    while len(node.users) == 1:
        (reader,) = node.users
        if (
            reader.op != "call_module"
            or type(modules[reader.target]).__module__ not in _ELEMENTWISE
        ):
            break
        node = reader
    return str(node.target)
