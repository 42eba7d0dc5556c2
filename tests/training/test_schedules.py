"""Learning rates are those of torch's own schedulers, and recipes out of range are refused."""

import pytest
import torch

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
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(name, value, expected):
    with pytest.raises(ValueError, match=f"{name} is .*: expected .*{expected}"):
        Recipe(**{"epochs": 3, "lr": 0.1, name: value})
