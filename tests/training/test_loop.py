"""Training does what its recipe says, selects as it is told, and gives back what it borrows."""

import json
import re

import pytest
import torch
from torch.nn import functional as F

from tests.reference import REFERENCE, needs_reference
from tests.training.tiny_run import tiny_accuracy, tiny_batches, tiny_images, tiny_network
from utils.metrics.accuracy import Accuracy
from utils.runs.checkpoint import fill_model, load_file, state_dict_of, weights_of
from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog, read_log
from utils.training.loop import epoch_seed, fit, train_epoch
from utils.training.schedules import Recipe, learning_rate
from utils.training.steps import TrainingStep, make_optimizer


def fitted(tmp_path, model=None, **changes):
    settings = {
        "batches_of": tiny_batches,
        "steps": 4,
        "recipe": Recipe(epochs=3, lr=0.05),
        "evaluate": tiny_accuracy,
        "select_on": "val",
        "checkpoints": JobFolder(tmp_path),
    }
    return fit(model or tiny_network(), **settings | changes)


def step_of(model, **settings):
    recipe = Recipe(**{"epochs": 1, "lr": 0.1, **settings})
    return TrainingStep(model, make_optimizer(model, recipe), recipe)


def scripted(corrects):
    """Return an `evaluate` that pretends to measure these numbers of right answers."""
    answers = iter(corrects)
    return lambda model: {"val": Accuracy(next(answers), 10, 1.0), "test": Accuracy(1, 10, 2.0)}


def test_an_epoch_is_sgd_on_each_batch_once():
    images, labels = tiny_images(24, seed=0)
    batches = list(zip(images.split(8), labels.split(8), strict=True))
    model, reference = tiny_network().eval(), tiny_network().train()
    model[3].p = reference[3].p = 0.0
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    optimizer = torch.optim.SGD(reference.parameters(), **settings)
    losses, correct = [], 0
    for x, y in batches:
        loss = F.cross_entropy(reference(x), y, label_smoothing=0.2)
        correct += int((reference(x).argmax(1) == y).sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    outcome = train_epoch(step_of(model, label_smoothing=0.2, weight_decay=1e-3), batches)
    assert (outcome.correct, outcome.images) == (correct, 24)
    assert outcome.loss == pytest.approx(sum(losses) / 3)
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(parameter, expected)
    assert not any(module.training for module in model.modules())


@needs_reference
def test_label_smoothing_is_that_of_hrankplus():
    text = (REFERENCE / "interfaces.md").read_text()
    official = json.loads(re.search(r"Label-smoothing check .*?`(\{.*\})`", text)[1])
    logits, labels = torch.tensor(official["logits"]), torch.tensor(official["targets"])
    model = torch.nn.Linear(4, 4, bias=False)
    torch.nn.init.eye_(model.weight)
    outcome = train_epoch(step_of(model, label_smoothing=official["eps"]), [(logits, labels)])
    assert outcome.loss == pytest.approx(official["loss"], rel=1e-6)


def test_each_step_has_the_learning_rate_of_its_place_in_the_warm_up(tmp_path, monkeypatch):
    recipe, seen = Recipe(epochs=3, lr=0.05, warmup_epochs=2), []
    take_step = torch.optim.SGD.step

    def watched(optimizer, *args):
        seen.append(optimizer.param_groups[0]["lr"])
        return take_step(optimizer, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    result = fitted(tmp_path, recipe=recipe)
    assert seen == [
        learning_rate(recipe, epoch, step, 4) for epoch in range(3) for step in range(4)
    ]
    assert [record["lr"] for record in result.epochs] == seen[3::4]


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        train_epoch(step_of(tiny_network()), [])


def test_a_loss_that_is_not_finite_is_placed_and_keeps_the_last_good_files(tmp_path):
    folder = JobFolder(tmp_path)

    def batches_of(epoch, start):
        for step, (images, labels) in enumerate(tiny_batches(epoch, start), start):
            yield images * (float("inf") if (epoch, step) == (1, 2) else 1), labels

    expected = (
        "conv 03, epoch 2: the loss is not finite at step 3, and the first value that is not, "
        "going forward, is in the output of 0 (Conv2d): try a lower learning rate"
    )
    with RunLog(folder) as log, pytest.raises(ValueError, match=re.escape(expected)):
        fitted(tmp_path, batches_of=batches_of, log=log, stage="conv 03")
    assert load_file(folder.last)["epoch"] == 0
    assert all(value.isfinite().all() for value in load_file(folder.last)["state_dict"].values())
    assert len(read_log(folder.log)) == 1


@pytest.mark.parametrize(("select_on", "best_epoch"), [("val", 1), ("test", 0), ("last", 3)])
def test_the_best_is_the_first_with_so_many_right(tmp_path, select_on, best_epoch):
    states, folder = [], JobFolder(tmp_path)
    answers = scripted([3, 7, 7, 5])

    def evaluate(model):
        states.append(weights_of(model))
        return answers(model)

    recipe = Recipe(epochs=4, lr=0.05)
    result = fitted(tmp_path, recipe=recipe, evaluate=evaluate, select_on=select_on)
    assert result.best_epoch == best_epoch
    assert result.last["val"].correct == 5
    assert result.best["val"].correct == [3, 7, 7, 5][best_epoch]
    best = load_file(folder.best)
    assert best["epoch"] == best_epoch
    assert best["accuracy"]["val"] == {
        "correct": result.best["val"].correct,
        "images": 10,
        "loss": 1.0,
    }
    for key, value in states[best_epoch].items():
        assert torch.equal(best["state_dict"][key], value)


@pytest.mark.parametrize(
    ("select_on", "patience", "epochs"),
    [("val", 1, 3), ("val", 2, 6), ("val", 3, 7), ("val", None, 8), ("test", 2, 3)],
)
def test_patience_ends_with_so_many_epochs_since_the_best(tmp_path, select_on, patience, epochs):
    recipe = Recipe(epochs=8, lr=0.05, patience=patience)
    settings = {"recipe": recipe, "select_on": select_on}
    answers = [3, 7, 7, 8, 5, 8, 2, 1]  # of val; test is 1 throughout
    result = fitted(tmp_path, evaluate=scripted(answers), **settings)
    assert [record["val_correct"] for record in result.epochs] == answers[:epochs]
    again = fitted(tmp_path, batches_of=None, evaluate=None, **settings)
    assert (again.epochs, again.best) == (result.epochs, result.best)


def test_averaged_weights_are_evaluated_and_kept_as_the_best(tmp_path):
    folder, seen = JobFolder(tmp_path), []

    def evaluate(model):
        seen.append(weights_of(model))
        return tiny_accuracy(model)

    model, recipe = tiny_network(), Recipe(epochs=3, lr=0.05, ema=0.9)
    result = fitted(tmp_path, model, recipe=recipe, evaluate=evaluate)
    best, last = (load_file(path)["state_dict"] for path in (folder.best, folder.last))
    for key, value in seen[result.best_epoch].items():
        assert torch.equal(best[key], value)
    for key, value in model.state_dict().items():
        assert torch.equal(last[key], value)
    weights = {name for name, _ in model.named_parameters()}
    assert {key for key in last if not torch.equal(last[key], seen[-1][key])} == weights
    plain = fitted(tmp_path / "plain", recipe=Recipe(epochs=3, lr=0.05))
    losses = [
        [run.epochs[0][f"{name}_loss"] for run in (plain, result)] for name in ("train", "val")
    ]
    assert losses[0][0] == losses[0][1] and losses[1][0] != losses[1][1]


def test_an_accuracy_that_is_not_measured_cannot_select(tmp_path):
    with pytest.raises(ValueError, match="select_on is 'train': expected 'last' or val, test"):
        fitted(tmp_path, select_on="train")


def test_the_model_ends_with_the_last_weights_and_files_load_as_checkpoints(tmp_path):
    model, loaded = tiny_network(), tiny_network()
    fitted(tmp_path, model)
    for path in (JobFolder(tmp_path).best, JobFolder(tmp_path).last):
        fill_model(loaded, state_dict_of(load_file(path), path), path)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_random_numbers_and_modes_of_the_caller_come_back(tmp_path):
    model = tiny_network()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    fitted(tmp_path, model)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes


def test_the_outcome_does_not_depend_on_the_callers_random_numbers(tmp_path):
    outcomes = []
    for seed in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            outcomes.append(fitted(tmp_path / str(seed)).epochs)
    assert outcomes[0] == outcomes[1]


def test_records_hold_rates_and_accuracies_but_no_times(tmp_path):
    recipe = Recipe(epochs=3, lr=0.05, decay_epochs=(1,))
    folder = JobFolder(tmp_path)
    with RunLog(folder) as log:
        result = fitted(tmp_path, recipe=recipe, log=log, stage="conv 01", step_offset=3)
    assert result.epochs == read_log(folder.log)
    assert [record["lr"] for record in result.epochs] == [
        learning_rate(recipe, epoch) for epoch in range(3)
    ]
    measured = [f"{n}_{k}" for n in ("val", "test") for k in ("correct", "images", "loss")]
    expected = {"stage", "epoch", "lr", "train_loss", "train_top1_percent", *measured}
    assert set(result.epochs[0]) == expected | {"val_top1_percent", "test_top1_percent"}
    assert result.last["test"].correct == result.epochs[-1]["test_correct"]


def test_nothing_but_the_epochs_is_said_and_on_standard_error(tmp_path, capsys):
    fitted(tmp_path, stage="conv 03")
    out, err = capsys.readouterr()
    assert out == "" and "conv 03: epoch 3 of 3, loss " in err


def test_epoch_seeds_are_fixed_for_good_and_differ():
    assert epoch_seed(0, "", 0) == 737229042500301418
    places = [(s, stage, e) for s in range(5) for stage in ("", "a", "b") for e in range(50)]
    assert len({epoch_seed(*place) for place in places}) == len(places)
    assert all(0 <= epoch_seed(*place) < 2**63 for place in places)
