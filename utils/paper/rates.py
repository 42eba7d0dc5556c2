"""Compress rates as a command line gives them, and what they leave of each conv."""

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from utils.graph.network import Network
from utils.paper.hrankplus import fit_rates as fit_slim_rates
from utils.paper.hrankplus import slim_widths
from utils.pruning.compress_rates import fit_rates, format_rates, num_removed, parse_rates
from utils.runs.hints import did_you_mean


@dataclass(frozen=True)
class CompressRates:
    """The compress rates of one network, in the order of a layout.

    `hrank` has one rate per conv (GoogLeNet: per block) and keeps f - int(rate * f) of its f
    filters; `hrankplus` has one rate per stage and one per block inside, and keeps
    int(f * (1 - rate)), both in floating point as the official codes do.
    """

    network: Network
    layout: str
    values: tuple[float, ...]

    def text(self) -> str:
        """Return the rates in the official grammar."""
        return format_rates(self.values)

    def kept(self, filters: Mapping[str, int], *, as_counted: bool = False) -> dict[str, int]:
        """Return {conv: filters that stay} of every rank layer, in rate order.

        `filters` is {conv: number of filters}. `as_counted` gives what the official counter of MACs
        takes, where it differs from what the official masks do.
        """
        layers = self.network.layers.layers
        if self.layout == "hrankplus":
            widths = slim_widths(self.network, self.values)
            return {layer.conv: widths[layer.conv].outputs for layer in layers}
        kept = {}
        for layer in layers:
            rate = self.values[layer.counted_rate if as_counted else layer.rate]
            kept[layer.conv] = filters[layer.conv] - num_removed(rate, filters[layer.conv])
        return kept

    def of_convs(self, filters: Mapping[str, int]) -> dict[str, float]:
        """Return {conv: rate r} such that int(r * f) filters of every rank layer are to go."""
        if self.layout == "hrank":
            return {x.conv: self.values[x.rate] for x in self.network.layers.layers}
        gone = {conv: filters[conv] - stays for conv, stays in self.kept(filters).items()}
        # The next number up, lest (a / b) * b fall below a.
        return {
            conv: math.nextafter(count / filters[conv], 1) if count else 0.0
            for conv, count in gone.items()
        }


def read_rates(text: str, network: Network, layout: str = "hrank") -> CompressRates:
    """Return the compress rates that `text` spells.

    Raises:
        ValueError: `text` is malformed, or it spells too few or too many rates.
    """
    values = parse_rates(text)
    if layout == "hrankplus":
        return CompressRates(network, layout, tuple(fit_slim_rates(network, values)))
    known = network.layers
    try:
        fitted = fit_rates(values, known.num_rates, known.ignored_rates, network.spec)
    except ValueError as error:
        raise ValueError(f"{error}{_meant(values, network)}") from None
    return CompressRates(network, layout, tuple(fitted))


def _meant(values: Sequence[float], network: Network) -> str:
    """Return what rates of another number may have been meant as, "" where nothing is known."""
    if len(values) == 1:
        return f"; one rate for all is --ratio {values[0]:g}"
    slim = network.official.slim
    if slim and 0 <= len(values) - slim.num_rates <= slim.ends_in_zero:
        return "; these are as many as --layout hrankplus takes"
    return ""


def rates_of_ratio(ratio: Sequence[float], network: Network) -> str:
    """Return what `--ratio` stands for, in the official grammar: a single number is every rate.

    Raises:
        ValueError: a number is no rate.
    """
    if not all(0 <= rate < 1 for rate in ratio):
        given = ",".join(f"{rate:g}" for rate in ratio)
        point = ""
        if len(ratio) == 2 and ratio[0] == 0 and float(ratio[1]).is_integer():
            point = f"; a decimal point makes one rate of it, --ratio 0.{ratio[1]:g}"
        raise ValueError(f"--ratio is {given!r}: expected at least 0 and less than 1{point}")
    num_rates = network.layers.num_rates
    return format_rates(ratio * num_rates if len(ratio) == 1 else ratio)


def rates_of_layers(rates: Mapping[str, float], network: Network) -> str:
    """Return what {layer: rate} stands for, in the official grammar; the other layers stay whole.

    A name with `*`, `?` or `[` is a pattern, as of file names. A layer takes its own name's rate
    before a pattern's, and of several patterns that of the last.

    Raises:
        ValueError: no rate at all, a layer that is not there or cannot be pruned, a pattern that
            matches none, a rate that is none, or two rates for layers that have one together.
    """
    if not rates:
        raise ValueError("rates of no layer: expected {layer: rate} with at least one")
    known = {layer.conv: layer.rate for layer in network.layers.layers}
    given: dict[str, float] = {}
    for name in sorted(rates, key=lambda name: not _is_pattern(name)):
        rate = rates[name]
        if not 0 <= rate < 1:
            raise ValueError(f"rate of {name!r} is {rate!r}: expected at least 0 and less than 1")
        matched = fnmatch.filter(known, name) if _is_pattern(name) else [name] * (name in known)
        if not matched:
            raise ValueError(_unmatched(name, list(known)))
        given |= dict.fromkeys(matched, float(rate))
    values: dict[int, tuple[str, float]] = {}
    for layer, rate in given.items():
        other, before = values.setdefault(known[layer], (layer, rate))
        if before != rate:
            raise ValueError(
                f"rates of {other!r} ({before:g}) and {layer!r} ({rate:g}): expected one rate, "
                "since they lose the same filters"
            )
    return format_rates([values.get(n, ("", 0.0))[1] for n in range(network.layers.num_rates)])


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _unmatched(name: str, known: Sequence[str]) -> str:
    listed = "`python main.py layers` lists those that there are"
    if _is_pattern(name):
        return f"pattern {name!r} matches no prunable layer: {listed}"
    return f"no prunable layer {name!r}{did_you_mean(name, known)}: {listed}"
