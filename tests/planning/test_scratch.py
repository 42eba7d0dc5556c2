"""Training from scratch: the pruned network's widths and places, and nothing of its weights."""

import pytest
import torch

from utils.options.networks import draw_network, load_network
from utils.removal.surgery import remove_filters

pytestmark = pytest.mark.usefixtures("quick")
RATES = ("--compress_rate", "[0.4]*7")


def pruned(call, job, folder, *words):
    """Return the summary of a run, and the state dict that it wrote."""
    found = call("main.py", "prune", *job.pruning, *RATES, *words, "--job_dir", folder).json
    return found, load_network(found["pruned_file"]).model.state_dict()


@pytest.mark.parametrize("mode", ["remove", "mask"])
def test_the_same_filters_stay_of_fresh_weights(call, job, mode):
    words = ("--epochs", "0", "--mode", mode, "--seed", "3")
    trained, old = pruned(call, job, "trained", *words)
    scratch, new = pruned(call, job, "scratch", *words, "--init", "scratch")
    assert (trained["init"], scratch["init"]) == ("pruned", "scratch")
    for name in ("layers", "physical", "paper_rule"):
        assert scratch[name] == trained[name]
    assert scratch["accuracy"]["dense"] == trained["accuracy"]["dense"]
    assert {name: tensor.shape for name, tensor in new.items()} == {
        name: tensor.shape for name, tensor in old.items()
    }
    network = draw_network("resnet_8", 3, num_classes=2)
    fresh = network.model
    if mode == "remove":
        masks = load_network(scratch["pruned_file"]).masks
        fresh = remove_filters(fresh, network.graph, masks)
    kept = {layer["conv"]: layer["kept"] for layer in scratch["layers"]}
    for name, weight in fresh.state_dict().items():
        rows = kept.get(name.removesuffix(".weight"), slice(None)) if mode == "mask" else ...
        if weight.dim() > 1:
            assert torch.equal(new[name][rows], weight[rows]), name
            assert not torch.equal(new[name][rows], old[name][rows]), name


def test_the_seed_alone_draws_the_weights(call, job):
    words = ("--init", "scratch", "--epochs", "1")
    (one, first), (again, second), (other, third) = (
        pruned(call, job, name, *words, "--seed", seed)
        for name, seed in (("one", "0"), ("again", "0"), ("other", "1"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert one["accuracy"] == again["accuracy"]
    assert one["layers"] == other["layers"]
    assert not torch.equal(first["conv1.weight"], third["conv1.weight"])


def test_conv_by_conv_has_no_scratch(call, job):
    words = ("--init", "scratch", "--schedule", "layerwise")
    outcome = call("main.py", "prune", *job.pruning, *RATES, *words)
    assert outcome.code == 2
    assert "--init scratch with --schedule layerwise: expected oneshot" in outcome.err


def test_the_title_says_so(call, job):
    words = [word for word in job.pruning if word != "--json"]
    dry = call("main.py", "prune", *words, *RATES, "--init", "scratch", "--dry_run")
    assert "\nnetwork     resnet_8, by rank, from scratch\n" in dry.out
