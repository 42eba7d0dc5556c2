"""Names of torch's operations, sorted by how their effect on channels is found out."""

from collections.abc import Callable
from typing import Any

import torch

MOVEMENTS = frozenset(  # run on the labels themselves
    "cat concat concatenate stack hstack vstack dstack columnstack chunk unsafechunk split"
    " splitwithsizes unsafesplit unsafesplitwithsizes tensorsplit hsplit vsplit dsplit unbind"
    " narrow narrowcopy select indexselect getitem index take takealongdim gather reshape view"
    " viewas reshapeas flatten unflatten ravel permute transpose swapaxes swapdims movedim moveaxis"
    " t adjoint mt h mh squeeze unsqueeze expand expandas broadcastto repeat repeatinterleave tile"
    " roll flip fliplr flipud rot90 pixelshuffle pixelunshuffle channelshuffle nativechannelshuffle"
    " unfold diagonal asstrided pad constantpadnd".split()
)
JOINS = frozenset("cat concat concatenate stack hstack vstack dstack columnstack".split())
COPIES = frozenset(  # the same places, the same channels
    "contiguous clone detach data to type float double half bfloat16 cuda cpu typeas"
    " requiresgrad alias positive identity lifttensor real resolveconj resolveneg"
    " dropout dropout1d dropout2d dropout3d alphadropout featuredropout featurealphadropout"
    " nativedropout".split()
)
ELEMENTWISE = frozenset(  # each place from the same place of the operands; what f(0) is, is tried
    "relu relu6 leakyrelu rrelu elu selu celu gelu silu mish hardswish hardtanh tanh softsign"
    " hardshrink softshrink tanhshrink threshold sigmoid hardsigmoid logsigmoid softplus logit"
    " abs absolute neg negative sign sgn sqrt rsqrt square reciprocal exp exp2 expm1 log log2 log10"
    " log1p sin cos tan sinh cosh asin acos atan asinh acosh atanh arcsin arccos arctan erf erfc"
    " erfinv floor ceil round trunc fix frac clamp clip clampmin clampmax nantonum isnan isinf"
    " isfinite logicalnot bitwisenot invert fill zero zeroslike oneslike fulllike"
    " add iadd radd sub isub rsub subtract mul imul rmul multiply div idiv rdiv truediv rtruediv"
    " itruediv truedivide divide floordiv floordivide rfloordiv remainder mod rmod fmod pow ipow"
    " rpow floatpower maximum minimum max min fmax fmin where lerp addcmul addcdiv copysign hypot"
    " atan2 arctan2 ldexp xlogy eq ne lt le gt ge equal greater greaterequal less lessequal noteq"
    " notequal logicaland logicalor logicalxor bitwiseand bitwiseor bitwisexor and or xor rand ror"
    " iand ior maskedfill".split()
)
SPATIAL = {  # act on the last dimensions alone: how many, -1 all but two
    **{f"{kind}pool{k}d": k for k in (1, 2, 3) for kind in
       ("max", "avg", "lp", "adaptivemax", "adaptiveavg", "fractionalmax", "maxun")},
    **{f"{kind}pool{k}dwithindices": k for k in (1, 2, 3) for kind in
       ("max", "adaptivemax", "fractionalmax")},
    "interpolate": -1, "upsample": -1, "upsamplenearest": -1, "upsamplebilinear": -1,
}  # fmt: skip
SAMPLED = frozenset("gridsample gridsampler roialign roipool".split())  # where others say
REDUCTIONS = {  # the place of their `dim`
    **dict.fromkeys(
        "mean sum nansum nanmean amax amin prod all any std var logsumexp max min argmax argmin"
        " median mode countnonzero stdmean varmean".split(), 1
    ),
    "norm": 2, "vectornorm": 2, "quantile": 2,
}  # fmt: skip
ALONG = {  # keep the shape, and mix along a `dim` (its place, its default)
    "softmax": (1, None), "logsoftmax": (1, None), "softmin": (1, None), "cumsum": (1, None),
    "cumprod": (1, None), "sort": (1, -1), "argsort": (1, -1), "normalize": (2, 1),
    "logcumsumexp": (1, None), "msort": (9, 0), "gumbelsoftmax": (9, -1),
}  # fmt: skip
SIZED = frozenset(  # make tensors out of sizes
    "zeros ones full empty rand randn newzeros newones newfull newempty arange linspace eye tensor"
    " randint randperm".split()
)
LIKE = frozenset("zeroslike oneslike fulllike emptylike randlike randnlike".split())
LAYERS = {
    **{f"conv{k}d": "conv" for k in (1, 2, 3)},
    **{f"convtranspose{k}d": "conv" for k in (1, 2, 3)},
    "deformconv2d": "deform_conv",
    "linear": "linear", "batchnorm": "batch_norm", "instancenorm": "instance_norm",
    "groupnorm": "group_norm", "layernorm": "layer_norm", "rmsnorm": "layer_norm",
    "prelu": "prelu", "weightnorm": "weight_norm",
}  # fmt: skip
FACTS = frozenset(  # say something about a tensor, and give out no numbers of it
    "dtype device layout requiresgrad isleaf iscuda iscpu ismeta isquantized issparse ismkldnn"
    " isnested ndim dim names grad gradfn version basename name itemsize elementsize nbytes"
    " iscontiguous stride storageoffset isfloatingpoint iscomplex hasnames untypedstorage storage"
    " dataptr getdevice retainsgrad outputnr backwardhooks base isshared issparsecsr isxla ismps"
    " istype isinference ndimension resultoption cdata hash isconj isneg imag".split()
)
SIZES = frozenset("shape size numel len nelement".split())
NUMBERS = frozenset("item bool int float index tolist numpy complex format repr contains".split())

_GETTERS = {
    attribute.__get__: name
    for name in dir(torch.Tensor)
    if hasattr(attribute := getattr(torch.Tensor, name), "__get__") and not callable(attribute)
}


def operation_name(func: Callable[..., Any]) -> str:
    """Return what a torch function computes as one lower-case word without underscores."""
    name = _GETTERS.get(func) if type(func).__name__ == "method-wrapper" else None
    return (name or getattr(func, "__name__", str(func))).replace("_", "").lower()
