"""An exported program with its batch norms folded into the convs that they read, channels last."""

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

_CONVS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)
_NORM = torch.ops.aten.batch_norm.default


class ChannelsLast(nn.Module):
    """A network that computes channels last, whatever the layout of its images."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W]
        return self.network(images.contiguous(memory_format=torch.channels_last))


@torch.no_grad()
def norms_folded(program: ExportedProgram) -> nn.Module:
    """Return a module that computes what a program does, its norms part of the convs before them.

    A norm goes where nothing but it reads its conv, and where that is used once.
    """
    module = program.module(check_guards=False)
    named = (module.named_parameters, module.named_buffers)
    tensors = {name: tensor for of in named for name, tensor in of(remove_duplicate=False)}
    graph = module.graph
    for number, norm in enumerate([node for node in graph.nodes if node.target == _NORM]):
        conv = norm.args[0]
        if conv.target not in _CONVS or len(conv.users) > 1:
            continue
        sources = [*norm.args[1:5], *(*conv.args[1:3], None)[:2]]
        if not all(source is None or _is_tensor(source, tensors) for source in sources):
            continue
        scale, shift, mean, variance, kernel, bias = (
            default if source is None else tensors[source.target]
            for source, default in zip(sources, (1, 0, 0, 1, None, 0), strict=True)
        )
        factor = scale / (variance + norm.args[7]).sqrt()  # [filters]
        folded = {
            "weight": kernel * factor.view(-1, 1, 1, 1),
            "bias": shift + (bias - mean) * factor,
        }
        with graph.inserting_before(conv):
            nodes = [_added(module, f"folded_{number}_{name}", folded[name]) for name in folded]
        conv.args = (conv.args[0], *nodes, *conv.args[3:])
        norm.replace_all_uses_with(conv)
        graph.erase_node(norm)
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)  # without what is used no more


def _is_tensor(node: object, tensors: dict[str, Tensor]) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr" and node.target in tensors


def _added(module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return module.graph.get_attr(name)
