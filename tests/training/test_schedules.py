"""Learning rates are those of torch's own schedulers and of HRankPlus; odd recipes are refused."""

import json
import re
from dataclasses import replace

import pytest
import torch

from tests.reference import REFERENCE, needs_reference
from utils.training.schedules import Recipe, learning_rate


def rates_of_torch(recipe, scheduler, **settings):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    schedule = scheduler(optimizer, **settings)
    rates = []
    for _ in range(recipe.epochs):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def rates_of(recipe):
    return [learning_rate(recipe, epoch) for epoch in range(recipe.epochs)]


def test_step_is_multi_step_lr():
    recipe = Recipe(epochs=12, lr=0.01, decay_epochs=(5, 10), decay_factor=0.2)
    scheduler = torch.optim.lr_scheduler.MultiStepLR
    expected = rates_of_torch(recipe, scheduler, milestones=[5, 10], gamma=0.2)
    assert rates_of(recipe) == pytest.approx(expected, rel=1e-12)
    assert rates_of(recipe)[4:6] == [0.01, 0.01 * 0.2]


def test_cosine_is_cosine_annealing_lr():
    recipe = Recipe(epochs=9, lr=0.1, schedule="cosine")
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR
    assert rates_of(recipe) == pytest.approx(rates_of_torch(recipe, scheduler, T_max=9))


def test_exponential_is_exponential_lr():
    recipe = Recipe(epochs=9, lr=0.1, schedule="exponential")
    scheduler = torch.optim.lr_scheduler.ExponentialLR
    assert rates_of(recipe) == pytest.approx(rates_of_torch(recipe, scheduler, gamma=0.96))


@needs_reference
@pytest.mark.parametrize(
    ("lr_type", "schedule"),
    [("step", "step"), ("cos", "cosine"), ("exp", "exponential"), ("fixed", "constant")],
)
def test_warm_up_and_fall_are_those_of_hrankplus(lr_type, schedule):
    """At the epochs and steps (of 100) where the official function was run."""
    section = (REFERENCE / "interfaces.md").read_text().partition("ImageNet lr values")[2]
    official = json.loads(re.search(r"```json\n(.*?)```", section, re.DOTALL)[1])[lr_type]
    recipe = Recipe(
        epochs=90, lr=0.1, schedule=schedule, decay_epochs=(30, 60, 80), warmup_epochs=5
    )
    assert len(official) > 10
    for place, expected in official.items():
        epoch, step = map(int, place.split(","))
        assert learning_rate(recipe, epoch, step, 100) == pytest.approx(expected, rel=1e-12), place


@pytest.mark.parametrize("schedule", ["step", "constant"])
def test_warm_up_is_a_straight_line_to_where_the_fall_begins(schedule):
    cold = Recipe(epochs=9, lr=0.1, schedule=schedule, decay_epochs=(7,))
    warm = replace(cold, warmup_epochs=2)
    rising = [learning_rate(warm, epoch, step, 10) for epoch in (0, 1) for step in range(10)]
    assert rising == pytest.approx([0.1 * number / 20 for number in range(1, 21)])
    assert rates_of(warm)[2:] == rates_of(cold)[2:]


def test_constant_stays():
    recipe = Recipe(epochs=3, lr=0.1, schedule="constant", decay_epochs=(1,))
    assert rates_of(recipe) == [0.1] * 3


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 0, "at least 1"),
        ("lr", 0.0, "a number above 0"),
        ("lr", float("nan"), "a number above 0"),
        ("batch_size", 0, "at least 1"),
        ("momentum", 1.0, "0 <= momentum < 1"),
        ("weight_decay", -1e-4, "0 or more"),
        ("schedule", "linear", "one of .*step.*cosine.*constant"),
        ("decay_epochs", (10, 5), "increasing"),
        ("decay_epochs", (0, 5), "1 or more"),
        ("decay_factor", 0.0, "above 0, at most 1"),
        ("label_smoothing", 1.0, "0 <= label_smoothing < 1"),
        ("warmup_epochs", 3, "0 or more, less than the 3 epochs"),
        ("warmup_epochs", -1, "0 or more"),
        ("clip_norm", 0.0, "a number above 0"),
        ("clip_norm", float("nan"), "a number above 0"),
        ("accumulate", 0, "at least 1"),
        ("patience", 0, "at least 1"),
        ("ema", 1.0, "0 <= ema < 1"),
        ("distill_weight", 1.5, "0 <= distill_weight <= 1"),
        ("distill_temperature", 0.0, "a number above 0"),
        ("amp", "float16", "one of .*auto.*off.*bfloat16"),
        ("channels_last", "yes", "one of .*auto.*off.*on"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(name, value, expected):
    with pytest.raises(ValueError, match=f"{name} is .*: expected .*{expected}"):
        Recipe(**{"epochs": 3, "lr": 0.1, name: value})
