"""The options of training reach the run, for a baseline as for a fine-tuning."""

import json
from pathlib import Path

import pytest
import torch

from utils.options.prune_options import PruneConfig
from utils.options.train_options import TrainConfig
from utils.runs.checkpoint import load_file
from utils.runs.options import parse
from utils.training.published import RECIPES, recipe_values, training_values

pytestmark = pytest.mark.usefixtures("quick")

RATES = ("--compress_rate", "[0.3]*7")


@pytest.mark.parametrize("dataset", ["cifar10", "imagenet"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_the_options_of_both_commands_and_flags_beside_it_stand(name, dataset):
    words = ["--recipe", name, "--dataset", dataset, "--lr", "0.07", "--arch", "resnet_8"]
    for kind, more, values in (
        (TrainConfig, [], training_values(name, dataset)),
        (PruneConfig, RATES, recipe_values(name, dataset)),
    ):
        config = parse(kind, [*words, *more], prog="", description="")
        assert {option: getattr(config, option) for option in values} == {**values, "lr": 0.07}


def test_a_baseline_is_trained_by_the_modern_recipe_with_averaged_weights(call, job):
    words = ["--recipe", "modern", "--epochs", "6", "--patience", "1", "--train_batch_size", "8"]
    words += ["--ema", "0.9", "--accumulate", "2", "--clip_norm", "5", "--amp", "bfloat16"]
    words += ["--channels_last", "on", "--job_dir", "baseline"]
    found = call("main.py", "train", *job.data, *words).json
    options = json.loads(Path("baseline/config.json").read_text())
    expected = training_values("modern", "folder", 6) | {"epochs": 6, "train_batch_size": 8}
    expected |= {"lr_decay_step": [], "ema": 0.9, "accumulate": 2, "amp": "bfloat16"}
    assert {name: options[name] for name in expected} == expected
    lines = Path("baseline/log.jsonl").read_text().splitlines()
    assert len(lines) == found["epochs_trained"]
    assert found["epochs_trained"] in (found["best_epoch"] + 1, 6)
    best = load_file("baseline/checkpoints/best.pt")["state_dict"]
    last = load_file("baseline/checkpoints/last.pt")["state_dict"]
    assert list(best) == list(last)
    assert not torch.equal(best["conv1.weight"], last["conv1.weight"])
    checkpoint = call("main.py", "evaluate", *job.data, "--resume", found["checkpoint"]).json
    assert checkpoint["correct"] == found["best"]["test"]["correct"]


@pytest.mark.parametrize("more", [[], ["--mode", "mask", "--schedule", "layerwise"]])
def test_the_dense_network_teaches_the_pruned_one(call, job, more):
    rates = ("--compress_rate", "[0.3]*2+[0.]*4+[0.5]") if more else RATES
    words = ["prune", *job.pruning, *rates, *more]
    teaching = ["--distill", "--distill_weight", "1", "--job_dir", "taught"]
    taught = call("main.py", *words, *teaching).json
    alone = call("main.py", *words, "--job_dir", "alone").json
    assert json.loads(Path("taught/config.json").read_text())["distill"] is True
    assert taught["accuracy"]["dense"] == alone["accuracy"]["dense"]
    losses = {
        json.loads(Path(folder, "log.jsonl").read_text().splitlines()[0])["train_loss"]
        for folder in ("taught", "alone")
    }
    assert len(losses) == 2
    if more:  # what is masked stays zero, teacher or not
        weight = load_file("taught/pruned.pt")["state_dict"]["conv1.weight"]
        assert (weight.flatten(1).abs().amax(1) == 0).sum() == int(0.3 * len(weight))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--patience", "3", "--select_on", "last"], "--patience is 3 and --select_on 'last'"),
        (["--ema", "1"], "ema is 1.0: expected 0 <= ema < 1"),
        (["--val_fraction", "1"], "validation fraction: expected more than 0, less than 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(call, job, words, expected):
    outcome = call("main.py", "train", *job.data, *words, "--job_dir", "job")
    assert (outcome.code, outcome.out) == (2, "") and expected in outcome.err
    assert not Path("job").exists()
    pruning = ["prune", *job.pruning, *RATES, "--distill_temperature", "0"]
    assert "distill_temperature is 0.0: expected" in call("main.py", *pruning, "--distill").err
    alone = "--distill_temperature is 0.0 without --distill: expected both"
    assert alone in call("main.py", *pruning).err
