"""`export` writes files that are the network it was given, or says what it cannot."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.command_lines import files_in
from tests.networks import random_masks
from utils.data.normalization import NORMALIZATIONS
from utils.metrics import export_check
from utils.options.networks import load_network
from utils.removal.network_file import write_network
from utils.removal.surgery import remove_filters
from utils.reports.side_by_side import uneven_remark
from utils.runs.checkpoint import sha256_of
from utils.runs.exported import (
    FORMATS,
    Format,
    Opened,
    export_program,
    onnx_bytes,
    open_onnx,
)
from utils.runs.folded import ChannelsLast, norms_folded

PT2 = ("--format", "pt2", "--eval_batch_size", "4")
OPEN_ANYWHERE = """
import json, sys, torch
facts = {"network.json": ""}
network = torch.export.load(sys.argv[1], extra_files=facts).module()
facts = json.loads(facts["network.json"])
pixels = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32) % 256 / 255
mean, deviation = (torch.tensor(facts[name])[:, None, None] for name in ("mean", "deviation"))
print(json.dumps([facts["classes"], network((pixels - mean) / deviation).tolist()]))
"""


@pytest.fixture
def exported(call, job):
    """A function: what `export` prints of the baseline as JSON."""
    return lambda *words: call("main.py", "export", *job.network, *PT2, *words).json


@pytest.fixture
def pruned(job) -> Path:
    """A file of the baseline's network with fewer filters, in a folder of its own."""
    dense = load_network(job.checkpoint, "resnet_8")
    masks = random_masks({"layer1.0.conv1": 16, "layer2.0.conv2": 32}, 0.5, seed=0)
    removed = remove_filters(dense.model, dense.graph, masks)
    path = Path("run/pruned.pt").absolute()
    write_network(path, replace(dense, model=removed, form="remove", masks=masks))
    return path


def test_a_pruned_network_opens_without_this_repository(call, job, pruned, tmp_path):
    found = call("main.py", "export", *job.data, *PT2, "--test_model_dir", str(pruned.parent)).json
    (file,) = found["files"]
    assert Path(file["path"]) == pruned.with_suffix(".pt2")
    assert file["size_bytes"] == Path(file["path"]).stat().st_size
    assert (file["largest_difference"], file["same_class"]) == (0, 4)
    assert (found["images"], found["batch_sizes"]) == (4, [1, 2, 4])
    assert found["facts"]["checkpoint_sha256"] == sha256_of(pruned)
    physical = found["physical"]
    assert physical["exported"]["macs"] < physical["dense"]["macs"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    quiet = "ignore:The given buffer is not writable:UserWarning"  # of torch 2.11 about itself
    words = [sys.executable, "-W", "error", "-W", quiet, "-c", OPEN_ANYWHERE, file["path"]]
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(words, cwd=empty, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    classes, logits = json.loads(done.stdout)
    assert classes == ["green", "red"]
    pixels = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32) % 256 / 255
    mean, deviation = (torch.tensor(v)[:, None, None] for v in NORMALIZATIONS["cifar10"])
    with torch.no_grad():
        expected = load_network(pruned).model.eval()((pixels - mean) / deviation)
    torch.testing.assert_close(torch.tensor(logits), expected)


def test_the_normalization_can_go_into_the_file_and_noise_can_check_it(exported):
    words = ("--with_normalization", "--random_images", "--data_dir", "absent")
    found = exported(*words, "--output", "net.pt2")
    (file,) = found["files"]
    assert file["size_bytes"] == Path("net.pt2").stat().st_size
    assert file["largest_difference"] <= 1e-5 * file["logit_scale"]
    assert found["facts"]["input"] == "float32 [N, 3, 32, 32], RGB in [0, 1]"
    assert (found["dataset"], found["facts"]["classes"]) == ("noise", None)


def test_a_file_that_computes_something_else_is_not_written(exported, monkeypatch, tmp_path):
    wrong = Opened(lambda images: torch.zeros(len(images), 2), "a wrong runner")
    monkeypatch.setitem(FORMATS, "pt2", Format(lambda *_: b"", lambda _: wrong))
    with pytest.raises(RuntimeError, match="a wrong runner: logits differ by"):
        exported("--output", ".")
    assert files_in(tmp_path) == {}


def test_rounding_is_let_pass_and_more_is_not():
    images, logits = torch.zeros(2, 1), {1: torch.ones(1, 3), 2: torch.ones(2, 3)}
    close = Opened(lambda images: torch.full((len(images), 3), 1 + 1e-5), "close")
    assert export_check.check_file(close, images, logits)["same_class"] == 2
    far = Opened(lambda images: torch.full((len(images), 3), 1.001), "far")
    with pytest.raises(RuntimeError, match="far: logits differ by 0.0"):
        export_check.check_file(far, images, logits)


def test_onnx_without_its_packages_is_refused_and_left_out_of_all(call, job, monkeypatch):
    monkeypatch.setitem(FORMATS, "onnx", Format(onnx_bytes, open_onnx, ("no_such_onnx",)))
    words = [word for word in job.network if word != "--json"]
    words += ["--eval_batch_size", "4", "--output", "folder"]
    outcome = call("main.py", "export", *words, "--format", "onnx")
    needs = "--format onnx does not find no_such_onnx: expected `pip install no_such_onnx` before"
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"main.py export: error: {needs}\n"
    outcome = call("main.py", "export", *words)
    assert [path.name for path in Path("folder").iterdir()] == ["best.pt2"]
    assert f"no .onnx file: {needs}\n" in outcome.err
    assert re.search(r"\| same class +\| +\| 4 of 4 ", outcome.out)
    assert re.search(r"\| latency, 4 images +\| [\d.]+ ms +\| [\d.]+ ms", outcome.out)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--resume truncated.pt", r"checkpoint truncated\.pt is damaged: expected a whole file"),
        ("--resume absent.pt", r"checkpoint absent\.pt does not exist"),
        ("--arch resnet_20", r"does not fit the network"),
        ("--resume huge.pt", r"the network's logits are not finite: expected"),
        ("--data_dir absent", r"image folder 'absent' does not exist"),
        ("--eval_batch_size 0", r"--eval_batch_size is 0: expected at least 1"),
        ("--device cuda", r"--device: invalid choice: 'cuda'"),
        ("--resume same.pt2 --output .", r"same\.pt2 is the checkpoint itself: expected another"),
        ("--output truncated.pt", r"cannot write truncated\.pt/best\.pt2 .*: expected a writable"),
    ],
)
def test_bad_input_is_one_sentence(call, job, words, expected, tmp_path):
    weights = torch.load(job.checkpoint, weights_only=True)
    torch.save(weights, "same.pt2")
    weights["state_dict"]["conv1.weight"][0] = 3e38
    torch.save(weights, "huge.pt")
    Path("truncated.pt").write_bytes(job.checkpoint.read_bytes()[:20_000])
    before = files_in(tmp_path)
    outcome = call("main.py", "export", *job.network, *PT2, *words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(expected, outcome.err.splitlines()[-1])
    assert files_in(tmp_path) == before


def test_for_eager_the_fastest_form_is_written_and_computes_the_same(call, job, pruned):
    words = ["export", *job.data, "--eval_batch_size", "4", "--resume", str(pruned)]
    found = call("main.py", *words, "--runtime", "eager").json
    (file,) = found["files"]
    assert file["format"] == "pt2" and file["same_class"] == 4
    assert file["largest_difference"] < 1e-4 * file["logit_scale"]
    times = found["best"]["latency_ms"]
    assert times[found["best"]["form"]] == min(times.values()) and len(times) == 3


def test_folding_leaves_no_norm_that_a_conv_alone_feeds_and_changes_no_answer():
    torch.manual_seed(0)
    shared = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4),
        shared, nn.BatchNorm2d(4, affine=False), shared, nn.BatchNorm2d(4),
    ).eval()  # fmt: skip
    for norm in (module for module in model if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    images = torch.randn(3, 3, 8, 8)
    program = export_program(model, images[:1])
    for network in (norms_folded(program), ChannelsLast(norms_folded(program))):
        torch.testing.assert_close(network(images), model(images), rtol=1e-4, atol=1e-5)
    nodes = [node for node in norms_folded(program).graph.nodes if "batch_norm" in str(node.target)]
    assert len(nodes) == 1  # that behind the relu


def test_another_format_than_the_runtimes_is_refused(call, job):
    words = ["export", *job.network, "--runtime", "onnxruntime", "--format", "pt2"]
    outcome = call("main.py", *words)
    assert outcome.code == 2 and "--format pt2 with --runtime onnxruntime" in outcome.err


def test_a_depthwise_width_that_four_does_not_divide_is_named(call, job, pruned):
    found = call("main.py", "export", *job.data, *PT2, "--resume", str(pruned)).json
    assert not any("depthwise" in said for said in found["remarks"])
    assert "widths that 4 does not divide, a first" in uneven_remark("net", ["a", "b"])
