"""Two measured networks side by side: the ratios of their figures, and what stands out."""

from collections.abc import Mapping, Sequence
from typing import Any

from utils.metrics.latency import FASTER
from utils.paper.markdown import counted


def ratios(found: Mapping[str, Any], against: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the first network's figures divided by the second's; None where one is missing."""
    figures, others = _figures(found), _figures(against)
    return {
        name: figures[name] / others[name] if figures[name] is not None and others[name] else None
        for name in figures
    }


def latency_figure(timed: Mapping[str, Any]) -> str:
    """Return the name that `ratios` gives to a latency."""
    return f"latency_ms_{timed['batch_size']}_images_{timed['threads']}_threads"


def label(found: Mapping[str, Any]) -> str:
    """Return what a measured network is called."""
    return f"{found['arch']} ({found['form']})"


def setting(timed: Mapping[str, Any]) -> str:
    """Return the setting of a measurement in words: "100 images, 1 thread"."""
    words = [counted(timed["batch_size"], "image")]
    if "threads" in timed:
        words.append(counted(timed["threads"], "thread"))
    return ", ".join(words)


def remarks(found: Mapping[str, Any], against: Mapping[str, Any] | None = None) -> list[str]:
    """Return sentences on what stands out: zero filters, and a network smaller but not faster."""
    networks = [found] if against is None else [found, against]
    said = [
        f"{network['zero_filters']['zeros']} filters of {label(network)} are all zero: "
        "`main.py prune --remove_zeros` takes such filters out."
        for network in networks
        if network["zero_filters"]["zeros"]
    ]
    said += [
        uneven_remark(label(network), names)
        for network in networks
        if (names := network["uneven_depthwise"])
    ]
    if against is None or found["macs"] == against["macs"]:
        return said
    if found["macs"] < against["macs"]:
        return said + _not_faster("the first network", found, against)
    return said + _not_faster("the second network", against, found)


def uneven_remark(name: str, convs: Sequence[str]) -> str:
    """Return the sentence on depthwise convs of odd widths."""
    return (
        f"{len(convs)} depthwise convs of {name} have widths that 4 does not divide, {convs[0]} "
        "first: runtimes compute such convs by slower ways; --round_to 4 avoids them."
    )


def _not_faster(name: str, small: Mapping[str, Any], big: Mapping[str, Any]) -> list[str]:
    """Return the sentence that `small` saves MACs and no time, where that is the case."""
    times = ratios(small, big)
    slow = [
        f"{times[latency_figure(timed)]:.2f} times as long for {setting(timed)}"
        for timed in small["latency"]
        if times[latency_figure(timed)] > FASTER
    ]
    if not slow:
        return []
    fewer = f"{100 * (1 - times['macs']):.1f}% fewer MACs than the other"
    said = f"Smaller but not faster: {name}, {label(small)}, does {fewer}, and takes "
    return [said + "; ".join(slow) + "."]


def _figures(found: Mapping[str, Any]) -> dict[str, float | None]:
    counts = ("macs", "padded_macs", "parameters", "size_bytes")
    figures = {name: found[name] for name in counts if name in found}
    for size in found["sizes"]:
        figures[f"dense_bytes_{size['bits']}_bits"] = size["dense_bytes"]
        figures[f"nonzero_bytes_{size['bits']}_bits"] = size["nonzero_bytes"]
    for peak in found["memory"]:
        figures[f"peak_bytes_{peak['batch_size']}_images"] = peak["peak_bytes"]
    return figures | {latency_figure(timed): timed["median_ms"] for timed in found["latency"]}
