"""`--granularity weight` of prune, scan and evaluate: exact zeros, whole or resumed, and sizes."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import main
from models.registry import build_model
from tests.command_lines import files_in
from utils.metrics.latency import FASTER
from utils.metrics.sparse_timing import sparse_report
from utils.options.networks import load_network
from utils.pruning.magnitude import cubic_sparsity, global_masks, magnitude_mask, prunable_weights
from utils.reports.evaluate_table import evaluate_text
from utils.reports.sparse_table import sparse_text
from utils.reports.weight_summary import weights_markdown
from utils.runs.checkpoint import load_file
from utils.runs.log import read_log

SAME = ("log.jsonl", "config.json", "pruned.pt", "checkpoints/best.pt")
SCHEDULE = ("--sparsity", "conv1=0.3,layer1=0.5,0.8", "--schedule", "iterative", "--steps", "2")


@pytest.fixture(scope="module")
def words(job) -> list[str]:
    training = ("--epochs", "1", "--train_batch_size", "16")
    return ["prune", *job.network, *training, "--granularity", "weight", "--job_dir", "job"]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory) -> Path:
    """The folder of a run that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        assert main.main([*words, *SCHEDULE]) == 0
    return folder / "job"


def summary_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def zeros_in(path: Path) -> dict[str, int]:
    weights = prunable_weights(load_network(path).model)
    return {layer: w.numel() - int(w.count_nonzero()) for layer, w in weights.items()}


def dense_weights(job) -> dict[str, Tensor]:
    return prunable_weights(load_network(job.checkpoint, "resnet_8").model)


def test_the_zeros_are_those_asked_for_and_outlive_the_fine_tuning(job, whole):
    found, zeros = summary_in(whole), zeros_in(whole / "pruned.pt")
    weights = {layer: weight.numel() for layer, weight in dense_weights(job).items()}
    share = {layer: 0.5 if layer.startswith("layer1") else 0.8 for layer in weights}
    share["conv1"] = 0.3
    assert zeros == {layer: round(share[layer] * count) for layer, count in weights.items()}
    assert found["layers"] == [
        {"layer": layer, "weights": weights[layer], "zeros": zeros[layer]} for layer in weights
    ]
    first = sum(round(cubic_sparsity(share[x], 1, 2) * weights[x]) for x in weights)
    assert [row["zeros"] for row in found["steps"]] == [first, sum(zeros.values())]
    stages = [row["stage"] for row in read_log(whole / "log.jsonl")]
    assert stages == ["step 001", "finetune"]


def test_stopped_at_any_write_a_run_ends_as_if_it_never_was(call, words, whole, disk_takes):
    places = set()
    for allowed in range(0, 90, 3):
        disk_takes(allowed)
        outcome = call("main.py", *words, *SCHEDULE)
        if outcome.code == 0:
            break
        assert (outcome.code, outcome.out) == (2, "")
        places.add(re.search(r"cannot write job/(\S+) \(No space", outcome.err)[1])
    assert len(places) >= 3
    found, expected = files_in(Path("job")), files_in(whole)
    for name in SAME:
        assert found[name] == expected[name], name
    before = summary_in(whole)
    differ = {name for name, value in outcome.json.items() if value != before[name]}
    assert differ <= {"seconds_of_finetuning", "environment"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("step", None, "'step' is null, expected a whole number, at least 1"),
        ("step", 7, "a row of each step"),
        ("masks", {"conv1": 3}, "'masks.conv1' is 3, expected a plain tensor"),
        ("masks", {"conv1": torch.ones(3).to_sparse()}, "expected a plain tensor"),
        ("masks", {"conv1": torch.ones(3)}, "a mask of 'conv1': expected masks of this network"),
        ("done", [{}], r"lacks 'weights' in 'done\[0\]'"),
    ],
)
def test_steps_that_are_none_are_refused(call, words, whole, name, value, expected):
    shutil.copytree(whole, "job")
    Path("job/summary.json").unlink()
    path = Path("job/checkpoints/steps.pt")
    torch.save(load_file(path) | {name: value}, path)
    before = files_in(Path("job"))
    outcome = call("main.py", *words, *SCHEDULE)
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(rf"job/checkpoints/steps\.pt.*{expected}", outcome.err.splitlines()[-1])
    assert files_in(Path("job")) == before


def test_what_a_run_leaves_behind(whole):
    found = summary_in(whole)
    said = (whole / "summary.md").read_text()
    assert said == weights_markdown(found)
    for row in ("| conv1 ", "| linear ", "| all ", "| 2    | ", "| 8 bits ", "| fine-tuned, best"):
        assert row in said, row
    assert "weights by magnitude, sparsity conv1=0.3,layer1=0.5,0.8" in said
    events = EventAccumulator(str(whole), size_guidance={"histograms": 0})
    events.Reload()
    dense, left = (event.histogram_value.num for event in events.Histograms("weights/conv1"))
    assert (dense, left) == (432, 432 - found["layers"][0]["zeros"])
    shares = [event.value for event in events.Scalars("plan/sparsity")]
    assert shares == pytest.approx([row["zeros"] / row["weights"] for row in found["layers"]])
    pytest.importorskip("matplotlib")
    with Image.open(whole / "weights.png") as image:
        assert len(set(image.convert("L").tobytes())) > 20


def test_without_fine_tuning_the_weights_are_the_dense_ones_where_they_stay(call, job, words):
    how = ("--sparsity", "0.9", "--threshold", "global", "--epochs", "0")
    found, dense = call("main.py", *words, *how).json, dense_weights(job)
    masks = global_masks(dense, 0.9)
    for layer, weight in prunable_weights(load_network("job/pruned.pt").model).items():
        assert torch.equal(weight, dense[layer] * masks[layer])
    files = found["file_bytes"]
    assert files["pruned_deflated"] == Path("job/pruned.pt").stat().st_size < files["dense"] / 3
    assert files["pruned_deflated"] < files["dense_deflated"] < files["dense"]
    parameters = found["physical"]["dense"]["parameters"]
    zeros, weights = (sum(row[x] for row in found["layers"]) for x in ("zeros", "weights"))
    first = found["sizes"][0]
    assert zeros == round(0.9 * weights)
    assert (first["bits"], first["dense_bytes"]) == (32, 4 * parameters)
    nonzeros = first["bitmap_bytes"] - -(-weights // 8)
    assert nonzeros == first["nonzero_bytes"] <= 4 * (parameters - zeros)


def test_of_every_four_neighbours_two_stay_through_the_fine_tuning(call, words):
    words = [word for word in words if word != "--json"]
    said = call("main.py", *words, "--pattern", "2:4").out
    assert "Left dense, since their input channels are no multiple of 4: conv1." in said
    assert summary_in(Path("job"))["left_dense"] == ["conv1"]
    weights = prunable_weights(load_network("job/pruned.pt").model)
    assert weights.pop("conv1").all()
    for weight in weights.values():
        assert (weight.movedim(1, -1).unflatten(-1, (-1, 4)) != 0).sum(-1).eq(2).all()


def test_a_dry_run_tells_the_zeros_and_writes_nothing(call, words, whole):
    found = call("main.py", *words, *SCHEDULE, "--dry_run").json
    assert found["layers"] == summary_in(whole)["layers"]
    assert not Path("job").exists()


def test_a_scan_of_weights_is_what_zeroing_that_layer_alone_gives(call, job):
    scan = ["scan", *job.network, "--granularity", "weight", "--rates", "0.9", "--split", "test"]
    found = call("main.py", *scan).json
    names = [unit["name"] for unit in found["units"]]
    assert names[0] == "conv1" and names[-1] == "linear" and len(names) == 8
    assert found["job_dir"].startswith("result/resnet_8/scan_weight_")
    model = load_network(job.checkpoint, "resnet_8").model
    weight = prunable_weights(model)[names[2]]
    mask = magnitude_mask(weight, 0.9)
    weight.mul_(mask)
    torch.save(model.state_dict(), "alone.pt")
    answers = call("main.py", "evaluate", *job.data, "--resume", "alone.pt", "--repeats", "1").json
    (point,) = found["units"][2]["points"]
    assert answers["correct"] == point["correct"]
    assert answers["loss"] == pytest.approx(point["loss"], rel=1e-6)
    assert point["removed"] == int((~mask).sum())
    text = Path(found["job_dir"], "summary.md").read_text()
    assert "sensitivity by magnitude" in text and "| weights at 0.9 |" in text


def test_evaluate_tells_the_zeros_and_times_torch_sparse_beside_dense(call, job, whole):
    words = ["evaluate", *job.data, "--resume", str(whole / "pruned.pt"), "--layers"]
    words += ["--sparse", "--repeats", "2", "--batch_sizes", "1,2"]
    found, run = call("main.py", *words).json, summary_in(whole)
    assert found["correct"] == run["accuracy"]["finetuned_best"]["test"]["correct"]
    rows = {row["name"]: row["zeros"] for row in found["zeros_per_tensor"]}
    assert [rows[f"{row['layer']}.weight"] for row in run["layers"]] == [
        row["zeros"] for row in run["layers"]
    ]
    assert [report["batch_size"] for report in found["sparse"]] == [1, 2]
    for report in found["sparse"]:
        assert [row["layer"] for row in report["layers"]] == [row["layer"] for row in run["layers"]]
        for row, pruned in zip(report["layers"], run["layers"], strict=True):
            assert row["sparsity"] == pytest.approx(pruned["zeros"] / pruned["weights"])
            assert row["faster"] == (row["sparse_ms"] <= FASTER * row["dense_ms"])
        some = any(row["faster"] for row in report["layers"])
        assert ("sparse_where_faster" in report["networks_ms"]) == some
        assert report["logits"]["largest"] <= 1e-4 * max(report["logits"]["scale"], 1)
    said = evaluate_text(found)
    assert "by torch.sparse, 1 image" in said and "network, all 8 layers" in said


def test_a_network_without_zeros_has_no_layer_to_time():
    report = sparse_report(build_model("resnet_8"), torch.randn(1, 3, 32, 32), repeats=1)
    assert report["layers"] == []
    assert "holds a zero" in sparse_text("net", [report])


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("", r"--sparsity is missing: expected a share of the weights such as 0\.8"),
        ("--sparsity 1", r"sparsity, term 1: expected 0\.8, or .* got '1'"),
        (
            "--sparsity conv9=0.5",
            r"--sparsity names 'conv9': expected a layer, .* of conv1, layer1",
        ),
        (
            "--sparsity conv1=0.5 --threshold global",
            r"with --threshold global: expected one number",
        ),
        ("--pattern 2:4 --sparsity 0.5", r"--sparsity with --pattern 2:4: expected it without"),
        ("--pattern 2:4 --schedule iterative", r"--schedule iterative with --pattern 2:4"),
        ("--sparsity 0.5 --schedule layerwise", r"--schedule is 'layerwise' with --granularity"),
        ("--sparsity 0.5 --schedule iterative --epochs 0", r"--epochs is 0: expected 1 or more of"),
        ("--sparsity 0.5 --epochs -1", r"--epochs is -1: expected"),
        ("--sparsity 0.5 --bits 0", r"--bits is 0: expected numbers of 1 or more"),
        ("--sparsity 0.5 --round_to 8", r"--round_to is 8 with --granularity weight: expected it"),
        ("--sparsity 0.5 --criterion l1", r"--criterion is 'l1' with --granularity weight"),
        ("--sparsity 0.5 --compress_rate [0.5]*7", r"--compress_rate is '\[0\.5\]\*7' with --gran"),
        ("--sparsity 0.5 --granularity filter", r"--sparsity is '0\.5' with --granularity filter"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(call, words, wrong, expected):
    outcome = call("main.py", *words, *wrong.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(expected, outcome.err.splitlines()[-1]), outcome.err
    assert not Path("job").exists()


@pytest.mark.parametrize("wrong", [["--group"], ["--criterion", "l1"], ["--rank_conv", "ranks"]])
def test_a_scan_of_weights_takes_no_option_of_filters(call, job, wrong):
    outcome = call("main.py", "scan", *job.network, "--granularity", "weight", *wrong)
    assert outcome.code == 2
    assert f"{wrong[0]} " in outcome.err and "--granularity weight: expected" in outcome.err


def test_a_network_without_numbers_is_refused(call, job, words):
    state = build_model("resnet_8", 2).state_dict()
    state["conv1.weight"][0] = torch.nan
    torch.save(state, "nan.pt")
    outcome = call("main.py", *words, "--sparsity", "0.5", "--resume", "nan.pt")
    assert outcome.code == 2 and not Path("job").exists()
    assert "conv1" in outcome.err.splitlines()[-1]
