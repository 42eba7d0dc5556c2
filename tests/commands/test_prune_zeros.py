"""`main.py prune --remove_zeros`: a checkpoint that holds zeros becomes a smaller file."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn as nn
from torch.nn.utils import prune

from models.registry import build_model
from tests.command_lines import files_in
from tests.networks import randomized
from utils.options.networks import load_network, network_of
from utils.removal.network_file import write_network

WORDS = ["prune", "--arch", "resnet_8", "--remove_zeros", "--device", "cpu"]


@pytest.fixture(scope="module")
def model():
    """A ResNet-8 half of whose filters torch.nn.utils.prune has zeroed."""
    model = randomized(build_model("resnet_8"), seed=0).float()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            prune.ln_structured(module, "weight", 0.5, n=1, dim=0)
    return model.eval()


@pytest.fixture
def checkpoint(model, tmp_path, monkeypatch):
    """Its checkpoint, in the folder that the command runs in."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "zeros.pt")
    return tmp_path / "zeros.pt"


def test_what_is_written_computes_the_same_and_is_smaller(call, checkpoint, model, tmp_path):
    outcome = call("main.py", *WORDS, "--resume", str(checkpoint), "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    folder = tmp_path / "result" / "resnet_8" / "remove_zeros"
    assert set(files_in(folder)) == {"config.json", "pruned.pt", "summary.json", "summary.md"}
    assert json.loads((folder / "summary.json").read_text()) == summary
    physical, small = summary["physical"], load_network(folder / "pruned.pt").model
    assert physical["pruned"]["parameters"] == sum(p.numel() for p in small.parameters())
    assert physical["pruned"]["macs"] < 0.6 * physical["dense"]["macs"]
    assert [len(x["kept"]) for x in summary["layers"]] == [8, 8, 8, 16, 16, 32, 32, 10]
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(images), model(images))


def test_what_stays_is_told_with_its_reason(call, checkpoint):
    outcome = call("main.py", *WORDS, "--resume", str(checkpoint))
    assert outcome.code == 0, outcome.err
    assert "| layer1.0.conv1 | 16 -> 8 " in outcome.out
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("| layer3.0.bn1 ")]
    assert row.endswith("| layer3.0.conv2 pads it with zeros, which its border sees |")


def test_a_dry_run_writes_nothing(call, checkpoint, tmp_path):
    before = files_in(tmp_path)
    outcome = call("main.py", *WORDS, "--resume", str(checkpoint), "--dry_run", "--json")
    assert json.loads(outcome.out)["physical"]["pruned"]["macs"] > 0
    assert files_in(tmp_path) == before


def test_a_masked_file_is_taken(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = replace(network_of(build_model("resnet_8"), "resnet_8"), form="mask")
    write_network(tmp_path / "mask.pt", network)
    assert call("main.py", *WORDS, "--resume", "mask.pt", "--dry_run").code == 0


def test_zeros_of_a_small_file_go_too(call, checkpoint, tmp_path):
    """What a first removal left behind is still replayed: masks, and biases that it added."""
    first = call("main.py", *WORDS, "--resume", str(checkpoint), "--job_dir", "once", "--json").json
    network = load_network("once/pruned.pt")
    with torch.no_grad():
        for name in ("layer1.0.bn1", "layer2.0.bn1"):
            norm = network.model.get_submodule(name)
            norm.weight[1::2], norm.bias[1::2] = 0, 0
    write_network(tmp_path / "zeroed.pt", network)
    zeroed = ("--resume", "zeroed.pt", "--job_dir", "twice", "--json")
    second = call("main.py", "prune", "--remove_zeros", "--device", "cpu", *zeroed).json
    assert second["physical"]["dense"] == first["physical"]["pruned"]
    filters = {row["conv"]: (len(row["kept"]), row["filters"]) for row in second["layers"]}
    assert all(filters[f"layer{i}.0.conv1"][0] < filters[f"layer{i}.0.conv1"][1] for i in (1, 2))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    small, twice = network.model.eval(), load_network("twice/pruned.pt").model.eval()
    with torch.no_grad():
        torch.testing.assert_close(twice(images), small(images))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--compress_rate", "[0.1]*7"],
            "--compress_rate is '[0.1]*7' with --remove_zeros, which chooses no filters",
        ),
        (["--resume", "nowhere.pt"], "nowhere.pt does not exist"),
        ([], "no trained resnet_8: give a checkpoint with --resume CKPT"),
    ],
)
def test_bad_input_is_one_sentence(call, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    outcome = call("main.py", *WORDS, *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err and files_in(tmp_path) == {}


def test_nan_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = build_model("resnet_8").state_dict()
    state["conv1.weight"][0] = torch.nan
    torch.save(state, "nan.pt")
    outcome = call("main.py", *WORDS, "--resume", "nan.pt")
    assert outcome.code == 2 and "holds NaN or Inf in 'conv1.weight'" in outcome.err
