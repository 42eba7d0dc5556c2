"""Recalibrated norms hold the statistics of what they read, and nothing else changes."""

import copy

import pytest
import torch
from torch import nn

from models.registry import build_model
from utils.runs.checkpoint import load_file
from utils.training.recalibration import recalibrate


def images(count=24, seed=0):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    return build_model("resnet_8").eval()


def test_the_first_norm_holds_the_moments_of_all_it_reads():
    model = network()
    assert recalibrate(model, images().split(8)) == 24
    read = model.conv1(images()).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(model.bn1.running_mean.double(), read.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.bn1.running_var.double(), read.var(1), rtol=1e-5, atol=1e-6)


def test_one_batch_evaluates_as_it_trains_but_for_the_unbiased_variance():
    model = network()
    recalibrate(model, [images()])
    trained = copy.deepcopy(model).train()(images())
    torch.testing.assert_close(model(images()), trained, rtol=1e-2, atol=1e-2)
    assert not torch.allclose(network()(images()), trained, rtol=1e-2, atol=1e-2)


def test_it_is_repeatable_whatever_the_statistics_were_before():
    model, again = network(), network()
    recalibrate(model, images().split(8))
    for norm in again.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.fill_(3)
            norm.running_var.fill_(5)
    recalibrate(again, images().split(8))
    recalibrate(again, images().split(8))
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_modes_momenta_counters_hooks_and_weights_are_as_before():
    model = network()
    model.layer1.train()
    model.bn1.momentum = None
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" not in k}
    modes = [module.training for module in model.modules()]
    recalibrate(model, [images()])
    assert [module.training for module in model.modules()] == modes
    assert model.bn1.momentum is None
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_dropout_is_silent_and_norms_without_statistics_stay():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3), norm, nn.GroupNorm(1, 3))
    recalibrate(model, [images()])
    mean = images().transpose(0, 1).flatten(1).mean(1)
    torch.testing.assert_close(model[1].running_mean, mean, rtol=1e-5, atol=1e-6)


def test_what_gives_no_statistics_is_refused():
    with pytest.raises(ValueError, match="from no images"):
        recalibrate(network(), [])
    with pytest.raises(ValueError, match="norm 'bn1' reads values that are not finite"):
        recalibrate(network(), [images() / 0])


def test_prune_re_estimates_what_it_cut_and_ends_with_that(call, job):
    words = ["prune", *job.pruning, "--ratio", "0.5", "--epochs", "0"]
    plain = call("main.py", *words, "--recalibrate", "0", "--job_dir", "plain").json
    found = call("main.py", *words, "--recalibrate", "30", "--job_dir", "job").json
    again = call("main.py", *words, "--recalibrate", "30", "--job_dir", "again").json
    assert list(found["accuracy"]) == ["dense", "pruned", "recalibrated"]
    assert found["accuracy"] == again["accuracy"]
    assert found["accuracy"].items() >= plain["accuracy"].items()
    weights = [load_file(f"{name}/pruned.pt")["state_dict"] for name in ("plain", "job", "again")]
    changed = {name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])}
    assert changed and all("running_" in name for name in changed)
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])


@pytest.mark.parametrize("words", [("--ratio", "0"), ("--ratio", "0.5", "--init", "scratch")])
def test_what_nothing_was_cut_from_is_not_re_estimated(call, job, words):
    found = call("main.py", "prune", *job.pruning, *words, "--epochs", "0").json
    assert "recalibrated" not in found["accuracy"]
