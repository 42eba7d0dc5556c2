"""What the commands print and write is true: of the network, of the rank files, of one another."""

import json

import numpy as np
import pytest

from tests.command_lines import files_in, json_of

MEASURED = {"correct", "images", "top1_percent", "macs", "parameters", "size_bytes", "latency_ms"}


def test_evaluating_a_baseline_gives_what_training_said(begin, job, tmp_path):
    found = json_of(begin(["main.py", "evaluate", *job.network], tmp_path))
    assert found.keys() >= MEASURED
    assert found["form"] == "dense"
    best = job.trained["best"]["test"]
    assert {name: found[name] for name in best} == best
    for name in ("macs", "parameters"):
        assert found[name] == job.trained[name]
    assert found["size_bytes"] == job.checkpoint.stat().st_size
    assert found["images"] == 20


def test_ranking_prints_what_it_writes_and_writes_it_again_the_same(call, job, tmp_path):
    written = [np.load(job.ranks / f"rank_conv{number}.npy") for number in range(1, 8)]
    assert [len(ranks) for ranks in written] == [16, 16, 16, 32, 32, 64, 64]
    assert [row["mean_rank"] for row in job.ranked["layers"]] == pytest.approx(
        [float(ranks.mean()) for ranks in written]
    )
    assert (job.ranked["files"], job.ranked["images"]) == (7, 20)
    assert job.ranked["maps"] == 20 * sum(len(ranks) for ranks in written)
    words = ("--num_images", "20", "--batch_size", "7", "--output", "ranks")
    call("rank_generation.py", *job.network, *words)
    again, once = files_in(tmp_path / "ranks"), files_in(job.ranks)
    assert set(again) == set(once)
    assert all(again[name] == once[name] for name in once if name.endswith(".npy"))


def test_the_official_number_of_batches_names_the_folder(call, job, tmp_path):
    found = call("rank_generation.py", *job.network, "--limit", "2", "--batch_size", "5").json
    assert (found["folder"], found["images"]) == ("rank_conv/resnet_8_limit2", 10)
    assert len(files_in(tmp_path / found["folder"])) == 8


def test_a_dry_run_shows_the_plan_and_writes_nothing(call, job, tmp_path):
    rates = "[0.1]+[0.5]*2+[0.]+[0.25]*3"
    words = (*job.pruning, "--compress_rate", rates, "--dry_run")
    found = call("main.py", "prune", *words).json
    assert list(tmp_path.iterdir()) == []
    for rule in ("paper_rule", "physical"):
        dense, pruned = found[rule]["dense"], found[rule]["pruned"]
        assert all(0 < pruned[name] < dense[name] for name in ("macs", "parameters"))
    assert [layer["rate"] for layer in found["layers"]] == [0.1, 0.5, 0.5, 0, 0.25, 0.25, 0.25]
    for number, layer in enumerate(found["layers"], start=1):
        order = np.argsort(np.load(job.ranks / f"rank_conv{number}.npy"), kind="stable")
        assert layer["conv"] == job.ranked["layers"][number - 1]["conv"]
        assert layer["filters"] == len(order)
        assert layer["kept"] == sorted(order[int(layer["rate"] * len(order)) :].tolist())


def test_official_spellings_mean_the_same(call, job):
    rates = ("--compress_rate", "[0.3]*7", "--dry_run")
    official = [*job.data, "--pretrain_dir", str(job.checkpoint), "--gpu", "0"]
    official += ["--rank_conv_prefix", str(job.ranks), "--learning_rate", "0.01"]
    official += ["--lr_decay_step", "50,100", "--lr_type", "step", "--batch_size", "16"]
    expected = call("main.py", "prune", *job.pruning, *rates).json
    assert call("main.py", *official, *rates).json == expected


@pytest.mark.parametrize("mode", ["remove", "mask"])
def test_rate_zero_is_the_identity(call, job, mode):
    words = ("--compress_rate", "[0.]*7", "--mode", mode, "--epochs", "0", "--job_dir", "job")
    found = call("main.py", "prune", *job.pruning, *words).json
    assert found["accuracy"]["pruned"] == found["accuracy"]["dense"]
    assert found["accuracy"]["dense"]["test"] == job.trained["best"]["test"]
    assert found["removed_equals_masked"]["largest"] == 0
    for rule in ("paper_rule", "physical"):
        assert found[rule]["pruned"] == found[rule]["dense"]
    again = call("main.py", "evaluate", *job.data, "--resume", found["pruned_file"]).json
    assert [again[name] for name in ("correct", "loss", "macs", "parameters")] == [
        *(job.trained["best"]["test"][name] for name in ("correct", "loss")),
        *(job.trained[name] for name in ("macs", "parameters")),
    ]


@pytest.mark.parametrize("mode", ["remove", "mask"])
def test_evaluating_a_pruned_file_gives_what_its_summary_says(call, job, tmp_path, mode):
    words = ("--compress_rate", "[0.5]*7", "--mode", mode, "--job_dir", "job")
    found = call("main.py", "prune", *job.pruning, *words).json
    assert json.loads((tmp_path / "job" / "summary.json").read_text()) == found
    again = call("main.py", "evaluate", *job.data, "--resume", found["pruned_file"]).json
    best = found["accuracy"]["finetuned_best"]["test"]
    assert {name: again[name] for name in best} == best
    assert (again["form"], again["size_bytes"]) == (mode, found["pruned_file_bytes"])
    # a masked network still has its dense shapes: it saves nothing until it is removed
    state = {"remove": "pruned", "mask": "dense"}[mode]
    assert {name: again[name] for name in ("macs", "parameters")} == found["physical"][state]


def test_people_read_tables(call, job):
    words = [word for word in job.pruning if word != "--json"]
    dry = call("main.py", *words, "--compress_rate", "[0.5]*7", "--dry_run")
    header, first, *rest = dry.out.splitlines()
    assert (dry.code, header.split()[:3], first.split()[:2]) == (
        *(0, ["conv", "rate", "filters"], ["conv1", "0.5"]),
    )
    assert "MACs" in dry.out and "by the paper's rule" in dry.out
    found = call("main.py", "evaluate", *(word for word in job.network if word != "--json"))
    assert f"{job.trained['best']['test']['correct']} of 20 right" in found.out


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        (["main.py"], "train prune evaluate demo"),
        (["main.py", "train"], "--epochs --lr --job_dir"),
        (["main.py", "prune"], "--compress_rate --criterion --mode --schedule --rank_conv_prefix"),
        (["main.py", "evaluate"], "--resume --latency_batch_size"),
        (["main.py", "demo"], "--baseline_epochs"),
        (["rank_generation.py"], "--num_images --limit --augment --output"),
    ],
)
def test_help_lists_the_options(call, words, mentions):
    outcome = call(*words, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"usage: {' '.join(words)}")
    for mention in mentions.split():
        assert mention in outcome.out
