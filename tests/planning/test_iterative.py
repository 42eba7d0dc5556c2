"""Pruning in steps: what goes at each, by which scores, and how it relates to pruning at once."""

import copy
import re
from itertools import chain, repeat
from pathlib import Path

import pytest
import torch

from tests.command_lines import files_in
from utils.options.prune_options import PruneConfig
from utils.planning import iterative
from utils.planning.finetune import Finetuning
from utils.pruning.plan import PruningPlan
from utils.rank.rank_files import read_manifest
from utils.runs.checkpoint import load_file
from utils.training.steps import TrainingStep

RATIO = ("--ratio", "0.3")
pytestmark = pytest.mark.usefixtures("quick")
ITERATIVE = (*RATIO, "--schedule", "iterative", "--steps")


@pytest.fixture
def prune(call, job):
    """A function that prunes in folder `name` with more words, and returns what it printed."""

    def run(name: str, *words: str):
        return call("main.py", *job.pruning, *words, "--job_dir", name).json

    return run


@pytest.fixture
def after_steps(monkeypatch) -> list:
    """The networks that each step's fine-tuning left, filled as the run goes."""
    networks, tune = [], Finetuning.step

    def step(self, model, *args):
        result = tune(self, model, *args)
        networks.append(copy.deepcopy(model))
        return result

    monkeypatch.setattr(Finetuning, "step", step)
    return networks


def plans_in(name: str) -> list[PruningPlan]:
    rows = load_file(Path(name) / "checkpoints/steps.pt")
    return [PruningPlan.from_list(row["plan"]) for row in rows]


def test_one_step_is_pruning_at_once_bit_for_bit(prune):
    once = prune("once", *RATIO)
    step = prune("step", *ITERATIVE, "1")
    assert files_in(Path("step"))["plan.json"] == files_in(Path("once"))["plan.json"]
    assert files_in(Path("step"))["log.jsonl"] == files_in(Path("once"))["log.jsonl"]
    expected = load_file("once/pruned.pt")["state_dict"]
    found = load_file("step/pruned.pt")["state_dict"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert step["accuracy"] == once["accuracy"] and step["layers"] == once["layers"]


@pytest.mark.parametrize(
    "words", [("--rerank", "--criterion", "l1"), ("--round_to", "2"), ("--group", "--distill")]
)
def test_the_steps_are_nested_and_end_at_the_rates(prune, words):
    kinds = (word for word in words if word != "--rerank")
    expected = prune("dry", *RATIO, *kinds, "--dry_run")["layers"]
    found = prune("job", *ITERATIVE, "3", *words)
    plans = plans_in("job")
    for before, after in zip(plans, plans[1:], strict=False):
        for early, late in zip(before.layers, after.layers, strict=True):
            assert set(late.kept) <= set(early.kept) and early.conv == late.conv
    assert [row["filters_removed"] for row in found["steps"]] == sorted(
        {sum(layer.removed for layer in plan.layers) for plan in plans}
    )
    assert {x["conv"]: len(x["kept"]) for x in expected} == plans[-1].num_kept()
    assert found["layers"] != expected if "--rerank" in words else found["layers"] == expected
    if "--round_to" not in words:
        for t, plan in enumerate(plans, start=1):
            gone = [-(-t * (x["filters"] - len(x["kept"])) // 3) for x in expected]
            one_by_one = "--group" not in words  # else the groups' counts are rounded, not theirs
            assert not one_by_one or [x.removed for x in plan.layers] == gone
    kept = {conv: len(indices) for conv, indices in load_file("job/pruned.pt")["kept"].items()}
    assert kept == {conv: count for conv, count in plans[-1].num_kept().items() if conv in kept}
    assert found["accuracy"]["finetuned_best"] == found["steps"][-1]["finetuned"]
    assert found["epochs_trained"] == 3
    told = Path("job/summary.md").read_text()
    assert "1 epoch of each step; best epoch 1" in told
    for row in found["steps"]:
        assert f"| {row['step']}    | {row['filters_removed']} " in told


def assert_second_step_follows(scores_of, dense_layers) -> None:
    """What the second step kept scores most, by scores_of(conv), of what the first had kept."""
    first, second = plans_in("job")
    for early, late in zip(first.layers, second.layers, strict=True):
        scores = scores_of(late.conv)
        scores[~early.mask()] = -torch.inf
        order = scores.sort(stable=True).indices
        assert late.kept == tuple(sorted(order[late.removed :].tolist())), late.conv
    assert [list(x.kept) for x in second.layers] != [x["kept"] for x in dense_layers]


def test_rerank_scores_the_network_that_the_step_before_left(prune, after_steps):
    words = ("--criterion", "bn_scale", "--mode", "mask", "--lr", "0.2")
    dense = prune("dry", *RATIO, *words, "--dry_run")["layers"]
    prune("job", *ITERATIVE, "2", *words, "--rerank")

    def scale_of(conv: str) -> torch.Tensor:
        norm = after_steps[0].get_submodule(conv.replace("conv", "bn"))
        return norm.weight.detach().abs()

    assert_second_step_follows(scale_of, dense)


@pytest.mark.parametrize(("criterion", "sign"), [("rank", 1), ("reverse_rank", -1)])
def test_rerank_ranks_as_rank_generation_does(call, prune, job, after_steps, criterion, sign):
    words = ("--mode", "mask", "--lr", "0.2", "--select_on", "last")  # nothing is held out
    words += ("--criterion", criterion)
    dense = prune("dry", *RATIO, *words, "--dry_run")["layers"]
    prune("job", *ITERATIVE, "2", *words, "--rerank", "--num_images", "20")
    torch.save(after_steps[0].state_dict(), "now.pt")
    now = ("--resume", "now.pt", "--num_images", "20", "--output", "ranks")
    assert call("rank_generation.py", *job.data, *now).code == 0
    layers = read_manifest(Path("ranks"))["layers"]
    scores = {x["conv"]: sign * torch.tensor(x["mean"]) for x in layers}
    assert_second_step_follows(scores.get, dense)


def test_a_run_that_stops_around_and_amid_its_second_step_ends_as_if_it_had_not(
    call, prune, job, monkeypatch
):
    words = (*ITERATIVE, "2", "--rerank", "--num_images", "20", "--epochs", "2")
    prune("whole", *words)

    def stop(*_, **__):
        raise ValueError("stopped")

    places = (  # before the second step's plan is kept, after it is, amid the last epoch
        (iterative, "write_tensors", 1),
        (Finetuning, "step", 1),
        (TrainingStep, "_update", 4 + 2),  # what was not kept is trained by the first four
    )
    for owner, name, before in places:
        calls = chain(repeat(getattr(owner, name), before), repeat(stop))
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *args, calls=calls: next(calls)(*args))
            outcome = call("main.py", *job.pruning, *words, "--job_dir", "job")
        assert outcome.code == 2 and outcome.err.endswith("stopped\n"), outcome.err
    prune("job", *words)
    found, expected = files_in(Path("job")), files_in(Path("whole"))
    for name in ("log.jsonl", "plan.json", "checkpoints/best.pt"):
        assert found[name] == expected[name], name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--rerank", r"--rerank with --schedule oneshot: expected iterative"),
        ("--steps 3", r"--steps is 3 with --schedule oneshot: expected iterative"),
        ("--schedule iterative --steps 0", r"--steps is 0: expected at least 1"),
        ("--schedule iterative --steps 20", r"--steps is 20: expected at most 19, the filters"),
        ("--schedule iterative --epochs 0", r"--epochs is 0: expected 1 or more of each step"),
        ("--schedule iterative --start_cov 2", r"--start_cov is 2 with --schedule iterative: exp"),
        ("--schedule iterative --rerank --num_images 0", r"--num_images is 0: expected at least 1"),
        ("--schedule iterative --rerank", r"--num_images is 500: expected at most the 54 of"),
        (
            "--schedule iterative --rerank --criterion random",
            r"--rerank with --criterion random: expected a criterion that looks at the network",
        ),
        ("--compress_rate [0.1]*7", r"--ratio and --compress_rate '\[0\.1\]\*7': expected one of"),
        ("--ratio 1", r"--ratio is '1': expected at least 0 and less than 1"),
        ("--ratio 0.1,0.2", r"compress rate: 2 rates for resnet_8, expected 7"),
        (
            "--remove_zeros",
            r"--\w+ is .* with --remove_zeros, which chooses no filters: expected one of",
        ),
        ("--layout hrankplus", r"--ratio with --layout hrankplus: expected --compress_rate in tha"),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_written(call, job, words, expected):
    before = files_in(Path())
    outcome = call("main.py", *job.pruning, *RATIO, *words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(f"main.py prune: error: {expected}", outcome.err.splitlines()[-1]), outcome.err
    assert files_in(Path()) == before


def test_a_ratio_is_short_for_its_compress_rate(prune):
    """One run has both names: what the one began the other finds."""
    expected = prune("dry", "--compress_rate", "[0.3]*7", "--dry_run")
    assert prune("dry", *RATIO, "--dry_run") == expected
    each = prune("dry", "--ratio", "0,0.25,0.5,0,0,0,0.99", "--dry_run")
    assert each["compress_rate"] == "[0.0]+[0.25]+[0.5]+[0.0]*3+[0.99]"
    assert [x["filters"] - len(x["kept"]) for x in each["layers"]] == [0, 4, 8, 0, 0, 0, 63]
    one, other = (
        PruneConfig(arch="resnet_8", **rates).identity(None)
        for rates in ({"ratio": (0.3,)}, {"compress_rate": "[0.3]*7"})
    )
    assert one == other and one["compress_rate"] == "[0.3]*7"


@pytest.mark.parametrize(
    "words",
    [
        (*ITERATIVE, "2"),
        (*RATIO, "--schedule", "layerwise", "--epochs", "1"),
        ("--granularity", "weight", "--sparsity", "0.5", "--schedule", "iterative", "--steps", "2"),
    ],
)
def test_between_pruned_and_fine_tuned_stands_the_recalibrated_network(call, job, words):
    words = [*(job.network if "weight" in words else job.pruning), *words]
    with_row = call("main.py", "prune", *words, "--job_dir", "with").json
    without = call("main.py", "prune", *words, "--job_dir", "not", "--recalibrate", "0").json
    states = list(with_row["accuracy"])
    assert states[:3] == ["dense", "pruned", "recalibrated"] and states[3].startswith("finetuned")
    assert "recalibrated" not in without["accuracy"]
    for row in with_row.get("steps", ()):
        assert list(row).index("pruned") < list(row).index("recalibrated")
    assert "re-estimated" in Path("with", "summary.md").read_text()
