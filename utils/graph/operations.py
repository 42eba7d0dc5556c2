"""The operations a network is made of, sorted by what they do to a channel that is zero."""

from typing import Any

import torch.fx as fx
import torch.nn as nn

from utils.graph.relations import CONSTANT, ZERO

# Names as `operation_name` gives them: relu, nn.ReLU and Tensor.relu_ are all "relu".
MOVEMENTS = frozenset(
    "cat concat concatenate stack chunk split tensorsplit unbind narrow select indexselect getitem"
    " reshape view viewas reshapeas flatten unflatten permute transpose swapaxes movedim t squeeze"
    " unsqueeze expand expandas repeat repeatinterleave tile roll flip pad zeropad1d zeropad2d"
    " zeropad3d constantpadnd pixelunshuffle channelshuffle contiguous clone detach".split()
)
CARRIERS = frozenset(  # f(0) = 0, or pooling in space: a zero channel stays zero
    "relu relu6 leakyrelu prelu elu selu celu gelu silu mish hardswish hardtanh tanh softsign"
    " hardshrink softshrink tanhshrink abs neg sqrt square dropout dropout1d dropout2d dropout3d"
    " alphadropout featuredropout featurealphadropout stochasticdepth droppath"
    " maxpool1d maxpool2d maxpool3d avgpool1d avgpool2d avgpool3d"
    " adaptiveavgpool1d adaptiveavgpool2d adaptiveavgpool3d"
    " adaptivemaxpool1d adaptivemaxpool2d adaptivemaxpool3d lppool2d upsample interpolate"
    " upsamplingnearest2d upsamplingbilinear2d reflectionpadnd replicationpadnd circularpadnd"
    " identity to float double half bfloat16 typeas".split()
)
CONSTANTS = frozenset(  # elementwise, f(0) != 0 or not known: a zero channel turns constant
    "sigmoid hardsigmoid logsigmoid softplus exp cos erf log log1p logit pow clamp clip reciprocal"
    " rsqrt rsub".split()
)
SUMS = frozenset("add iadd sub isub".split())
PRODUCTS = frozenset("mul imul multiply".split())
QUOTIENTS = frozenset("div truediv itruediv divide".split())
REDUCTIONS = frozenset("mean sum amax".split())
SOFTMAXES = frozenset("softmax logsoftmax softmax2d".split())
MIXERS = frozenset("layernorm groupnorm".split())  # functional: their parameters are not masked


def operation_name(node: fx.Node, root: nn.Module) -> str:
    """Return what the node computes as one lower-case word without underscores."""
    if node.op == "call_module":
        name = _torch_class(root.get_submodule(str(node.target))).__name__
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", str(node.target))
    else:
        name = str(node.target)
    return name.replace("_", "").lower()


def run_movement(node: fx.Node, root: nn.Module, args: Any, kwargs: Any) -> Any:
    """Run a data-movement node on integer tensors; padding writes ZERO, or CONSTANT where not 0."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if "pad" in operation_name(node, root):
            value = ZERO if getattr(module, "value", 0) == 0 else CONSTANT
            return nn.functional.pad(args[0], list(module.padding), value=value)
        return module(*args, **kwargs)
    if node.op == "call_method":  # labels are rarely contiguous: reshape where the code views
        method = "reshape" if node.target == "view" else str(node.target)
        return getattr(args[0], method)(*args[1:], **kwargs)
    if operation_name(node, root) == "pad":
        value = kwargs.get("value", args[3] if len(args) > 3 else 0)
        sizes = kwargs["pad"] if "pad" in kwargs else args[1]
        return nn.functional.pad(args[0], sizes, value=CONSTANT if value else ZERO)
    return node.target(*args, **kwargs)


def _torch_class(module: nn.Module) -> type:
    """Return the class whose forward runs: torch's own, under a user's subclass."""
    return next(c for c in type(module).__mro__ if "forward" in vars(c))
