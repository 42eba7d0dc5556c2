"""`main.py compare`: the published tables beside what is counted here, and beside finished runs."""

from pathlib import Path
from typing import Any

from utils.metrics.accuracy import Accuracy
from utils.metrics.cost import counts, physical_cost
from utils.options.compare_options import CompareConfig
from utils.options.networks import draw_network, outline
from utils.paper.compare import NEEDS_RANKS, compare_row, row_without_rates
from utils.paper.measured_runs import read_summary
from utils.paper.rates import CompressRates, read_rates
from utils.paper.tables import PaperRow, published_rows
from utils.planning.counting import beside_paper, published_counts, slim_counts
from utils.planning.plan import planner, score_layers
from utils.removal.surgery import remove_filters
from utils.reports.compare_figures import write_comparison
from utils.runs.job_folder import JobFolder


def compare_command(config: CompareConfig) -> dict[str, Any]:
    """Return the published rows and the runs in the job folders, each beside its counterpart.

    Raises:
        ValueError: rank files that do not fit, or a job folder without a finished run.
    """
    jobs = [_job(JobFolder(path)) for path in config.job_dir]
    rows = [row for row in published_rows() if config.arch in (None, row.arch)]
    if config.figures is not None:
        summaries = [read_summary(JobFolder(path)) for path in config.job_dir]
        archs = [summary["arch"] for summary in summaries] or [row.arch for row in rows]
        write_comparison(config, dict.fromkeys(archs), summaries)
    return {"rows": [_row(row, config.rank_conv / row.arch) for row in rows], "jobs": jobs}


def _row(row: PaperRow, rank_folder: Path) -> dict[str, Any]:
    """Return a published row beside our counts; `physical` is None, or says that it needs ranks."""
    if row.compress_rate is None:
        return {**row_without_rates(row), "physical": None}
    rates = read_rates(row.compress_rate, outline(row.arch), row.layout)
    if rates.layout == "hrankplus":
        found = slim_counts(rates)
    else:
        found = {"published": published_counts(rates), "physical": _physical(rates, rank_folder)}
    published, physical = found["published"], found["physical"]
    return {
        **compare_row(row, published["macs"], published["parameters"]),
        "physical": physical,
    }


def _physical(rates: CompressRates, rank_folder: Path) -> dict[str, int] | str:
    """Return the counts of the network that HRank's rates leave.

    They depend on the filters that are chosen: only where the same are kept on both sides of a sum
    do its channels go. The network is counted, not run: nothing of it is proven.
    """
    if not any(rates.values):
        return counts(physical_cost(rates.network.model, rates.network.image))
    if not rank_folder.is_dir():
        return NEEDS_RANKS
    dense = draw_network(rates.network.spec, seed=0)
    # Only the kept sets count, not the weights.
    scores = score_layers(dense, criterion="rank", rank_folder=rank_folder, seed=0, force=True)
    plan = planner(dense, scores)(read_rates(rates.text(), dense, rates.layout))
    slim = remove_filters(dense.model, dense.graph, plan.masks(), check=False)
    return counts(physical_cost(slim, dense.image))


def _job(folder: JobFolder) -> dict[str, Any]:
    """Return what a finished run measured, and the published row of its rates, None without one.

    Raises:
        ValueError: the folder holds no summary of `prune`.
    """
    summary = read_summary(folder)
    try:
        network, layout = outline(summary["arch"]), summary["options"].get("layout", "hrank")
        rates = read_rates(summary["compress_rate"], network, layout)
        test = summary["accuracy"]["finetuned_best"]["test"]
        accuracy = Accuracy(test["correct"], test["images"], test["loss"])
        return {
            "job_dir": str(folder.path),
            "arch": network.spec,
            "criterion": summary["criterion"],
            "compress_rate": summary["compress_rate"],
            "physical": summary["physical"]["pruned"],
            "accuracy": accuracy.as_dict(),
            "paper": beside_paper(rates, summary["paper_rule"]["pruned"], accuracy),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder.summary_json} lacks {error}: expected the summary of a run of `prune`"
        ) from None
