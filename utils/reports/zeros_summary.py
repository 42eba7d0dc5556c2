"""The summary of `main.py prune --remove_zeros` as Markdown."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from utils.paper.markdown import megabytes, millions, table

_SHOWN = 8  # channels of a layer that the text lists


def zeros_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary of `remove_zeros` as Markdown."""
    check = summary["outputs_equal"]
    parts = [
        f"# {summary['arch']}: filters that are zero, removed",
        f"network: `{summary['checkpoint']}`",
        "## Layers",
        table(
            ("layer", "filters", "MACs"),
            [
                (x["conv"], f"{x['filters']} -> {len(x['kept'])}", _arrow(x["macs"]))
                for x in summary["layers"]
            ],
        ),
        "## Constant channels that stay",
        _stays(summary["stays"]),
        "## Cost of one image",
        table(
            ("physical", "before", "after", "less by"),
            [_cost_row(summary["physical"], what) for what in ("macs", "parameters")],
        ),
        f"Outputs on {check['images']} random images differ by at most {check['largest']:.1e} (in "
        f"float64, at a scale of {check['scale']:.1f}).",
    ]
    if summary["added_biases"]:
        parts.append(f"Biases added, to hold constants: {', '.join(summary['added_biases'])}.")
    if "pruned_file" in summary:
        size = megabytes(summary["pruned_file_bytes"])
        parts.append(f"Pruned network: `{summary['pruned_file']}`, {size}.")
    return "\n\n".join(parts) + "\n"


def _stays(stays: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with one row for each layer and reason."""
    if not stays:
        return "None."

    def key(staying: Mapping[str, Any]) -> tuple[str, str]:
        return staying["module"], staying["reason"]

    order = {module: i for i, module in enumerate(dict.fromkeys(s["module"] for s in stays))}
    rows = []
    for (module, reason), group in groupby(
        sorted(stays, key=lambda s: (order[s["module"]], s["reason"])), key
    ):
        listed = [f"{s['channel']} ({s['value']:.3g})" for s in group]
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        rows.append((module, len(listed), ", ".join(listed[:_SHOWN]) + more, reason))
    return table(("layer", "channels", "channel (value)", "why"), rows)


def _arrow(values: Mapping[str, int]) -> str:
    return f"{millions(values['dense'])} -> {millions(values['pruned'])}"


def _cost_row(physical: Mapping[str, Any], what: str) -> tuple[str, ...]:
    before, after = (physical[state][what] for state in ("dense", "pruned"))
    less = f"{100 * (1 - after / before):.1f}%"
    return ("MACs" if what == "macs" else what, f"{before:,}", f"{after:,}", less)
