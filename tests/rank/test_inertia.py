"""What is certified is true, near the tolerance nothing is, and the bounds are what they say."""

from fractions import Fraction

import pytest
import torch

from utils.rank.inertia import EPS32, UNDECIDED, bounds, certified_ranks
from utils.rank.matrix_rank import forms

FORMS = forms(torch.device("cpu"))


@pytest.fixture(params=[form.ranks for form in FORMS.values()], ids=FORMS)
def certify(request):
    """Each form of certified_ranks on this machine."""
    return request.param


def with_singular_values(values, seed=0):
    """A float32 map that has them, up to rounding, [1, n, n]."""
    draw = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64}
    left, right = (torch.linalg.qr(torch.randn(len(values), len(values), **draw)).Q for _ in "ab")
    return (left * torch.tensor(values, dtype=torch.float64) @ right)[None].float()


def positive_pivots(matrix):
    """Pivots above zero in the elimination of a matrix of Fractions: Sylvester's count, exactly."""
    count = 0
    while matrix:
        pivot, *row = matrix[0]
        count += pivot > 0
        matrix = [
            [x - below[0] * y / pivot for x, y in zip(below[1:], row, strict=True)]
            for below in matrix[1:]
        ]
    return count


@pytest.mark.parametrize("seed", range(20))
def test_certified_ranks_are_the_pivots_of_exact_elimination(seed, certify):
    """tr G and |G|_F enclose sigma_max^2; all shifts between give one count, if it is certified."""
    generator = torch.Generator().manual_seed(seed)
    rank = int(torch.randint(1, 6, (), generator=generator))
    maps = torch.randn(5, rank, generator=generator) @ torch.randn(rank, 5, generator=generator)
    certified = int(certify(maps[None]))
    rows = [[Fraction(x) for x in row] for row in maps.tolist()]
    gram = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    tau_squared = (5 * Fraction(EPS32) * Fraction(float(torch.linalg.matrix_norm(maps, 2)))) ** 2
    shifted = [[x - tau_squared * (i == j) for j, x in enumerate(a)] for i, a in enumerate(gram)]
    assert certified == positive_pivots(shifted) == rank


@pytest.mark.parametrize("size", [5, 8, 16, 32, 112])
def test_a_singular_value_inside_the_guard_band_is_undecided_and_outside_it_is_not(size, certify):
    spectrum = [1.0, 0.9, 0.5, 0.1]
    for distance, rank in {-4.5: 4, 0.0: UNDECIDED, -2.5: UNDECIDED, 2.5: UNDECIDED}.items():
        values = [*spectrum, *[0.0] * (size - 5), (size + distance) * EPS32]
        wide = -size / 3 if rank == 4 else 0  # tr G and |G|_F enclose sigma_max loosely
        values[-1] += wide * EPS32
        assert int(certify(with_singular_values(values))) == rank, distance
    values[-1] = 2 * size * EPS32
    assert int(certify(with_singular_values(values))) in (UNDECIDED, 5)
    values[-1] = 4 * size * EPS32
    full = [1.0] * (size - 1) + [4 * size * EPS32 * size**0.25]
    assert int(certify(with_singular_values(full))) == size


@pytest.mark.parametrize("size", [6, 16])
def test_a_pivot_that_vanishes_decides_nothing_wrongly(size, certify):
    """The first pivot is |first row|^2 - s: of either sign, or 0, if that row is as long as tau."""
    generator = torch.Generator().manual_seed(size)
    maps = torch.randn(400, size, size, generator=generator)
    norms = torch.linalg.matrix_norm(maps, 2)
    wanted = (size + torch.linspace(-4, 4, 400)) * EPS32 * norms
    maps[:, 0] *= (wanted / maps[:, 0].norm(dim=1))[:, None]
    ranks = certify(maps)
    wrong = (ranks != torch.linalg.matrix_rank(maps)) & (ranks != UNDECIDED)
    assert not wrong.any() and (ranks == UNDECIDED).any()


def test_forms_decide_the_same_maps():
    maps = torch.randn(300, 12, 12, generator=torch.Generator().manual_seed(0)).relu()
    maps[:100, :, 3:] = 0
    maps[100:150] *= 1e-33
    found = [form.ranks(maps) for form in FORMS.values()]
    assert all(torch.equal(ranks, found[0]) for ranks in found)
    assert (found[0][100:150] == UNDECIDED).all() and (found[0][:100] == 3).all()


@pytest.mark.parametrize("size", [2, 4, 6, 8])
def test_lapack_stays_inside_the_guard_band(size):
    """Where its float32 singular values count another rank than exact ones, they are near tau."""
    draw = {"generator": torch.Generator().manual_seed(size), "dtype": torch.float64}
    left, right = (torch.linalg.qr(torch.randn(4000, size, size, **draw)).Q for _ in "ab")
    values = torch.rand(4000, size, **draw)
    values[:, 0] = 1
    values[:, -1] = (size + 8 * torch.rand(4000, **draw) - 4) * EPS32
    maps = (left * values[:, None] @ right).float()
    exact = torch.linalg.svdvals(maps.double())
    distance = exact[:, -1] / (EPS32 * exact[:, 0]) - size
    wrong = torch.linalg.matrix_rank(maps) != size - 1 + (distance > 0)
    guard = bounds(size).above ** 0.5 / EPS32 - size
    assert wrong.any() and float(distance[wrong].abs().max()) < guard


def test_columns_that_are_zero_prove_a_rank_as_rows_do(certify):
    maps = torch.randn(50, 8, 8, generator=torch.Generator().manual_seed(0))
    maps[:, :, [1, 4]] = 0
    assert (certify(maps) == 6).all() and (certify(maps.mT.contiguous()) == 6).all()


def test_the_law_is_certified_on_nearly_all_maps(certify):
    maps = torch.randn(2000, 8, 8, generator=torch.Generator().manual_seed(0)).relu()
    ranks = certify(maps)
    assert (ranks == UNDECIDED).float().mean() < 0.001
    assert torch.equal(certified_ranks(maps), ranks)
