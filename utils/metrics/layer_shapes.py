"""The shape of a layer with weights as it runs in a network, and layers of such shapes alone."""

from dataclasses import dataclass, replace
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from utils.graph.emptied import is_emptied
from utils.runs.borrowed_state import evaluating

FOURS = 4  # channels that a runtime takes at once at the least

_CONVS = {
    (dims, transposed): kind
    for dims, kinds in enumerate(
        (
            (nn.Conv1d, nn.ConvTranspose1d),
            (nn.Conv2d, nn.ConvTranspose2d),
            (nn.Conv3d, nn.ConvTranspose3d),
        ),
        start=1,
    )
    for transposed, kind in enumerate(kinds)
}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class LayerShape:
    """What a layer's time depends on: all but the numbers in it.

    `size` is the input's shape without batch and channels, of a linear how many vectors an image
    has; `per_group` is how many channels each group of a grouped conv reads, 0 of a conv of one
    group or a linear. `calls` is how often a pass calls it.
    """

    reads: int
    writes: int
    size: tuple[int, ...]
    kernel: tuple[int, ...] = ()  # () of a linear
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    per_group: int = 0
    transposed: bool = False
    calls: int = 1

    @property
    def depthwise(self) -> bool:
        """True if every filter reads a single channel."""
        return self.per_group == 1

    @property
    def groups(self) -> int:
        """How many groups of channels there are."""
        return self.reads // self.per_group if self.per_group else 1

    def input_shape(self, batch_size: int) -> tuple[int, ...]:
        """Return the shape of what it reads; a linear's vectors lie along the first dimension."""
        if self.kernel:
            return batch_size, self.reads, *self.size
        return batch_size * prod(self.size), self.reads

    @property
    def written(self) -> int:
        """How many positions it writes, of one image, in all channels."""
        if not self.kernel:
            return self.writes * prod(self.size)
        if self.transposed:
            return self.writes * prod(a * s for a, s in zip(self.size, self.stride, strict=True))
        return self.writes * prod(-(-a // s) for a, s in zip(self.size, self.stride, strict=True))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of an image, those of all calls."""
        positions = self.writes * prod(self.size) if self.transposed else self.written
        return self.calls * self.reads // self.groups * positions * prod(self.kernel)

    def at(self, reads: int, writes: int) -> "LayerShape":
        """Return the shape of such a layer that reads and writes so many channels."""
        return replace(self, reads=reads, writes=writes)

    def kind(self) -> str:
        """Return what layers of the same times at the same widths have in common, as a text."""
        if not self.kernel:
            return f"linear {'x'.join(map(str, self.size)) or 1}"
        names = {"k": self.kernel, "s": self.stride, "p": self.padding, "d": self.dilation}
        words = [f"{key}{'x'.join(map(str, value))}" for key, value in names.items()]
        grouped = [f"g{self.per_group}"] if self.per_group else []
        kind = "transposed" if self.transposed else "conv"
        return " ".join([kind, *words, *grouped, "@" + "x".join(map(str, self.size))])


def layer_shapes(model: nn.Module, example: Tensor) -> dict[str, LayerShape]:
    """Return {name: shape} of the convs and linears that `model` calls on one image [1, ...]."""
    found: dict[str, LayerShape] = {}

    def seen(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor, *, name: str) -> None:
        calls = found[name].calls + 1 if name in found else 1
        found[name] = replace(_shape_of(layer, inputs[0]), calls=calls)

    kinds = (nn.Linear, *_CONVS.values())
    handles = [
        module.register_forward_hook(partial(seen, name=name))
        for name, module in model.named_modules()
        if isinstance(module, kinds) and not is_emptied(module)
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _shape_of(layer: nn.Module, features: Tensor) -> LayerShape:
    if isinstance(layer, nn.Linear):
        vectors = prod(features.shape[1:-1])
        return LayerShape(layer.in_features, layer.out_features, (vectors,) if vectors > 1 else ())
    padding = layer.padding
    if isinstance(padding, str):
        pairs = zip(layer.kernel_size, layer.dilation, strict=True)
        same = padding == "same"
        padding = tuple(dilation * (kernel - 1) // 2 * same for kernel, dilation in pairs)
    return LayerShape(
        layer.in_channels,
        layer.out_channels,
        tuple(features.shape[2:]),
        tuple(layer.kernel_size),
        tuple(layer.stride),
        tuple(padding),
        tuple(layer.dilation),
        0 if layer.groups == 1 else layer.in_channels // layer.groups,
        bool(layer.transposed),
    )


def uneven_depthwise(model: nn.Module) -> list[str]:
    """Return the depthwise convs whose width is not a multiple of four: runtimes are slow there."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, tuple(_CONVS.values()))
        and module.groups == module.in_channels > 1
        and module.in_channels % FOURS
    ]


def layer_module(shape: LayerShape) -> nn.Module:
    """Return such a layer alone, with random weights: a conv has a norm and a relu behind it."""
    if not shape.kernel:
        return nn.Linear(shape.reads, shape.writes)
    dims = len(shape.kernel)
    conv = _CONVS[dims, int(shape.transposed)](
        shape.reads,
        shape.writes,
        shape.kernel,
        stride=shape.stride,
        padding=shape.padding,
        dilation=shape.dilation,
        groups=shape.groups,
        bias=False,
    )
    return nn.Sequential(conv, _NORMS[dims - 1](shape.writes), nn.ReLU(inplace=True))


def layer_onnx(shape: LayerShape, batch_size: int) -> bytes:
    """Return the ONNX graph of such a layer alone, its norm folded into it, a relu behind a conv.

    Its input is called images.
    """
    from onnx import TensorProto, helper, numpy_helper

    if shape.kernel:
        outer, inner = shape.writes, shape.reads
        if shape.transposed:
            outer, inner = inner, outer
        layer = helper.make_node(
            "ConvTranspose" if shape.transposed else "Conv",
            ["images", "weight", "bias"],
            ["sums"],
            kernel_shape=shape.kernel,
            strides=shape.stride,
            pads=[*shape.padding, *shape.padding],
            dilations=shape.dilation,
            group=shape.groups,
        )
        nodes = [layer, helper.make_node("Relu", ["sums"], ["maps"])]
        weight = torch.randn(outer, inner // shape.groups, *shape.kernel)
    else:
        nodes = [helper.make_node("Gemm", ["images", "weight", "bias"], ["maps"], transB=1)]
        weight = torch.randn(shape.writes, shape.reads)
    constants = {"weight": weight, "bias": torch.zeros(shape.writes)}
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape.input_shape(batch_size))],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.numpy(), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
