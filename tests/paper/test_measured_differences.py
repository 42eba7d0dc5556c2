"""Which runs are ahead: differences and intervals, checked by hand."""

import pytest

from tests.paper.made_up_runs import write_run
from utils.metrics.accuracy import Accuracy
from utils.metrics.intervals import difference_interval_percent
from utils.paper.measured_differences import (
    difference,
    families,
    fine_tuned_likewise,
    not_told_apart,
)
from utils.paper.measured_runs import grouped, read_runs


@pytest.fixture
def groups(tmp_path):
    """Rank and l1 over three seeds and two, random with another seed, the dense network."""
    for seed, correct in enumerate((8000, 8010, 8050)):
        write_run(tmp_path, f"rank_{seed}", correct=correct, seed=seed)
    for seed, correct in enumerate((8040, 8090)):
        write_run(tmp_path, f"l1_{seed}", correct=correct, seed=seed, criterion="l1")
    write_run(tmp_path, "random", correct=8015, seed=7, criterion="random")
    write_run(tmp_path, "unpruned", correct=8900, removed=False)
    write_run(tmp_path, "other_recipe", correct=9100, removed=False, lr=0.5)
    return {group.first.treatment: group for group in in_order(tmp_path)}


def accuracy(correct: int) -> Accuracy:
    return Accuracy(correct, 10_000, 0.0)


def in_order(folder):
    return [group for group in grouped(read_runs(folder)) if group.first.options["lr"] == 0.02]


def test_common_seeds_are_paired(groups):
    # l1 - rank: 0.40 and 0.80 points; mean 0.6, standard deviation 0.2828, t = 12.706
    found = difference(groups["l1"], groups["rank"])
    assert found.points == pytest.approx(0.6)
    assert found.intervals == {
        "seeds": pytest.approx((-1.9412, 3.1412), abs=1e-3),
        "images": difference_interval_percent(accuracy(8065), accuracy(8005)),  # means of both
    }
    assert not found.told_apart


def test_seeds_that_agree_do_not_stand_for_other_images(tmp_path):
    """15 to 17 answers of 10,000 more at every seed: sure of these images, of no others."""
    for seed, (correct, more) in enumerate(((7963, 17), (7963, 16), (7942, 15))):
        write_run(tmp_path, f"rank_{seed}", correct=correct, seed=seed)
        write_run(tmp_path, f"l1_{seed}", correct=correct + more, seed=seed, criterion="l1")
    l1, rank = in_order(tmp_path)
    found = difference(l1, rank)
    assert found.intervals["seeds"][0] > 0 > found.intervals["images"][0]
    assert not found.told_apart and str(found).startswith("+0.16 (+0.1")


def test_of_one_common_seed_that_run_is_taken(groups):
    found = difference(groups["nothing removed"], groups["rank"])
    expected = difference_interval_percent(accuracy(8900), accuracy(8000))
    assert found.points == pytest.approx(9) and found.intervals == {"images": expected}
    assert found.told_apart


def test_without_a_common_seed_the_first_runs_are_taken(groups):
    found = difference(groups["random"], groups["rank"])
    assert found.points == pytest.approx(0.15) and found.intervals.keys() == {"images"}


def test_the_dense_network_counts_only_where_it_was_trained_likewise(groups):
    every = list(groups.values())
    dense = groups["nothing removed"]
    assert fine_tuned_likewise(groups["rank"], every) is dense
    assert fine_tuned_likewise(dense, every) is None
    assert fine_tuned_likewise(groups["rank"], [groups["l1"]]) is None


def test_equal_rates_and_recipe_make_a_family(groups):
    (family,) = families(list(groups.values()))
    assert {group.first.treatment for group in family} == {
        *("nothing removed", "l1", "rank", "random"),
    }


def test_other_widths_and_recipes_are_not_compared(tmp_path):
    write_run(tmp_path, "rank", correct=8000)
    write_run(tmp_path, "longer", correct=8000, epochs=9)
    assert [len(family) for family in families(in_order(tmp_path))] == [1, 1]


def test_layer_by_layer_stands_beside_at_once_with_as_many_epochs_in_all(tmp_path):
    write_run(tmp_path, "at_once", correct=8000, epochs=6)
    write_run(tmp_path, "by_layer", correct=8300, schedule="layerwise", epochs_trained=6)
    write_run(tmp_path, "longer", correct=8300, schedule="layerwise", epochs_trained=8)
    found = families(in_order(tmp_path))
    treatments = [[group.first.treatment for group in family] for family in found]
    assert treatments == [["rank", "rank, layer by layer"], ["rank, layer by layer"]]


def test_ranks_of_another_folder_are_named(tmp_path):
    write_run(tmp_path, "own", correct=8000)
    write_run(tmp_path, "other", correct=8000, rank_conv="rank_conv/resnet_20_sites_conv")
    (family,) = families(in_order(tmp_path))
    assert [group.first.treatment for group in family] == [
        *("rank", "rank of resnet_20_sites_conv"),
    ]


def test_pairs_that_are_not_told_apart_are_named(groups):
    three = [groups[name] for name in ("nothing removed", "l1", "rank")]
    assert not_told_apart(three) == "Not told apart: l1 (3) from rank (5)."
    assert not_told_apart(three[:2]) == "All are told apart."
    assert not_told_apart(three[:1]) == ""
