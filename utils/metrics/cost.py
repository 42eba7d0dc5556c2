"""MACs and parameters of a network, by the physical and by the paper rule."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import DeformConv2d

from utils.graph.emptied import is_emptied
from utils.graph.forward_pass import seen_through
from utils.graph.inputs import called, without_annotations
from utils.graph.operations import operation_name
from utils.graph.values import tensors_in
from utils.runs.borrowed_state import evaluating

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_COUNTED = (*CONVS, *TRANSPOSED_CONVS, DeformConv2d, nn.Linear)

# The operator each counted module runs; its MACs come from the module's shapes.
_CONV_OPS = frozenset({"aten.convolution", "torchvision.deform_conv2d"})
_LINEAR_OPS = frozenset({"aten.linear", "aten.addmm", "aten.mm", "aten.bmm"})

# Operators that move, compare or add numbers: nothing in them is a multiplication. Whatever is
# neither here, nor a view, nor counted is reported, so an operator nobody thought of shows up.
_FREE_NAMES = """
    abs add add_ amax amin arange argmax argmin argsort as_strided_ bitwise_and bitwise_not cat
    ceil clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clone constant_pad_nd
    contiguous copy copy_ cumsum embedding empty empty_like eq fill_ flip floor full full_like
    gather ge gt hardtanh hardtanh_ index index_add index_add_ index_copy index_copy_ index_put
    index_put_ index_select isfinite le lift_fresh logical_and logical_not lt masked_fill
    masked_fill_ max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices maximum min minimum ne neg new_empty new_full new_ones new_zeros
    ones ones_like pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d relu relu_
    repeat replication_pad1d replication_pad2d roll round scalar_tensor scatter scatter_
    scatter_add scatter_add_ select_scatter sign slice_scatter sort squeeze_ stack sub sub_ sum
    t_ threshold threshold_ topk transpose_ unsqueeze_ upsample_nearest1d upsample_nearest2d
    where zero_ zeros zeros_like _local_scalar_dense _to_copy _unsafe_index _unsafe_view
"""
_FREE_OPS = frozenset(f"aten.{name}" for name in _FREE_NAMES.split())


@dataclass(frozen=True)
class LayerCost:
    """One conv or linear: `macs` of all its calls for one image, its own weight and bias counted.

    `filters` is the number of output slices of its weight, `inputs` of input channels (features).
    `weight` is the name of that parameter.
    """

    name: str
    weight: str
    kind: str
    macs: int
    parameters: int
    filters: int
    inputs: int


@dataclass(frozen=True)
class Cost:
    """What a network costs for one image.

    `parameters` are all the network's, norms included. `layers` come in the order of their first
    call. `uncounted` names the multiplying operators that ran and are in no MAC here.
    """

    macs: int
    parameters: int
    layers: tuple[LayerCost, ...]
    uncounted: tuple[str, ...]


@dataclass(frozen=True)
class PaperCost:
    """What HRank's own counter gives: MACs (a linear's biases among them), no norm parameters."""

    macs: int
    parameters: int


def counts(cost: Cost | PaperCost) -> dict[str, int]:
    """Return {"macs": ..., "parameters": ...}, as summaries hold them."""
    return {"macs": cost.macs, "parameters": cost.parameters}


def physical_cost(model: nn.Module, example: Any) -> Cost:
    """Conv and linear MACs, and all parameters, of the network that is really there.

    Convs of one to three dimensions, grouped, transposed and deformable ones, and linears, modules
    or functions of a parameter, are counted from the shapes that occur when `example` passes in
    eval mode: one image [1, C, H, W], or a tuple of inputs or a dict of them by name, of one image.
    Adding a bias is not a MAC, nor is reading between places. A module called twice costs its MACs
    twice and its parameters once. Multiplications at padded zeros count, as in every published
    table.

    Raises:
        ValueError: `example` is not of one image.
    """
    layers, uncounted = _run(model, example)
    macs = sum(layer.macs for layer in layers)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(macs, parameters, layers, uncounted)


def paper_cost(
    model: nn.Module,
    example: Any,
    kept: Mapping[str, int],
    counted_inputs: Mapping[str, Sequence[str]] | None = None,
) -> PaperCost:
    """MACs and parameters that HRank's tables print for the dense `model` with filters removed.

    `kept` maps the name of a conv to how many of its filters stay; a conv that is not named
    keeps all. A removed filter takes its own MACs and parameters along, and the next layer's
    input channels stay, but for the convs of `counted_inputs`: {conv without bias: the convs whose
    filters it reads}. A linear is never pruned and costs its weights and biases as MACs. Norms cost
    nothing and have no parameters here.

    Raises:
        ValueError: `example` is not of one image, or `kept` names no conv of the network or a
            number of filters that the conv does not have.
    """
    layers, _ = _run(model, example)
    convs = {layer.name: layer for layer in layers if layer.kind != "Linear"}
    _check_kept(kept, convs)
    removed = {name: convs[name].filters - int(number) for name, number in kept.items()}
    macs = parameters = 0
    for layer in layers:
        if layer.kind == "Linear":
            macs += layer.parameters
            parameters += layer.parameters
            continue
        lost = sum(removed.get(name, 0) for name in (counted_inputs or {}).get(layer.name, ()))
        stays = (layer.filters - removed.get(layer.name, 0)) * (layer.inputs - lost)
        whole = layer.filters * layer.inputs
        macs += layer.macs * stays // whole  # multiples of both counts: the divisions are exact
        parameters += layer.parameters * stays // whole
    return PaperCost(macs, parameters)


def _check_kept(kept: Mapping[str, int], convs: Mapping[str, LayerCost]) -> None:
    for name, number in kept.items():
        if name not in convs:
            raise ValueError(f"kept filters: expected the name of a conv that runs, got {name!r}")
        filters = convs[name].filters
        if not 0 <= number <= filters or number != int(number):
            raise ValueError(
                f"kept filters of {name}: expected a whole number from 0 to {filters}, got {number}"
            )


def _run(model: nn.Module, example: Any) -> tuple[tuple[LayerCost, ...], tuple[str, ...]]:
    """Pass `example` through `model` once: the layers called, and operators left uncounted."""
    shapes = [list(tensor.shape) for tensor in tensors_in(without_annotations(example))]
    for shape in shapes if shapes else [[]]:
        if shape[:1] != [1] and (shape or len(shapes) < 2):  # beside an image, a number is one, too
            raise ValueError(f"example: expected one image [1, C, H, W], got shape {shape}")
    counter = _Counter()
    # Under no_grad, unlike inference mode, composite operators reach the counter in their parts.
    calls = _OwnCalls(model, counter)
    with evaluating(model), torch.no_grad(), _watching(model, counter), counter, calls:
        called(model, example)
    layers = tuple(
        LayerCost(name, macs=macs, **counter.shapes[name]) for name, macs in counter.macs.items()
    )
    return layers, tuple(sorted(counter.uncounted))


class _Counter(TorchDispatchMode):
    """The MACs of each layer so far, and the operators seen that multiply outside of them."""

    def __init__(self):
        super().__init__()
        self.macs: dict[str, int] = {}
        self.shapes: dict[str, dict[str, Any]] = {}
        self.uncounted: set[str] = set()
        self.running: list[frozenset[str]] = []  # operators that the running layer accounts for

    def add(self, name: str, macs: int, shape: dict[str, Any]) -> None:
        """Count a layer's call."""
        self.macs[name] = self.macs.get(name, 0) + macs
        self.shapes[name] = shape

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket)
        accounted = self.running and name in self.running[-1]
        if not (accounted or name in _FREE_OPS or func.is_view) and _has_floats(out):
            self.uncounted.add(str(func).removesuffix(".default"))
        return out


class _OwnCalls(TorchFunctionMode):
    """Counts the convs and linears that a module's code calls itself, on a module's parameters."""

    def __init__(self, model: nn.Module, counter: _Counter):
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._counter = counter

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with seen_through(self):
                return func(*args, **kwargs)
        kind = _KINDS.get(operation_name(func))
        features, weight, bias = (
            args[k] if len(args) > k else kwargs.get(n) for k, n in enumerate(_ARGUMENTS)
        )
        name = self._names.get(id(weight))
        if kind is None or name is None or self._counter.running:
            return func(*args, **kwargs)
        self._counter.running.append(_LINEAR_OPS if kind is nn.Linear else _CONV_OPS)
        out = func(*args, **kwargs)
        self._counter.running.pop()
        owner, _, last = name.rpartition(".")
        groups = int(args[6] if len(args) > 6 else kwargs.get("groups", 1))
        self._counter.add(
            owner if owner or last == "weight" else name,
            _call_macs(kind, weight, features, out),
            {"weight": name, **_shape_of(kind, weight, bias, groups)},
        )
        return out


_ARGUMENTS = ("input", "weight", "bias")
_KINDS = {kind.__name__.lower(): kind for kind in (*CONVS, *TRANSPOSED_CONVS, nn.Linear)}


@contextmanager
def _watching(model: nn.Module, counter: _Counter) -> Iterator[None]:
    """Tell `counter` when a counted module starts and what its call cost; unhook at exit."""
    handles = []
    try:
        for name, module in model.named_modules():
            if isinstance(module, _COUNTED) and not is_emptied(module):
                handles += _hook(name, module, counter)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, module: nn.Module, counter: _Counter) -> list:
    ops = _LINEAR_OPS if isinstance(module, nn.Linear) else _CONV_OPS

    def enter(module, args, kwargs):
        counter.running.append(ops)

    def leave(module, args, kwargs, out):
        counter.running.pop()
        features = args[0] if args else kwargs["input"]
        kind, weight = type(module), module.weight
        shape = _shape_of(kind, weight, module.bias, getattr(module, "groups", 1))
        macs = _call_macs(kind, weight, features, out)
        counter.add(name, macs, {"weight": f"{name}.weight" if name else "weight", **shape})

    return [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave, with_kwargs=True),
    ]


def _call_macs(kind: type, weight: Tensor, features: Tensor, out: Tensor) -> int:
    """MACs of one call: the whole weight at every place of one side.

    A transposed conv spreads every place of its input, a conv or a linear gathers every place of
    its output. An aligned layer picks from a wider input and writes into a wider output: places
    count, not channels.
    """
    side = features if issubclass(kind, TRANSPOSED_CONVS) else out
    channels = side.shape[-1 if issubclass(kind, nn.Linear) else 1]
    return side.numel() // max(channels, 1) * weight.numel()


def _shape_of(kind: type, weight: Tensor, bias: Tensor | None, groups: int) -> dict[str, Any]:
    """Kind, own parameters, filters and inputs, read off the weight that is really there."""
    outer, inner = weight.shape[:2]
    inner *= groups
    transposed = issubclass(kind, TRANSPOSED_CONVS)
    return {
        "kind": next(known.__name__ for known in _COUNTED if issubclass(kind, known)),
        "parameters": weight.numel() + (0 if bias is None else bias.numel()),
        "filters": inner if transposed else outer,
        "inputs": outer if transposed else inner,
    }


def _has_floats(out: object) -> bool:
    """Whether an operator's result holds real or complex numbers, not only indices or flags."""
    values = out if isinstance(out, (tuple, list)) else [out]
    return any(
        isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
        for value in values
    )
