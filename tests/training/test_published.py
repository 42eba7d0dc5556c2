"""The recipes hold the settings that were published, and a trainer can follow each."""

import re

import pytest

from tests.reference import REFERENCE, needs_reference
from utils.training.published import RECIPES, recipe_values, training_values
from utils.training.schedules import SCHEDULES


def official_rows() -> dict[str, list[str]]:
    """Return {row: [HRank, HRankPlus on CIFAR, HRankPlus on ImageNet]} of the reference's table."""
    section = (REFERENCE / "interfaces.md").read_text().partition("## 6. Training schedule")[2]
    rows = re.findall(r"^\| (.*) \|$", section.partition("CIFAR transforms")[0], re.MULTILINE)
    return {first: cells for first, *cells in (row.split(" | ") for row in rows)}


@needs_reference
@pytest.mark.parametrize(
    ("column", "name", "dataset"),
    [(0, "hrank", "cifar10"), (0, "hrank", "imagenet"), (1, "hrankplus", "cifar10")]
    + [(2, "hrankplus", "imagenet")],
)
def test_recipes_are_the_published_ones(column, name, dataset):
    rows, values = official_rows(), recipe_values(name, dataset)
    procedure, optimizer = rows["procedure"][column], rows["optimizer"][column]
    procedure = rows["procedure"][1] if procedure == "same" else procedure
    assert values["schedule"] == ("layerwise" if "layer by layer" in procedure else "oneshot")
    readme = re.search(r"README: (\d+)", rows["epochs"][column])
    assert values["epochs"] == int(readme[1] if readme else rows["epochs"][column])
    assert values["train_batch_size"] == int(rows["batch train/test"][column].split(" / ")[0])
    lr, momentum, decay = re.search(r"lr ([\d.]+), mom ([\d.]+), wd (\de-\d)", optimizer).groups()
    assert values["lr"] == float(lr)
    assert values["momentum"] == float(momentum)
    assert values["weight_decay"] == float(decay)
    smoothing = re.search(r"label smoothing ([\d.]+)", rows["loss"][column])
    assert values["label_smoothing"] == (float(smoothing[1]) if smoothing else 0)
    assert "test" in rows["selection"][column] and values["select_on"] == "test"
    if column < 2:
        epochs = re.search(r"x0\.1 at (?:epochs )?([\d,]+)", rows["lr"][column])[1]
        assert values["lr_decay_step"] == tuple(map(int, epochs.split(",")))


def test_no_choice_of_the_modern_recipe_is_made_on_test_images():
    for dataset in ("cifar10", "imagenet"):
        values = recipe_values("modern", dataset)
        assert (values["select_on"], values["lr_schedule"]) == ("val", "cosine")
        assert values["warmup_epochs"] > 0 and values["label_smoothing"] == 0.1


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_takes_all_of_a_recipe_but_what_is_of_pruning(name):
    for dataset in ("cifar10", "imagenet"):
        whole = recipe_values(name, dataset)
        of_pruning = {option: whole[option] for option in ("schedule", "recalibrate")}
        assert training_values(name, dataset) | of_pruning == whole
        assert not of_pruning.keys() & training_values(name, dataset).keys()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dataset", ["cifar10", "imagenet"])
def test_a_warm_up_takes_at_most_a_quarter_of_the_epochs_and_never_more_than_its_own(name, dataset):
    own = recipe_values(name, dataset)
    assert recipe_values(name, dataset, own["epochs"]) == own
    for epochs in range(1, own["epochs"]):
        values = recipe_values(name, dataset, epochs)
        assert values["warmup_epochs"] == min(own["warmup_epochs"], epochs // 4)
        assert values | {"warmup_epochs": own["warmup_epochs"]} == own


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_sets_the_same_options(name):
    recipes = [values for by_dataset in RECIPES.values() for values in by_dataset.values()]
    for values in RECIPES[name].values():
        assert values.keys() == recipes[0].keys()
        assert values["lr_schedule"] in SCHEDULES
        assert values["warmup_epochs"] < values["epochs"]
