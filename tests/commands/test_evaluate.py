"""What `evaluate` says of one network, and of two side by side."""

import functools
import os
import re
from pathlib import Path

import pytest
import torch

from models.registry import build_model
from utils.runs.checkpoint import load_file, state_dict_of

QUICK = ("--repeats", "2")
TWO_CPUS = pytest.mark.skipif(os.cpu_count() < 2, reason="one CPU has but one thread")


@pytest.fixture(scope="module")
def weights(job):
    return state_dict_of(load_file(job.checkpoint), job.checkpoint)


@pytest.fixture
def evaluated(call, job):
    """A function: what `evaluate` prints of the baseline as JSON."""
    return lambda *words: call("main.py", "evaluate", *job.network, *QUICK, *words).json


@pytest.fixture
def pruned(call, job, tmp_path):
    """The words that name a file of the same network with fewer filters."""
    words = ("--criterion", "l1", "--compress_rate", "[0.5]*7", "--epochs", "0")
    job_dir = str(tmp_path / "pruned")
    return call("main.py", *job.network, *words, "--job_dir", job_dir).json["pruned_file"]


def test_one_network_is_measured_in_every_setting_that_is_asked_for(evaluated):
    found = evaluated("--bits", "32,4", "--batch_sizes", "1,3", "--threads", "1")
    assert [size["bits"] for size in found["sizes"]] == [32, 4]
    assert found["sizes"][0]["dense_bytes"] == 4 * found["parameters"]
    assert found["sizes"][1]["nonzero_bytes"] <= found["sizes"][1]["dense_bytes"]
    one, three = found["memory"]
    assert (one["batch_size"], three["batch_size"]) == (1, 3)
    assert three["peak_bytes"] == 3 * one["peak_bytes"]
    assert [(row["batch_size"], row["threads"]) for row in found["latency"]] == [(1, 1), (3, 1)]
    assert found["latency_ms"] == found["latency"][0]["median_ms"]
    for row in found["latency"]:
        assert row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        expected = 1000 * row["batch_size"] / row["median_ms"]
        assert row["images_per_second"] == pytest.approx(expected)
    assert "against" not in found and "layers" not in found


@TWO_CPUS
def test_threads_are_what_was_asked_for_and_come_back(evaluated):
    found = evaluated("--threads", "2,1")
    assert [row["threads"] for row in found["latency"]] == [2, 1]
    assert torch.get_num_threads() == 1


def test_layers_add_up(evaluated):
    found = evaluated("--layers")
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    per_tensor = found["zeros_per_tensor"]
    assert sum(row["count"] for row in per_tensor) == found["parameters"]
    assert sum(row["zeros"] for row in per_tensor) == found["zero_values"]["zeros"]
    filters = {row["name"]: row["count"] for row in found["zero_filters_per_conv"]}
    convs = {row["name"]: row["filters"] for row in found["layers"] if row["kind"] == "Conv2d"}
    assert filters == convs
    assert sum(filters.values()) == found["zero_filters"]["count"]


def test_zero_filters_are_found_and_the_way_to_remove_them_is_told(call, job, weights):
    zeroed = {name: value.clone() for name, value in weights.items()}
    zeroed["layer2.0.conv1.weight"][[3, 7]] = 0
    torch.save(zeroed, "zeroed.pt")
    words = (*job.data, "--resume", "zeroed.pt", "--layers", *QUICK)
    found = call("main.py", "evaluate", *words).json
    assert found["zero_filters"]["zeros"] == 2
    rows = {row["name"]: row["zeros"] for row in found["zero_filters_per_conv"] if row["zeros"]}
    assert rows == {"layer2.0.conv1": 2}
    (remark,) = found["remarks"]
    assert remark.startswith("2 filters of resnet_8 (dense) are all zero: `main.py prune --remove_")
    less = {size["bits"]: size["dense_bytes"] - size["nonzero_bytes"] for size in found["sizes"]}
    assert less[32] >= 4 * zeroed["layer2.0.conv1.weight"][[3, 7]].numel()


def test_a_network_against_itself_is_its_equal(evaluated, job):
    found = evaluated("--against", str(job.checkpoint))
    against, ratios = found["against"], found["ratios"]
    timed = ("latency", "latency_ms")
    assert {name: found[name] for name in against if name not in timed} == {
        name: against[name] for name in against if name not in timed
    }
    equal = {name: ratio for name, ratio in ratios.items() if "latency" not in name}
    assert set(equal.values()) == {1.0} and len(equal) == 4 + 6 + 1
    assert found["remarks"] == []


def test_two_networks_stand_side_by_side_either_way_round(evaluated, call, job, pruned):
    found = evaluated("--against", pruned)
    words = (*job.data, "--resume", pruned, "--against", str(job.checkpoint), *QUICK)
    turned = call("main.py", "evaluate", *words).json
    assert (found["form"], found["against"]["form"]) == ("dense", "remove")
    for one, other in ((found, turned["against"]), (turned, found["against"])):
        for name in ("correct", "macs", "parameters", "size_bytes", "sizes", "memory"):
            assert one[name] == other[name]
    for name in ("macs", "parameters", "dense_bytes_8_bits"):
        assert found["ratios"][name] == pytest.approx(1 / turned["ratios"][name])
        assert found["ratios"][name] > 1
    peak = "peak_bytes_1_images"  # aligned layers write into wider tensors: it need not be less
    assert found["ratios"][peak] == pytest.approx(1 / turned["ratios"][peak])
    assert found["ratios"]["macs"] == found["macs"] / found["against"]["macs"]
    assert all(one["padded_macs"] >= one["macs"] for one in (found, found["against"]))
    ratio = found["latency_ms"] / found["against"]["latency_ms"]
    assert found["ratios"]["latency_ms_1_images_1_threads"] == ratio


def test_a_job_folder_can_be_measured_against(evaluated, pruned):
    assert evaluated("--against", str(Path(pruned).parent))["against"]["checkpoint"] == pruned


def test_another_architecture_can_be_measured_against(evaluated):
    torch.save(build_model("resnet_20", 2).state_dict(), "resnet_20.pt")
    found = evaluated("--against", "resnet_20.pt", "--against_arch", "resnet_20")
    assert (found["arch"], found["against"]["arch"]) == ("resnet_8", "resnet_20")
    assert found["ratios"]["macs"] < 0.5


def test_people_read_both_networks_and_their_ratios(call, job, pruned):
    words = [word for word in job.network if word != "--json"]
    found = call("main.py", "evaluate", *words, *QUICK, "--against", pruned, "--layers")
    rows = {
        cells[0].strip(): [cell.strip() for cell in cells[1:]]
        for line in found.out.splitlines()
        if line.startswith("| ") and len(cells := line.strip("| ").split(" | ")) > 1
    }
    dense, small = (int(cell.replace(",", "")) for cell in rows["MACs"][:2])
    assert rows["MACs"][2] == f"{dense / small:.2f}"
    assert rows["latency, 1 image, 1 thread"][2].endswith(f"(MACs {dense / small:.2f})")
    assert rows["images"][0] == f"{job.trained['best']['test']['correct']} of 20 right"
    for heading in ("## Layers of resnet_8 (dense)", "## Layers of resnet_8 (remove)"):
        assert heading in found.out
    assert found.out.count("Conv2d") == 2 * 7


def test_compiled_networks_are_timed_as_such(evaluated, monkeypatch):
    eager = functools.partial(torch.compile, backend="aot_eager")  # all but the C++
    monkeypatch.setattr(torch, "compile", eager)
    plain, found = evaluated(), evaluated("--runtime", "compile", "--batch_sizes", "1,2")
    assert [row["runtime"] for row in found["latency"]] == ["compile", "compile"]
    assert plain["latency"][0]["runtime"] == "eager"
    assert [found[name] for name in ("correct", "macs")] == [plain["correct"], plain["macs"]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--bits 0", r"--bits is 0: expected numbers of 1 or more"),
        ("--batch_sizes 1,-2", r"--batch_sizes is 1,-2: expected numbers of 1 or more"),
        ("--threads 0", r"--threads is 0: expected numbers of 1 or more"),
        ("--threads 4096", r"threads: expected 1 to \d+, one for each CPU here, got 4096"),
        ("--repeats 0", r"--repeats is 0: expected at least 1"),
        ("--bits many", r"--bits: expected ints separated by commas, such as 5,10, got 'many'"),
        ("--against absent.pt", r"absent\.pt does not exist"),
        ("--against .", r"--against \. holds no checkpoint: expected pruned\.pt"),
        ("--against_arch resnet_8", r"--against_arch is 'resnet_8' without --against"),
        (
            "--against ten.pt",
            r"--against ten\.pt tells 10 classes of 32 x 32 .*: expected 2 of 32 x 32",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, job, words, expected):
    torch.save(build_model("resnet_8").state_dict(), "ten.pt")
    outcome = call("main.py", "evaluate", *job.network, *words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(expected, outcome.err.splitlines()[-1])
