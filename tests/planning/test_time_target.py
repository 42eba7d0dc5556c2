"""`main.py prune --target_latency`: what a clock says is landed on, found once and kept."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import utils.planning.time_target
import utils.pruning.knapsack
from tests.metrics.test_latency_table import Clock
from utils.metrics.latency import Latency
from utils.metrics.runtimes import Eager
from utils.planning.budget import budget_line
from utils.planning.time_target import corrected
from utils.runs.job_folder import JobFolder

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(autouse=True)
def layers_on_a_clock(monkeypatch):
    """Layers take what they compute, whatever else the machine does."""
    monkeypatch.setattr(
        Eager, "layer_ms", lambda _, shape, batch, device: Clock(8).ms(shape, batch)
    )


def clock(share_of, calls, spread=1):
    """A stand-in for the clock: the pruned network takes share_of(its parameters) of 10 ms.

    Slow passes take `spread` times as long as quick ones.
    """

    def compare(models, example, *_, **__):
        sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
        times = {"dense": 10.0}
        for name in sizes.keys() - {"dense"}:
            share = sizes[name] / sizes["dense"]
            calls.extend([share] * (name == "pruned"))
            times[name] = 10 * share_of(share)
        how = (len(example), 1, "cpu")
        return {n: Latency(ms, ms, spread * ms, *how) for n, ms in times.items()}

    return compare


@pytest.mark.parametrize("target", [["--target_latency", "0.6"], ["--target_ms", "6"]])
def test_time_is_searched_on_the_clock_once_and_kept(call, job, monkeypatch, target):
    words = ["prune", *job.pruning, *target, "--epochs", "0", "--latency_batch_size", "2"]
    words += ["--drop_branches", "off"]
    calls = []
    by_size = clock(lambda x: 0.2 + 0.8 * x, calls)
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", by_size)
    budget = (found := call("main.py", *words).json)["budget"]
    wanted = 6.0 if "--target_ms" in target else 0.6
    assert budget["left"] == pytest.approx(wanted, rel=0.1)  # blocks are large on a small network
    assert budget["within_tolerance"] == (abs(budget["left"] / wanted - 1) <= 0.05)
    assert budget["left"] / wanted == pytest.approx((0.2 + 0.8 * calls[-1]) / 0.6)
    assert budget["latency"]["pruned"]["batch_size"] == 2
    assert len(calls) == len(budget["rounds"]) <= 9
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", None)  # would differ
    again = call("main.py", *words).json
    assert (again["budget"], again["job_dir"]) == (budget, found["job_dir"])
    assert again["layers"] == found["layers"] and again["accuracy"] == found["accuracy"]


def test_a_branch_goes_whole_where_that_is_asked_for_and_stays_in_the_folder(
    call, job, monkeypatch
):
    steep = clock(lambda x: max(0.05, 2 * x - 1), [])
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", steep)
    monkeypatch.setattr(utils.pruning.knapsack, "branches_lost", lambda model, *_: [0.0])
    monkeypatch.setattr(utils.pruning.knapsack, "_MACS_COUNT", 0.0)
    words = ["prune", *job.pruning, "--target_latency", "0.5", "--epochs", "0"]
    found = call("main.py", *words).json
    branch = ["layer1.0.conv1", "layer1.0.conv2"]
    assert found["budget"]["dropped"] == [branch]
    assert "residual branches that end in layer1.0.conv2." in budget_line(found["budget"])
    layers = {layer["conv"]: layer for layer in found["layers"]}
    assert all(layers[x]["kept"] == [] and layers[x]["macs"]["pruned"] == 0 for x in branch)
    path = JobFolder(Path(found["job_dir"])).budget
    Path(found["job_dir"], "summary.json").unlink()
    assert call("main.py", *words).json["layers"] == found["layers"]
    Path(found["job_dir"], "summary.json").unlink()
    for dropped, message in (
        ([[]], r"'dropped\[0\]' is a list of 0, expected one layer or more"),
        ([["no_such"]], "'dropped' names 'no_such': expected layers of the network"),
    ):
        path.write_text(json.dumps(found["budget"] | {"dropped": dropped}))
        outcome = call("main.py", *words)
        assert outcome.code == 2 and re.search(message, outcome.err)
    for more in (["--drop_branches", "off"], ["--allocation", "uniform"]):
        plain = call("main.py", *words, *more).json
        assert plain["budget"]["dropped"] == [] and all(x["kept"] for x in plain["layers"])


def test_a_dry_run_without_its_images_goes_by_scores_and_says_so(call, job, monkeypatch):
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", clock(lambda x: x, []))
    words = ["prune", *job.network, "--criterion", "l1", "--target_latency", "0.6", "--dry_run"]
    words[words.index("--dataset") + 1] = "cifar10"
    outcome = call("main.py", *words, "--data_dir", "nowhere")
    assert outcome.code == 0 and "cifar10 is not in 'nowhere'; without images" in outcome.err


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_layers_that_a_sum_ties_keep_as_much(call, job, monkeypatch, allocation):
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", clock(lambda x: x, []))
    words = ["--target_latency", "0.5", "--allocation", allocation, "--drop_branches", "off"]
    words += ["--dry_run"]
    layers = {x["conv"]: x for x in call("main.py", "prune", *job.pruning, *words).json["layers"]}
    stream = [layers[conv]["kept"] for conv in ("conv1", "layer1.0.conv2")]
    assert stream[0] == stream[1]


def test_a_clock_that_jumps_gets_the_nearest_and_a_word_about_it(call, job, monkeypatch):
    jumping = clock(lambda share: 0.9 if share > 0.5 else 0.4, [])
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", jumping)
    words = ["prune", *job.pruning, "--target_latency", "0.6", "--dry_run"]
    words.remove("--json")
    outcome = call("main.py", *words)
    assert outcome.code == 0, outcome.err
    assert "latency; left: 40.00%, the nearest that was found, not within 5% of" in outcome.out


def test_a_time_that_no_network_takes_is_refused(call, job, monkeypatch):
    stuck = clock(lambda _: 0.95, [])
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", stuck)
    outcome = call("main.py", "prune", *job.pruning, "--target_latency", "0.6", "--dry_run")
    assert outcome.code == 2 and "at least 0.9500 of the latency stay" in outcome.err


def test_a_busy_machine_refuses_nothing_and_says_so(call, job, monkeypatch):
    stuck = clock(lambda _: 0.95, [], spread=2)
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", stuck)
    words = ["prune", *job.pruning, "--target_latency", "0.6", "--dry_run"]
    budget = call("main.py", *words).json["budget"]
    assert budget["left"] == 0.95 and not budget["within_tolerance"]
    assert "on a busy machine (slow passes took 2.0 times the quick ones)" in budget_line(budget)


@pytest.mark.parametrize(
    ("points", "target"),
    [([], 0.5), ([(0.6, 0.5)], 0.5), ([(0.4, 0.5)], 0.5), ([(0.6, 0.5), (0.45, 0.4)], 0.5)],
)
def test_a_correction_lies_between_the_points_around_the_target(points, target):
    asked = corrected([(1.0, 1.0), *points], target)
    above = [b for a, b in [(1.0, 1.0), *points] if a >= target]
    below = [b for a, b in points if a < target]
    assert 0 < asked < min(above) if not below else max(below) <= asked <= min(above)


def test_automatic_rounding_is_by_the_block_that_was_found(call, job):
    words = ["prune", *job.pruning, "--ratio", "0.4", "--dry_run"]
    found = call("main.py", *words, "--round_to", "auto").json
    (path,) = Path("result/latency").glob("eager_cpu_1_*.json")
    block = json.loads(path.read_text())["block"]
    assert found["layers"] == call("main.py", *words, "--round_to", f"{block}").json["layers"]


def test_one_wrong_measurement_does_not_end_the_search(call, job, monkeypatch):
    calls = []
    right = clock(lambda x: 0.2 + 0.8 * x, calls)

    def wrong_at_first(models, *args, **how):
        times = right(models, *args, **how)
        if "pruned" in models and len(calls) == 1:  # the least, as if it took longer than asked for
            times["pruned"] = replace(times["pruned"], median_ms=7.0)
        return times

    monkeypatch.setattr(utils.planning.time_target, "compare_latency", wrong_at_first)
    words = ["prune", *job.pruning, "--target_latency", "0.6", "--dry_run"]
    words += ["--drop_branches", "off"]
    budget = call("main.py", *words).json["budget"]
    assert budget["rounds"][0]["measured"] == 0.7
    assert budget["left"] == pytest.approx(0.6, rel=0.1)
