"""The shape of a layer with weights as it runs in a network, and layers of such a shape."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
_NORMS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # by dimensions
_ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {  # by their functions' names
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.ReLU6,  # of which nn.ReLU6 is one
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
_NORM, _SUM = "batch_norm", "add"
_PLACES = {_NORM: 1, _SUM: 2, **dict.fromkeys(_ACTIVATIONS, 3)}  # behind a layer
_COPIES, _MACS, _WEIGHTS = 12, 5e8, 5e7  # of layers of one shape that are timed together, at most


@dataclass(frozen=True)
class LayerShape:
    """What a layer's time depends on: all but the numbers in it.

    `size` is the input's shape without batch and channels, of a linear how many vectors an image
    has; `per_group` is how many channels each group of a grouped conv reads, 0 of a conv of one
    group or a linear. `calls` is how often a pass calls it, `then` what its numbers go through
    next, by the names of torch's functions: a batch norm, a sum, an activation, or some, in this
    order. Those that write into what they read end in _.
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
    then: tuple[str, ...] = ()
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
    def weights(self) -> int:
        """How many weights it has."""
        return (self.per_group or self.reads) * self.writes * prod(self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of an image, those of all calls."""
        positions = self.writes * prod(self.size) if self.transposed else self.written
        return self.calls * (self.per_group or self.reads) * positions * prod(self.kernel)

    def at(self, reads: int, writes: int) -> "LayerShape":
        """Return the shape of such a layer that reads and writes so many channels."""
        return replace(self, reads=reads, writes=writes)

    def kind(self) -> str:
        """Return what layers of the same times at the same widths have in common, as a text."""
        if not self.kernel:
            return " ".join(["linear", "x".join(map(str, self.size)) or "1", *self.then])
        names = {"k": self.kernel, "s": self.stride, "p": self.padding, "d": self.dilation}
        words = [f"{key}{'x'.join(map(str, value))}" for key, value in names.items()]
        grouped = [f"g{self.per_group}"] if self.per_group else []
        kind = "transposed" if self.transposed else "conv"
        return " ".join([kind, *words, *grouped, "@" + "x".join(map(str, self.size)), *self.then])


def layer_shapes(model: nn.Module, example: Tensor) -> dict[str, LayerShape]:
    """Return {name: shape} of the convs and linears that `model` calls on one image [1, ...]."""
    found: dict[str, LayerShape] = {}
    followers = _Followers()

    def seen(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor, *, name: str) -> None:
        calls = found[name].calls + 1 if name in found else 1
        found[name] = replace(_shape_of(layer, inputs[0]), calls=calls)
        followers.gave(name, outputs)

    kinds = (nn.Linear, *_CONVS.values())
    handles = [
        module.register_forward_hook(partial(seen, name=name))
        for name, module in model.named_modules()
        if isinstance(module, kinds) and not is_emptied(module)
    ]
    try:
        with evaluating(model), torch.no_grad(), followers:
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: replace(shape, then=followers.of(name)) for name, shape in found.items()}


class _Followers(TorchFunctionMode):
    """Sees what the outputs of layers go through next."""

    def __init__(self) -> None:
        super().__init__()
        self._then: dict[str, tuple[str, ...]] = {}
        self._given: dict[int, tuple[int, str, Tensor]] = {}  # tensors stay: ids are their own
        self._order = count()

    def gave(self, name: str, outputs: Tensor) -> None:
        """Remember what the layer of a name gave."""
        self._given[id(outputs)] = next(self._order), name, outputs

    def of(self, name: str) -> tuple[str, ...]:
        """Return the names of what the layer's numbers go through."""
        return self._then.get(name, ())

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        called = getattr(func, "__name__", "").strip("_")
        called = _SUM if called == "iadd" else called
        read = [self._given[id(x)] for x in args[:2] if id(x) in self._given]
        if read and called in _PLACES:
            _, name, last = max(read, key=lambda given: given[0])  # a sum reads the stream, too
            earlier = (word.rstrip("_") for word in self.of(name))
            if outputs.shape == last.shape and all(_PLACES[called] > _PLACES[x] for x in earlier):
                self._then[name] = (*self.of(name), called + "_" * (outputs is args[0]))
                self.gave(name, outputs)
        return outputs


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


class Copies(nn.Module):
    """Several layers of one shape and what comes behind each, with random weights of its own.

    All read the same images; a sum adds what the layer before gave. In a network a layer finds the
    runtime's threads awake, and other layers' weights in the caches; a single one would not, and
    takes another time where it is small or has many weights.
    """

    def __init__(self, shape: LayerShape, batch_size: int):
        super().__init__()
        fit = min(_WEIGHTS / shape.weights, _MACS * shape.calls / (shape.macs * batch_size))
        number = min(max(1, int(fit)), _COPIES)
        self.layers = nn.ModuleList(_layer(shape) for _ in range(number))
        self.then = [word for word in shape.then if word != _NORM]
        self.activation: nn.Module = nn.Identity()
        for word in self.then:
            if (name := word.rstrip("_")) in _ACTIVATIONS:
                self.activation = _ACTIVATIONS[name]()
                self.activation.inplace = name != word

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return what each of the layers gives."""
        found: list[Tensor] = []
        for layer in self.layers:
            maps = layer(images)
            stream = found[-1] if found else maps
            if _SUM in self.then:
                maps = maps + stream
            elif f"{_SUM}_" in self.then:
                maps += stream
            found.append(self.activation(maps))
        return found


def _layer(shape: LayerShape) -> nn.Module:
    """Return a layer of a shape, with the norm behind it, if any."""
    dims = len(shape.kernel)
    if not shape.kernel:
        layer: nn.Module = nn.Linear(shape.reads, shape.writes)
    else:
        layer = _CONVS[dims, int(shape.transposed)](
            shape.reads,
            shape.writes,
            shape.kernel,
            stride=shape.stride,
            padding=shape.padding,
            dilation=shape.dilation,
            groups=shape.groups,
            bias=False,
        )
    return nn.Sequential(layer, _NORMS[dims](shape.writes)) if _NORM in shape.then else layer
