"""The points behind the figures of `compare`: accuracy and latency against MACs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.paper.measured_runs import removes_nothing
from utils.paper.published_points import published_points

_STATES = {"dense": "dense", "pruned": "before fine-tuning", "finetuned_best": "fine-tuned"}


def accuracy_points(network: str, summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the points of a network: what was published, then each run of `prune` of it.

    `macs_percent` are the MACs left, of the dense network's: of a run by HRank's rule, beside them
    the physical ones; else by the publication's own count. `difference` is in points.
    """
    published = [{"state": "published", **asdict(point)} for point in published_points(network)]
    runs = [_run_points(summary) for summary in summaries if summary["arch"] == network]
    return published + [point for points in runs for point in points]


def _run_points(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the states of a run: dense, pruned before fine-tuning, fine-tuned."""
    left = {rule: _percent_left(summary[rule]) for rule in ("paper_rule", "physical")}
    states = {name: summary["accuracy"][name]["test"] for name in _STATES}
    method = "nothing removed" if removes_nothing(summary) else summary["criterion"]
    return [
        {
            "state": label,
            "method": method + ", from scratch" * (summary.get("init") == "scratch"),
            "row": Path(summary["job_dir"]).name,
            "macs_percent": 100.0 if name == "dense" else left["paper_rule"],
            "physical_macs_percent": 100.0 if name == "dense" else left["physical"],
            "top1_percent": states[name]["top1_percent"],
            "low_percent": states[name]["interval_percent"][0],
            "high_percent": states[name]["interval_percent"][1],
            "images": states[name]["images"],
            "difference": states[name]["top1_percent"] - states["dense"]["top1_percent"],
            "source": summary["job_dir"],
        }
        for name, label in _STATES.items()
    ]


def _percent_left(costs: Mapping[str, Mapping[str, int]]) -> float:
    return 100 * costs["pruned"]["macs"] / costs["dense"]["macs"]


def latency_points(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return how long a run's pruned network takes, in percent of its dense one's median time.

    One point for each batch size, with the 10th and 90th percentile of the pruned network's times.
    """
    device, macs = summary["environment"]["device"], _percent_left(summary["physical"])
    return [
        _latency_point(Path(summary["job_dir"]).name, device, macs, **timed)
        for timed in summary["latency"].values()
    ]


def evaluated_points(name: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the same of two networks that `evaluate --against` timed; more MACs count as dense."""
    pruned, dense = sorted((found, found["against"]), key=lambda network: network["macs"])
    device, macs = found["environment"]["device"], 100 * pruned["macs"] / dense["macs"]
    return [
        _latency_point(name, device, macs, dense=before, pruned=after)
        for before, after in zip(dense["latency"], pruned["latency"], strict=True)
    ]


def _latency_point(
    name: str, device: str, macs: float, *, dense: Mapping[str, Any], pruned: Mapping[str, Any]
) -> dict[str, Any]:
    percent = {
        key: 100 * pruned[f"{key}_ms"] / dense["median_ms"] for key in ("median", "p10", "p90")
    }
    return {
        "row": name,
        "batch_size": pruned["batch_size"],
        "threads": pruned["threads"],
        "device": device,
        "physical_macs_percent": macs,
        "latency_percent": percent["median"],
        "p10_percent": percent["p10"],
        "p90_percent": percent["p90"],
        "dense_ms": dense["median_ms"],
        "pruned_ms": pruned["median_ms"],
    }
