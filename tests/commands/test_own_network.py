"""Every command works on a network of the user's own: a file's callable, named on the line."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from tests.own_networks import NET
from utils.options.networks import load_network, outline
from utils.rank.rank_files import read_manifest

TUNED = ("--epochs", "1", "--train_batch_size", "16")


@pytest.fixture
def own(images):
    """The words that name a network of a file in the working directory, and its images."""
    Path("my_net.py").write_text(NET)
    words = ["--dataset", "folder", "--data_dir", str(images), "--device", "cpu", "--json"]
    return [*words, "--arch", "my_net.py:MyNet", "--arch_args", "width=4"]


@pytest.fixture
def trained(own, call):
    """The same words, of a network that has a baseline and ranks in the usual places."""
    call("main.py", "train", *own, *TUNED, "--lr", "0.05")
    ranked = call("rank_generation.py", *own, "--num_images", "8").json
    assert ranked["folder"] == "rank_conv/my_net_MyNet_width=4"
    assert [row["conv"] for row in ranked["layers"]][:2] == ["stem.0", "blocks.0.conv1"]
    return own


def pruned(call, words, *more):
    return call("main.py", "prune", *words, *TUNED, "--job_dir", "job", *more).json


def test_a_file_goes_all_the_way(trained, call, quick):
    summary = pruned(call, trained, "--target_macs", "0.5")
    assert summary["arch"] == "my_net.py:MyNet"
    assert summary["layers"][-1]["reason"] == "kept whole: no maps, so no rank"
    assert summary["budget"]["within_tolerance"] or summary["budget"]["left"] < 0.55
    physical = summary["physical"]
    assert physical["pruned"]["macs"] / physical["dense"]["macs"] == pytest.approx(
        summary["budget"]["left"]
    )
    baseline = "result/my_net_MyNet_width=4/baseline"
    file = ("--resume", "job/pruned.pt", "--arch_args", "", "--repeats", "1")
    found = call("main.py", "evaluate", *trained, *file, "--against", baseline).json
    assert found["macs"] == physical["pruned"]["macs"]
    assert found["against"]["macs"] == physical["dense"]["macs"]
    exported = call("main.py", "export", *trained, *file[:4], "--format", "pt2").json
    assert [(x["format"], x["same_class"]) for x in exported["files"]] == [("pt2", 20)]
    scanned = call("main.py", "scan", *trained, "--rates", "0.5", "--num_images", "4").json
    assert {"stem.0", "blocks.1.conv2"} < {unit["name"] for unit in scanned["units"]}


def test_linears_are_scored_by_a_criterion_of_theirs(trained, call, quick):
    words = ("--ratio", "0.5", "--linear_criterion", "l2", "--dry_run")
    layers = call("main.py", "prune", *trained, *words).json["layers"]
    assert [len(layer["kept"]) for layer in layers if layer["conv"] == "hidden"] == [4]
    refused = call("main.py", "prune", *trained, *words, "--criterion", "l1")
    assert "--linear_criterion l2 with --criterion l1: expected it with ranks" in refused.err


def test_weights_and_zeros_of_a_file_go_too(trained, call, quick):
    summary = pruned(call, trained, "--granularity", "weight", "--sparsity", "0.5")
    assert summary["pruned_file"] == "job/pruned.pt"
    masked = ("--ratio", "0.3", "--mode", "mask", "--criterion", "l1", "--job_dir", "masked")
    call("main.py", "prune", *trained, *TUNED, *masked)
    file = ("--resume", "masked/pruned.pt", "--remove_zeros", "--job_dir", "zeros")
    zeros = call("main.py", "prune", *trained, *file).json
    assert zeros["physical"]["pruned"]["macs"] < zeros["physical"]["dense"]["macs"]


def test_a_pruned_file_is_pruned_again(trained, call, quick):
    first = pruned(call, trained, "--ratio", "0.5", "--criterion", "l1")
    again = (*TUNED, "--resume", "job/pruned.pt", "--criterion", "l1", "--ratio", "0.5")
    second = call("main.py", "prune", *trained, *again, "--job_dir", "second").json
    assert second["physical"]["dense"] == first["physical"]["pruned"]
    assert second["physical"]["pruned"]["macs"] < first["physical"]["pruned"]["macs"]
    network = load_network("second/pruned.pt", "my_net.py:MyNet")
    assert len(network.before) == 1
    found = call("main.py", "evaluate", *trained, "--resume", "second/pruned.pt").json
    assert found["macs"] == second["physical"]["pruned"]["macs"]
    assert found["correct"] == second["accuracy"]["finetuned_best"]["test"]["correct"]


def test_a_pruned_file_names_its_network_but_runs_nothing(trained, call, quick):
    pruned(call, trained, "--ratio", "0.5", "--criterion", "l1")
    words = trained[: trained.index("--arch")]
    refused = call("main.py", "evaluate", "--resume", "job/pruned.pt", *words)
    assert refused.code == 2
    assert "which is not imported because a file says so" in refused.err
    line = shlex.split(refused.err.rpartition("python main.py ")[2])
    assert line[-6:-2] == ["--arch", "my_net.py:MyNet", "--arch_args", "width=4"]
    assert call("main.py", *line, "--repeats", "1").json["form"] == "remove"


def test_rates_by_layer(own, call):
    def planned(rates):
        Path("rates.json").write_text(json.dumps(rates))
        words = ("--untrained", "--criterion", "l1", "--rates", "rates.json", "--dry_run")
        return call("main.py", *own, *words)

    layers = planned({"blocks.*": 0.25, "blocks.1.conv2": 0.5}).json["layers"]
    kept = {layer["conv"]: len(layer["kept"]) for layer in layers}
    assert kept == {
        "stem.0": 4,
        "blocks.0.conv1": 3,
        "blocks.0.conv2": 3,
        "blocks.1.shortcut": 6,
        "blocks.1.conv1": 6,
        "blocks.1.conv2": 4,
        "hidden": 8,
    }
    assert (
        "rates.json: rates of no layer: expected {layer: rate} with at least one" in planned({}).err
    )
    assert "no prunable layer 'stem.1'; did you mean 'stem.0'?" in planned({"stem.1": 0.5}).err
    assert "pattern 'stages.*' matches no prunable layer" in planned({"stages.*": 0.5}).err
    assert "a number, at least 0, less than 1" in planned({"stem.0": 1}).err


def test_gray_images_of_a_size_and_a_normalization_by_numbers(own, call):
    words = (*own[:-1], "num_classes=2,width=2,channels=1", "--image_size", "12,16", "--untrained")
    ranked = call("rank_generation.py", *words, "--num_images", "4", "--normalization", "0.5,0.25")
    assert ranked.json["layers"][0]["map_size"] == [12, 16]
    manifest = read_manifest(Path(ranked.json["folder"]))
    assert manifest["normalization"] == "0.5,0.25"


def test_layers_shows_the_network_as_the_graph_sees_it(own, call):
    found = call("main.py", "layers", *own).json
    assert found["rates"] == 7
    assert sum(row["share_of_macs"] for row in found["layers"]) == pytest.approx(1)
    assert [row["layer"] for row in found["layers"] if row["protected"]] == ["head"]
    text = call("main.py", "layers", *(word for word in own if word != "--json")).out
    assert "stays whole: reaches the output" in text


def test_layers_says_what_stops_at_an_operation_that_nobody_knows(own, call):
    words = [*own[: own.index("--arch")], "--arch", "my_net.py:Mixed"]
    rows = {row["layer"]: row for row in call("main.py", "layers", *words).json["layers"]}
    assert [name for name, row in rows.items() if row["stopped"]] == ["second"]
    text = call("main.py", "layers", *(word for word in words if word != "--json")).out
    assert "stays whole: is read by what nobody knows" in text
    share = rows["first"]["share_of_macs"]
    assert f"The layers that can still shrink have {share:.0%} of the MACs." in text


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("my_net.py:Mynet", "has no 'Mynet' (did you mean 'MyNet'?)"),
        ("nowhere.py:MyNet", "there is no file nowhere.py"),
        ("my_net.py:raises", "cannot be built: RuntimeError: no such data set"),
        ("my_net.py:nothing", "is a int: expected a callable that returns a torch.nn.Module"),
        ("my_net.py:Barrier", "has nothing to prune"),
        ("my_net.py:MyNet", "has 2 classes: expected the 7 of the network"),
    ],
)
def test_what_cannot_be_pruned_is_said_in_a_sentence(own, call, arch, message):
    arguments = "num_classes=7" if arch.endswith("MyNet") else ""
    words = [*own[: own.index("--arch")], "--arch", arch, "--arch_args", arguments, "--untrained"]
    outcome = call("main.py", *words, "--criterion", "l1", "--ratio", "0.5", "--epochs", "0")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.strip().count("\n") <= 1  # a note and a sentence


def test_a_checkpoint_of_a_compiled_and_wrapped_network_loads(own):
    model = outline("my_net.py:MyNet", "width=4", (32, 32)).model
    state = {f"module._orig_mod.{key}": value for key, value in model.state_dict().items()}
    for name in ("model", "model_state_dict", "net"):
        torch.save({"epoch": 3, name: state}, f"{name}.pt")
        loaded = load_network(
            f"{name}.pt", "my_net.py:MyNet", arguments="width=4", image_size=(32, 32)
        )
        torch.testing.assert_close(loaded.model.state_dict(), model.state_dict())
    torch.save({"epoch": 3, "weights": state}, "other.pt")
    with pytest.raises(ValueError, match="an object with 'epoch', 'weights'.*state_dict or"):
        load_network("other.pt", "my_net.py:MyNet")
