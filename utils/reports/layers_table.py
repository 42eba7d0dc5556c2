"""The layers of a network for people: Markdown that reads well on a screen, too."""

from collections.abc import Mapping
from typing import Any

from utils.paper.markdown import millions, table


def layers_text(result: Mapping[str, Any]) -> str:
    """Return what `main.py layers` found as a Markdown table and its sentences."""
    channels, height, width = result["image"]
    rows = [
        (
            row["rate"] or "",
            row["layer"],
            row["filters"],
            millions(row["macs"]),
            f"{row['share_of_macs']:.1%}",
            row["site"] or "",
            _remarks(row),
        )
        for row in result["layers"]
    ]
    names = ("rate", "layer", "filters", "MACs", "share", "ranked at", "remarks")
    arguments = f" ({result['arch_args']})" if result["arch_args"] else ""
    lines = [
        f"# {result['arch']}{arguments}",
        f"One image of {channels} x {height} x {width}: {millions(result['macs'])} MACs, "
        f"{millions(result['parameters'])} parameters, {result['num_classes']} classes; "
        f"{result['rates']} compress rates, in this order.",
        table(names, rows),
    ]
    if result["barriers"]:
        free = sum(row["share_of_macs"] for row in result["layers"] if not row["protected"])
        lines.append(
            "Operations that nobody knows, so that what enters them stays whole: "
            f"{', '.join(result['barriers'])}. The layers that can still shrink have {free:.0%} of "
            "the MACs."
        )
    return "\n\n".join(lines) + "\n"


def _remarks(row: Mapping[str, Any]) -> str:
    """Return why a layer is not pruned, what it is tied with, and why it has no rank."""
    if row["protected"]:
        why = "is read by what nobody knows" if row["stopped"] else "reaches the output"
        return f"stays whole: {why}{_whole(row)}"
    if row["rate"] is None:
        return "stays whole: not among the official rates"
    parts = []
    if row["follows"] is not None:
        parts.append(f"follows {row['follows']}")
    elif row["tied_with"]:
        parts.append(f"tied with {', '.join(row['tied_with'])}")
    if row["no_rank"]:
        parts.append(f"no rank: {row['no_rank']}")
    return "; ".join(parts) + _whole(row)


def _whole(row: Mapping[str, Any]) -> str:
    return f"; read whole by {', '.join(row['read_whole_by'])}" if row["read_whole_by"] else ""
