"""Batched ranks are the ranks of one map at a time, on maps that are hard to rank."""

import re

import pytest
import torch

from utils.rank.inertia import EPS32, UNDECIDED
from utils.rank.matrix_rank import Form, forms, map_ranks, rank_method

CPU = torch.device("cpu")
FORMS = {
    **forms(CPU),
    "none, all left to LAPACK": Form(lambda m: torch.full((len(m),), UNDECIDED), 1),
}

SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (5, 9), (33, 3), (8, 8), (32, 32)]


def one_at_a_time(maps):
    return torch.tensor([[int(torch.linalg.matrix_rank(m)) for m in image] for image in maps])


def of_rank(rank, size, seed=0):
    """Random maps [4, 6, H, W] that are products of H x rank and rank x W."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(4, 6, size[0], rank, generator=generator)
    return left @ torch.randn(4, 6, rank, size[1], generator=generator)


def hard_maps(size):
    """{what is hard: maps [4, 6, H, W]}"""
    rank = max(1, min(size) // 2)
    full = of_rank(min(size), size)
    maps = {
        "zero": torch.zeros(4, 6, *size),
        "constant": torch.full((4, 6, *size), 0.37),
        "full rank": full,
        "half the rank": of_rank(rank, size),
        "mostly zero": (full - full.std()).relu(),
        "small integers": torch.randint(-2, 3, (4, 6, *size), generator=torch.manual_seed(0)),
        "float16": full.half(),
        "float64": of_rank(rank, size).double() * (1 + 1e-9),
        "channels last": full.contiguous(memory_format=torch.channels_last),
        "transposed": full.mT.contiguous().mT,
    }
    for scale in (1e-44, 1e-39, 1e-30, 1e-10, 1e10, 1e30):
        maps[f"scale {scale}"] = of_rank(rank, size) * scale
    return maps


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def form(request):
    """Each way there is on this machine to prove ranks."""
    return request.param


@pytest.mark.parametrize("size", SIZES)
def test_batching_changes_no_rank(size, form):
    for name, maps in hard_maps(size).items():
        ranks = map_ranks(maps, form=form)
        assert ranks.dtype == torch.int64 and ranks.shape == (4, 6)
        assert torch.equal(ranks, one_at_a_time(maps.float())), name


def test_neighbours_in_the_batch_change_no_rank():
    maps = torch.cat([m[:1].float() for m in hard_maps((8, 8)).values()])
    alone = torch.cat([map_ranks(image[None]) for image in maps])
    assert torch.equal(map_ranks(maps), alone)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e30])
@pytest.mark.parametrize("size", SIZES)
def test_the_rank_is_the_number_of_independent_rows_at_any_scale(size, scale):
    for rank in {0, 1, min(size) // 2, min(size)}:
        row = torch.arange(size[0]) % max(rank, 1)
        maps = torch.eye(size[0], size[1])[row] * scale if rank else torch.zeros(size)
        assert map_ranks(maps.expand(2, 3, *size)).tolist() == [[rank] * 3] * 2


def around_tolerance(size, distance, count=300, seed=0):
    """Maps [count, 1, *size] with half of their singular values within distance * eps of tau."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    shorter = min(size)
    left, right = (torch.linalg.qr(torch.randn(count, n, shorter, **draw)).Q for n in size)
    values = torch.rand(count, shorter, **draw).sort(1, descending=True).values
    values[:, 0] = 1
    near = max(size) + distance * (2 * torch.rand(count, shorter // 2, **draw) - 1)
    values[:, shorter - shorter // 2 :] = near * EPS32
    return (left * values[:, None] @ right.mT).float()[:, None]


@pytest.mark.parametrize("size", [(2, 2), (3, 3), (4, 4), (3, 9), (8, 5), (16, 16), (32, 32)])
@pytest.mark.parametrize("distance", [0.5, 2, 5, 30])
def test_the_law_holds_where_singular_values_lie_around_the_tolerance(size, distance, form):
    maps = around_tolerance(size, distance)
    assert torch.equal(map_ranks(maps, form=form)[:, 0], torch.linalg.matrix_rank(maps)[:, 0])


@pytest.mark.parametrize("size", [(4, 4), (8, 5), (16, 16)])
def test_exact_ranks_count_float64_singular_values(size, form):
    maps = around_tolerance(size, 3)
    values = torch.linalg.svdvals(maps.double())
    counts = (values > max(size) * EPS32 * values[..., :1]).sum(-1)
    assert torch.equal(map_ranks(maps, exact=True, form=form), counts)
    assert not torch.equal(counts, torch.linalg.matrix_rank(maps))  # the case is a hard one


@pytest.mark.parametrize("seed", range(10))
def test_the_law_holds_on_random_structure(seed, form):
    """Ranks, scales of rows, zeros and repeated rows drawn at random, in all map sizes."""
    generator = torch.Generator().manual_seed(seed)
    height, width, rank = (int(torch.randint(1, 20, (), generator=generator)) for _ in range(3))
    maps = torch.randn(40, 3, height, rank, generator=generator)
    maps = maps @ torch.randn(40, 3, rank, width, generator=generator)
    maps *= 10 ** (-8 * torch.rand(40, 1, height, 1, generator=generator))
    maps = maps.relu() if seed % 2 else maps
    maps[::2] *= torch.rand(20, 3, height, width, generator=generator) < 0.3
    maps[::3] = maps[::3, :, torch.randint(0, height, (height,), generator=generator)]
    assert torch.equal(map_ranks(maps, form=form), torch.linalg.matrix_rank(maps))


@pytest.mark.parametrize("size", [(56, 56), (112, 112), (65, 112)])
def test_the_law_holds_for_large_maps(size, form):
    maps = torch.cat([of_rank(rank, size)[:1] for rank in (5, 40, min(size))])
    assert torch.equal(map_ranks(maps, form=form), torch.linalg.matrix_rank(maps))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_rank_and_come_back(threads, form):
    maps = torch.cat([m.float() for m in hard_maps((8, 8)).values()])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ranks = map_ranks(maps, form=form._replace(chunk_bytes=1000))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(ranks, torch.linalg.matrix_rank(maps))


def test_the_method_says_who_decides():
    first = next(iter(forms(CPU)))
    assert rank_method(CPU) == (
        f"inertia of float64 Gram matrices ({first}); torch.linalg.matrix_rank near the tolerance"
    )
    assert "float64 singular values near" in rank_method(CPU, exact=True)


def test_a_singular_value_counts_if_it_exceeds_the_tolerance():
    tolerance = 4 * torch.finfo(torch.float32).eps  # of a 4 x 4 map whose largest one is 1
    maps = torch.stack([torch.diag(torch.tensor([1, 1, t, 0])) for t in (0.9, 1.1)])
    maps[:, 2, 2] *= tolerance
    assert map_ranks(maps[None]).tolist() == [[2, 3]]


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_no_maps_have_no_ranks_and_empty_maps_have_rank_zero(shape):
    ranks = map_ranks(torch.zeros(shape))
    assert ranks.dtype == torch.int64
    assert torch.equal(ranks, torch.zeros(shape[:2], dtype=torch.int64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 9), (9, 9)])
def test_nan_and_inf_are_counted_in_the_error(value, size, form):
    maps = torch.ones(2, 3, *size)
    maps[0, 1, -1], maps[1, 2, 0, 0] = value, value
    message = f"feature maps: {size[1] + 1} of {maps.numel()} values are NaN or Inf"
    with pytest.raises(ValueError, match=message):
        map_ranks(maps, form=form)


def test_a_value_that_float32_cannot_hold_is_an_error():
    maps = torch.full((1, 1, 2, 2), 1e300, dtype=torch.float64)
    with pytest.raises(ValueError, match="4 of 4 values are NaN or Inf"):
        map_ranks(maps)


@pytest.mark.parametrize("shape", [[4, 4], [3, 4, 4], [1, 2, 3, 4, 4]])
def test_another_number_of_dimensions_is_an_error(shape):
    with pytest.raises(ValueError, match=re.escape(f"expected [N, C, H, W], got {shape}")):
        map_ranks(torch.zeros(shape))


def test_ranking_leaves_the_maps_as_they_are():
    maps = of_rank(2, (5, 4))
    before = maps.clone()
    map_ranks(maps)
    assert torch.equal(maps, before)
