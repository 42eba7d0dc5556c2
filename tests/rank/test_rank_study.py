"""The noise of mean ranks: subsets of recorded ranks, cuts, common filters, order."""

from itertools import combinations
from statistics import fmean

import pytest
import torch

from models.registry import build_model
from tests.several_processes import values_of
from utils.graph.prunable import Site
from utils.options.networks import outline
from utils.rank.estimation import estimate_ranks
from utils.rank.rank_study import (
    RankRecorder,
    find_cut,
    mean_ranks,
    mean_ranks_by_batch,
    num_common,
    num_common_by_chance,
    order_correlation,
    standard_errors,
)
from utils.runs import processes


def random_ranks(images, filters, seed=0):
    """Ranks [images, filters] around a level of each filter's own, as sums of two draws."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 12, (filters,), generator=generator)
    noise = torch.randint(0, 9, (images, filters), generator=generator)
    return (levels + noise).to(torch.int16)


def highest(scores, count):
    """The `count` filters that score highest, bool [C]."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.sort(stable=True).indices[len(scores) - count :]] = True
    return kept


@pytest.mark.parametrize(("start", "stop"), [(0, 6), (0, 2), (1, 5), (4, 6)])
def test_ranking_some_images_is_a_part_of_ranking_all(start, stop):
    torch.manual_seed(0)
    model, sites = build_model("resnet_8"), outline("resnet_8").layers.sites()
    images = torch.randn(6, 3, 32, 32)
    recorder = RankRecorder()
    estimate_ranks(model, sites, images.split(1), after_layer=recorder)
    alone = estimate_ranks(model, sites, images[start:stop].split(1))
    assert recorder.ranks().keys() == alone.keys()
    for site, ranks in recorder.ranks().items():
        assert torch.equal(mean_ranks(ranks[start:stop]), alone[site].mean)


def recorded(size: int):
    """The ranks of 11 images at two sites, batch by batch, as this process has a turn."""
    recorder, ranks = RankRecorder(), random_ranks(11, 5)
    for batch in processes.in_turn(ranks.split(size)):
        recorder(Site("first"), batch)
        recorder(Site("second"), -batch)
    return {site: ranks.tolist() for site, ranks in recorder.ranks().items()}


@pytest.mark.parametrize("size", [2, 4, 11])  # 11: only one process has a batch
def test_processes_that_rank_in_turn_record_what_one_records(tmp_path, size):
    assert values_of(3, tmp_path, recorded, size) == [recorded(size)] * 3


def test_the_mean_of_whole_batches_is_the_mean_of_their_images():
    ranks = random_ranks(12, 5)
    assert torch.equal(mean_ranks_by_batch(ranks, 12)[0], mean_ranks(ranks))
    by_batch = mean_ranks_by_batch(ranks, 5)  # the last 2 images fill no batch
    assert torch.equal(by_batch, torch.stack([mean_ranks(ranks[:5]), mean_ranks(ranks[5:10])]))
    torch.testing.assert_close(mean_ranks_by_batch(ranks, 4).mean(0), mean_ranks(ranks))


def test_the_standard_error_is_how_far_scores_of_many_draws_spread():
    draws = torch.randint(0, 9, (400, 50, 6), generator=torch.Generator().manual_seed(0))
    spread = torch.stack([mean_ranks(ranks) for ranks in draws]).std(0)  # [6]
    errors = torch.stack([standard_errors(ranks) for ranks in draws])  # [400, 6]
    torch.testing.assert_close(errors.mean(0), spread, rtol=0.15, atol=0)


def slow_cut(ranks, kept):
    """The cut as its definition spells it, one pair of filters and one image at a time."""
    rows, filters = ranks.tolist(), range(ranks.size(1))
    score = [fmean(row[c] for row in rows) for c in filters]
    removed = max((c for c in filters if not kept[c]), key=lambda c: score[c])
    lowest = min((c for c in filters if kept[c]), key=lambda c: score[c])

    def noisy(high, low):
        differences = [row[high] - row[low] for row in rows]
        mean = fmean(differences)
        variance = sum((d - mean) ** 2 for d in differences) / (len(rows) - 1)
        return mean <= 2 * (variance / len(rows)) ** 0.5

    undecided = sum(noisy(c, removed) if kept[c] else noisy(lowest, c) for c in filters)
    return score[lowest] - score[removed], noisy(lowest, removed), undecided


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("images", [3, 30])
def test_a_cut_is_what_its_definition_says(images, seed):
    ranks = random_ranks(images, 20, seed)
    kept = highest(mean_ranks(ranks), 5 + seed)
    gap, inside_noise, undecided = slow_cut(ranks, kept)
    cut = find_cut(ranks, kept)
    assert cut.gap == pytest.approx(gap, abs=1e-12)
    assert (cut.inside_noise, cut.undecided) == (inside_noise, undecided)
    assert cut.tied == (cut.gap == 0)
    assert kept[cut.lowest_kept] and not kept[cut.highest_removed]


def test_noise_that_both_filters_share_does_not_blur_their_cut():
    shared = torch.randint(0, 20, (100, 1), generator=torch.Generator().manual_seed(0))
    ranks = torch.cat([shared, shared + 1], 1)
    cut = find_cut(ranks, torch.tensor([False, True]))
    assert (cut.gap, cut.standard_error, cut.inside_noise, cut.undecided) == (1, 0, False, 0)


def test_a_tie_is_inside_the_noise_whether_ranks_vary_or_not():
    kept = torch.tensor([False, True])
    for ranks in (torch.full((4, 2), 8), torch.tensor([[1, 2], [2, 1]])):
        cut = find_cut(ranks, kept)
        assert (cut.tied, cut.inside_noise, cut.undecided) == (True, True, 2)


def test_a_whole_layer_has_no_cut():
    assert find_cut(random_ranks(5, 3), torch.ones(3, dtype=torch.bool)) is None


def test_a_choice_has_all_filters_in_common_with_itself_and_none_with_the_others():
    kept = highest(torch.arange(9.0), 4)
    assert num_common(kept, kept) == 4
    assert num_common(kept, ~kept) == 0


@pytest.mark.parametrize(("kept", "filters"), [(1, 1), (2, 5), (3, 6)])
def test_chance_is_the_average_over_all_choices(kept, filters):
    first = set(range(kept))
    shared = [len(first & set(other)) for other in combinations(range(filters), kept)]
    assert num_common_by_chance(kept, filters) == pytest.approx(fmean(shared))


def slow_order_correlation(scores, other):
    """Pearson's correlation of positions in sorted order, ties at the mean of their positions."""

    def positions(values):
        ordered = sorted(values)
        places = {v: fmean(i for i, w in enumerate(ordered) if w == v) for v in values}
        return torch.tensor([places[v] for v in values], dtype=torch.float64)

    return float(torch.corrcoef(torch.stack([positions(scores), positions(other)]))[0, 1])


@pytest.mark.parametrize("seed", range(4))
def test_order_correlation_is_that_of_the_positions(seed):
    first, second = mean_ranks(random_ranks(3, 12, seed)), mean_ranks(random_ranks(2, 12, seed + 9))
    found = order_correlation(first, second)
    assert found == pytest.approx(slow_order_correlation(first.tolist(), second.tolist()))
    assert found == pytest.approx(order_correlation(second, first))


def test_order_alone_counts():
    scores = torch.tensor([3.0, 1.0, 2.0, 2.0])
    assert order_correlation(scores, scores.exp()) == pytest.approx(1)
    assert order_correlation(scores, -scores) == pytest.approx(-1)
    assert order_correlation(scores, torch.ones(4)) is None
