"""Laws of `--align`: what computes the same, what is given back, and which way the clock takes."""

import json
from pathlib import Path

import pytest
import torch

import utils.planning.time_target
from utils.graph.aligned import is_aligned
from utils.graph.groups import channel_groups
from utils.metrics.latency import Latency
from utils.options.networks import draw_network, load_network
from utils.planning.plan import make_plan
from utils.pruning.giving_back import GIVEN_BACK, given_back
from utils.removal.held_zeros import held_zeros
from utils.removal.masks import ChannelMasks
from utils.removal.record import removals_of
from utils.removal.surgery import remove_filters

pytestmark = pytest.mark.usefixtures("quick")
NETWORKS = {"resnet_8": "[0.4]*7", "resnet_20": "[0.3]*19", "densenet_40": "[0.5]*39"}


@pytest.fixture(scope="module", params=NETWORKS)
def planned(request):
    network = draw_network(request.param, 0)
    how = {"criterion": "l1", "rank_folder": Path("absent"), "seed": 0}
    return make_plan(network, compress_rate=NETWORKS[request.param], **how)


def given(planned, plan, block):
    return given_back(plan, planned.dense.model, planned.graph, planned.scores, block)


@pytest.mark.parametrize("block", [4, 16])
def test_what_is_given_back_fills_blocks_and_costs_no_copies(planned, block):
    plan = given(planned, planned.plan, block)
    for before, after in zip(planned.plan.layers, plan.layers, strict=True):
        assert set(before.kept) <= set(after.kept)
        assert (GIVEN_BACK in after.reason) == (before.kept != after.kept)
    model, graph = planned.dense.model, planned.graph
    slim = remove_filters(model, graph, plan.masks(), align="zeros")
    assert not any(is_aligned(module) for module in slim.modules())
    assert held_zeros(model, graph, plan.masks(), slim) is None
    kept = {layer.conv: layer.mask() for layer in plan.layers}
    for group in channel_groups(graph, across_sums=True):
        for layer in set(group.layers) & set(kept):
            stays = sum(any(kept[x][i] for x, i in of if x == layer) for of in group.channels)
            whole = stays == sum(any(x == layer for x, _ in of) for of in group.channels)
            assert whole or stays % (block if stays > block else 4) == 0
    assert given(planned, plan, block) == plan


def test_of_two_channels_that_are_gone_the_better_is_given_back(planned):
    plan = given(planned, planned.plan, 4)
    tied = {x for group in channel_groups(planned.graph, across_sums=True) for x in group.layers
            if len(group.layers) > 1}  # fmt: skip
    for before, after in zip(planned.plan.layers, plan.layers, strict=True):
        scores, back = planned.scores[before.conv], set(after.kept) - set(before.kept)
        gone = set(range(after.filters)) - set(after.kept)
        if before.conv not in tied and back and gone:
            assert min(scores[list(back)]) >= max(scores[list(gone)])


def test_zeros_stay_zero_in_training(planned):
    model, graph, masks = planned.dense.model, planned.graph, planned.plan.masks()
    slim = remove_filters(model, graph, masks, align="zeros")
    held = held_zeros(model, graph, masks, slim)
    for parameter in slim.parameters():
        parameter.data += 0.001
    masked = remove_filters(model, graph, {})
    for parameter in masked.parameters():
        parameter.data += 0.001
    ChannelMasks(masked, graph, masks).apply()
    if held is not None:
        held.apply()
    images = torch.randn(2, *planned.dense.example.shape[1:])
    torch.testing.assert_close(slim.eval()(images), masked.eval()(images))


@pytest.mark.parametrize("align", ["zeros", "blocks"])
def test_a_file_opens_as_what_was_written_and_may_be_pruned_again(call, job, align):
    words = ["prune", *job.pruning, "--ratio", "0.4", "--align", align]
    found = call("main.py", *words, "--epochs", "1").json
    network = load_network(Path(found["pruned_file"]), None)
    assert [removal.align for removal in removals_of(network.model)] == ["zeros"]
    assert not any(is_aligned(module) for module in network.model.modules())
    right = found["accuracy"]["finetuned_best"]["test"]["correct"]
    again = ["--resume", found["pruned_file"], "--criterion", "l1", "--ratio", "0.2"]
    twice = call("main.py", "prune", *job.data, *again, "--epochs", "0").json
    assert twice["accuracy"]["dense"]["test"]["correct"] == right
    again = load_network(Path(twice["pruned_file"]), None)
    assert [removal.align for removal in removals_of(again.model)] == ["zeros", "compact"]


def clock(ms_of, asked):
    """A stand-in for the clock: each network takes what ms_of says of its name."""

    def compare(models, example, *_, **__):
        asked.append(list(models))
        return {n: Latency(ms_of[n], 0.0, 0.0, len(example), 1, "cpu") for n in models}

    return compare


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"blocks": 9.1, "zeros": 9.0, "compact": 9.5}, "blocks"),
        ({"blocks": 9.5, "zeros": 9.1, "compact": 9.0}, "compact"),
        ({"blocks": 9.9, "zeros": 9.0, "compact": 9.9}, "zeros"),
    ],
)
def test_the_clock_takes_the_fastest_and_of_equals_that_which_keeps_most(
    call, job, monkeypatch, times, chosen
):
    asked = []
    compare = clock({"dense": 10.0, **times}, asked)
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", compare)
    words = ["prune", *job.pruning, "--ratio", "0.4", "--epochs", "0", "--align", "time"]
    found = call("main.py", *words).json
    assert found["align"]["align"] == chosen and set(times) <= set(asked[-1])
    given = [layer for layer in found["layers"] if GIVEN_BACK in layer["reason"]]
    assert bool(given) == (chosen == "blocks")
    plain = call("main.py", *words[:-1], chosen, "--dry_run").json
    assert plain["layers"] == found["layers"] and plain["physical"] == found["physical"]
    kept = json.loads(Path(found["job_dir"], "align.json").read_text())
    assert kept == found["align"]


def test_a_run_that_is_taken_up_keeps_its_way(call, job, monkeypatch):
    times = {"dense": 10.0, "blocks": 9.9, "zeros": 9.0, "compact": 9.9}
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", clock(times, []))
    words = ["prune", *job.pruning, "--ratio", "0.4", "--epochs", "0", "--align", "time"]
    found = call("main.py", *words).json
    Path(found["job_dir"], "summary.json").unlink()
    monkeypatch.setattr(utils.planning.time_target, "compare_latency", None)  # would fail
    again = call("main.py", *words).json
    assert again["layers"] == found["layers"] and again["align"] == found["align"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--align", "zeros", "--mode", "mask"], "--align zeros with --mode mask: expected"),
        (["--align", "blocks", "--start_cov", "1"], "--align blocks with --start_cov 1: expected"),
        (["--align", "time", "--schedule", "iterative"], "--align time with --schedule iterative"),
    ],
)
def test_ways_that_do_not_go_together_are_named(call, job, wrong, message):
    outcome = call("main.py", "prune", *job.pruning, "--ratio", "0.4", "--dry_run", *wrong)
    assert outcome.code == 2 and message in outcome.err
