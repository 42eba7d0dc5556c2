"""Whether zeros make a network faster, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from utils.paper.markdown import table
from utils.reports.side_by_side import setting


def sparse_text(name: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the reports of a network, one for each setting, as Markdown."""
    return "\n\n".join(
        f"## Zeros of {name} by torch.sparse, {setting(report)}\n\n{_one_text(report)}"
        for report in reports
    )


def _one_text(report: Mapping[str, Any]) -> str:
    layers, times, logits = report["layers"], report["networks_ms"], report["logits"]
    if not layers:
        return "No conv or linear that torch.sparse can compute holds a zero."
    faster = sum(row["faster"] for row in layers)
    rows = [
        (row["layer"], f"{row['sparsity']:.1%}", *_cells(row["dense_ms"], row["sparse_ms"]))
        for row in layers
    ]
    whole = {"sparse": f"all {len(layers)} layers", "sparse_where_faster": f"the {faster} faster"}
    rows += [
        (f"network, {title}", "", *_cells(times["dense"], times[state]))
        for state, title in whole.items()
        if state in times
    ]
    verdict = "torch.sparse pays in no layer here: the zeros save bytes, and no time."
    if faster:
        speed = times["dense"] / times["sparse_where_faster"]
        verdict = (
            f"torch.sparse pays in {faster} of {len(layers)} layers: with those sparse the network "
            f"is {speed:.2f} times as fast as dense."
        )
    header = ("layer", "sparsity", "dense", "CSR", "times as fast")
    legend = (
        "Times are 10th percentiles. Logits of the same images differ by at most "
        f"{logits['largest']:.1e} at a scale of {logits['scale']:.1f}."
    )
    return f"{table(header, rows)}\n\n{verdict} {legend}"


def _cells(dense_ms: float, sparse_ms: float) -> tuple[str, str, str]:
    return f"{dense_ms:.2f} ms", f"{sparse_ms:.2f} ms", f"{dense_ms / sparse_ms:.2f}"
