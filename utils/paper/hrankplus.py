"""The slim networks of HRankPlus, HRank's successor: the width of every layer at given rates.

HRankPlus takes one rate for each stage's output and for each block's inner conv, not one for each
conv, and keeps `int(filters * (1 - rate))` filters in floating point: 160 filters at 0.8 are 31.
What is never pruned there is not here: the last stage, GoogLeNet's 1 x 1 convs, the classifiers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models import densenet, googlenet, mobilenet, resnet_imagenet
from models.resnet_cifar import STAGE_WIDTHS
from models.vgg import CONFIGURATION
from utils.graph.network import Network


class Width(NamedTuple):
    """How many channels (features) a layer reads and writes."""

    inputs: int
    outputs: int


Layer = tuple[str, Width]


@dataclass(frozen=True)
class Layout:
    """What the rates of a network stand for.

    `widths` yields the layers of the slim network from `num_rates` rates and a number of classes.
    The rate at a position of `must_be_zero` belongs to a layer that HRankPlus cannot slice;
    `ends_in_zero` says that one more rate, a zero, may follow. `pooling` is what HRankPlus's
    counter charges for a channel of the average pooling; 0 where it does not see it, since there
    it is no module.
    """

    num_rates: int
    widths: Callable[[Sequence[float], int], Iterator[Layer]]
    must_be_zero: tuple[int, ...] = ()
    ends_in_zero: bool = False
    pooling: int = 0


def fit_rates(network: Network, rates: Sequence[float]) -> list[float]:
    """Return the rates that HRankPlus uses, as many as it takes for the network.

    The first rate of DenseNet, GoogLeNet and the MobileNets is there, and is ignored.

    Raises:
        ValueError: HRankPlus does not know the network, or the rates are too few or too many, not
            in [0, 1), or not 0 where they must be.
    """
    layout = _layout(network)
    used, rest = list(rates[: layout.num_rates]), list(rates[layout.num_rates :])
    if len(used) < layout.num_rates or len(rest) > layout.ends_in_zero:
        more = " (or one more, a zero)" * layout.ends_in_zero
        raise ValueError(
            f"compress rate: {len(rates)} rates for {network.spec}, HRankPlus expects "
            f"{layout.num_rates}{more}"
        )
    for position, rate in enumerate(rates):
        if not 0 <= rate < 1:
            raise ValueError(
                f"compress rate {position + 1} of {network.spec} is {rate}: expected 0 <= rate < 1"
            )
        if rate and (position in layout.must_be_zero or position >= layout.num_rates):
            raise ValueError(
                f"compress rate {position + 1} of {network.spec} is {rate}: expected 0, "
                "HRankPlus cannot prune that layer"
            )
    return used


def slim_widths(network: Network, rates: Sequence[float]) -> dict[str, Width]:
    """Return the width of every conv, norm and linear of HRankPlus's slim network, by module name.

    A norm and a depthwise conv read as many channels as they write.

    Raises:
        ValueError: as `fit_rates`, or a layer would keep no filter.
    """
    used = fit_rates(network, rates)
    widths = dict(_layout(network).widths(used, network.num_classes))
    for name, width in widths.items():
        if not width.outputs:
            raise ValueError(
                f"compress rate: {name!r} of {network.spec} keeps no filter, expected one"
            )
    return widths


def pooling_macs(network: Network, widths: Mapping[str, Width]) -> int:
    """Return what HRankPlus's counter charges for the average pooling of the slim network.

    It charges an adaptive pooling of k x k maps k * k + 1 for a channel, another pooling 1.

    Raises:
        ValueError: HRankPlus does not know the network.
    """
    classifier = list(widths.values())[-1]
    return _layout(network).pooling * classifier.inputs


def _layout(network: Network) -> Layout:
    if network.official.slim is None:
        expected = f"expected one of {', '.join(LAYOUTS)}"
        raise ValueError(f"HRankPlus has no {network.spec!r}: {expected}")
    return network.official.slim


def _kept(filters: int, rate: float) -> int:
    """Return how many filters stay: the official product, rounding errors included."""
    return int(filters * (1 - rate))


def _conv_norm(conv: str, norm: str, inputs: int, outputs: int) -> Iterator[Layer]:
    yield conv, Width(inputs, outputs)
    yield norm, Width(outputs, outputs)


def _vgg(rates: Sequence[float], classes: int) -> Iterator[Layer]:
    """A rate for each of the first 12 convs; the 13th keeps all filters."""
    convs = [(i, width) for i, width in enumerate(CONFIGURATION) if width != "M"]
    inputs = 3
    for (i, width), rate in zip(convs, [*rates, 0.0], strict=True):
        outputs = _kept(width, rate)
        yield from _conv_norm(f"features.conv{i}", f"features.norm{i}", inputs, outputs)
        inputs = outputs
    yield from _conv_norm("classifier.linear1", "classifier.norm1", inputs, 512)
    yield "classifier.linear2", Width(512, classes)


def _resnet_cifar(depth: int, head: str) -> Layout:
    """Rates of the stem, of the outputs of stages 1 and 2, then of conv1 of each block."""
    blocks = (depth - 2) // 6

    def widths(rates: Sequence[float], classes: int) -> Iterator[Layer]:
        inputs = STAGE_WIDTHS[0]
        inner = iter(rates[3:])
        yield from _conv_norm("conv1", "bn1", 3, inputs)
        for stage, (width, rate) in enumerate(zip(STAGE_WIDTHS, [*rates[1:3], 0.0], strict=True)):
            outputs = _kept(width, rate)
            for block in range(blocks):
                path = f"layer{stage + 1}.{block}"
                middle = _kept(width, next(inner))
                yield from _conv_norm(f"{path}.conv1", f"{path}.bn1", inputs, middle)
                yield from _conv_norm(f"{path}.conv2", f"{path}.bn2", middle, outputs)
                inputs = outputs
        yield head, Width(inputs, classes)

    return Layout(3 + 3 * blocks, widths, must_be_zero=(0,), pooling=8 * 8 + 1)


def _resnet_50(rates: Sequence[float], classes: int) -> Iterator[Layer]:
    """Rates of the stem, of the outputs of stages 1 to 3, then of conv1 and conv2 of each block."""
    inputs = _kept(resnet_imagenet.STEM_WIDTH, rates[0])
    inner = iter(rates[4:])
    yield from _conv_norm("conv1", "bn1", 3, inputs)
    stages = zip((3, 4, 6, 3), (64, 128, 256, 512), [*rates[1:4], 0.0], strict=True)
    for stage, (blocks, width, rate) in enumerate(stages, start=1):
        outputs = _kept(resnet_imagenet.EXPANSION * width, rate)
        for block in range(blocks):
            path = f"layer{stage}.{block}"
            middle = _kept(width, next(inner))
            yield from _conv_norm(f"{path}.conv1", f"{path}.bn1", inputs, middle)
            yield from _conv_norm(f"{path}.conv2", f"{path}.bn2", middle, middle)
            yield from _conv_norm(f"{path}.conv3", f"{path}.bn3", middle, outputs)
            if block == 0:
                shortcut = f"{path}.downsample"
                yield from _conv_norm(f"{shortcut}.0", f"{shortcut}.1", inputs, outputs)
            inputs = outputs
    yield "fc", Width(inputs, classes)


def _densenet_40(rates: Sequence[float], classes: int) -> Iterator[Layer]:
    """A rate for each conv; that of the first, conv1, is ignored."""
    width = densenet.STEM_WIDTH
    later = iter(rates[1:])
    yield "conv1", Width(3, width)
    for stage in (1, 2, 3):
        for block in range(12):
            path = f"dense{stage}.{block}"
            grown = _kept(densenet.GROWTH, next(later))
            yield f"{path}.bn1", Width(width, width)
            yield f"{path}.conv1", Width(width, grown)
            width += grown
        if stage < 3:
            outputs = _kept(width, next(later))
            yield f"trans{stage}.bn1", Width(width, width)
            yield f"trans{stage}.conv1", Width(width, outputs)
            width = outputs
    yield "bn", Width(width, width)
    yield "fc", Width(width, classes)


def _googlenet(rates: Sequence[float], classes: int) -> Iterator[Layer]:
    """The first rate is ignored; then one for the 3 x 3 convs of each Inception block.

    Those at the end of the last block keep all filters.
    """
    inputs = googlenet.STEM_WIDTH
    yield from _conv_norm("pre_layers.0", "pre_layers.1", 3, inputs)
    for (block, filters), rate in zip(googlenet.INCEPTIONS.items(), rates[1:], strict=True):
        n1x1, reduced3, n3x3, reduced5, n5x5, pooled = filters
        middle = _kept(n5x5, rate)
        if block != "inception_b5":
            n3x3, n5x5 = _kept(n3x3, rate), middle
        for conv, read, written in (
            ("branch1x1.0", inputs, n1x1),
            ("branch3x3.0", inputs, reduced3),
            ("branch3x3.3", reduced3, n3x3),
            ("branch5x5.0", inputs, reduced5),
            ("branch5x5.3", reduced5, middle),
            ("branch5x5.6", middle, n5x5),
            ("branch_pool.1", inputs, pooled),
        ):
            branch, _, place = conv.partition(".")
            norm = f"{block}.{branch}.{int(place) + 1}"
            yield from _conv_norm(f"{block}.{conv}", norm, read, written)
        inputs = n1x1 + n3x3 + n5x5 + pooled
    yield "linear", Width(inputs, classes)


def _mobilenet_v1(rates: Sequence[float], classes: int) -> Iterator[Layer]:
    """The first rate is ignored; then one for the output of each block, the last keeping all."""
    inputs = mobilenet.STEM_WIDTH
    yield from _conv_norm("conv1.0", "conv1.1", 3, inputs)
    blocks = zip(mobilenet.SEPARABLE, [*rates[1:], 0.0], strict=True)
    for block, ((width, _), rate) in enumerate(blocks):
        path, outputs = f"features.{block}", _kept(width, rate)
        yield from _conv_norm(f"{path}.0", f"{path}.1", inputs, inputs)  # depthwise
        yield from _conv_norm(f"{path}.3", f"{path}.4", inputs, outputs)
        inputs = outputs
    yield "classifier.0", Width(inputs, classes)


def _mobilenet_v2(rates: Sequence[float], classes: int) -> Iterator[Layer]:
    """The first rate is ignored; then one for the output of each stage of inverted residuals."""
    inputs, last = mobilenet.STEM_WIDTH, mobilenet.LAST_WIDTH
    yield from _conv_norm("features.0.0", "features.0.1", 3, inputs)
    block = 1
    for (expansion, width, repeats, _), rate in zip(mobilenet.STAGES, rates[1:], strict=True):
        outputs = _kept(width, rate)
        for _ in range(repeats):
            path, at, hidden = f"features.{block}.conv", 0, expansion * inputs
            if expansion > 1:
                at = 3
                yield from _conv_norm(f"{path}.0", f"{path}.1", inputs, hidden)
            yield from _conv_norm(f"{path}.{at}", f"{path}.{at + 1}", hidden, hidden)  # depthwise
            yield from _conv_norm(f"{path}.{at + 3}", f"{path}.{at + 4}", hidden, outputs)
            inputs, block = outputs, block + 1
    yield from _conv_norm(f"features.{block}.0", f"features.{block}.1", inputs, last)
    yield "classifier.1", Width(last, classes)


LAYOUTS: dict[str, Layout] = {
    "vgg_16_bn": Layout(12, _vgg, ends_in_zero=True),
    "resnet_56": _resnet_cifar(56, "fc"),
    "resnet_110": _resnet_cifar(110, "linear"),
    "densenet_40": Layout(39, _densenet_40, pooling=1),
    "googlenet": Layout(10, _googlenet, pooling=1),
    "resnet_50": Layout(20, _resnet_50, pooling=7 * 7 + 1),
    "mobilenet_v1": Layout(13, _mobilenet_v1),
    "mobilenet_v2": Layout(8, _mobilenet_v2),
}
