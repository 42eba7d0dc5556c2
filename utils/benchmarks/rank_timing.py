"""What ranks cost: ways to find them timed side by side on the maps of a network's forward pass."""

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.prunable import Site
from utils.rank.estimation import estimate_ranks, outputs_of
from utils.rank.inertia import EPS32, UNDECIDED
from utils.rank.matrix_rank import Form, forms, map_ranks
from utils.runs.borrowed_state import evaluating

REFERENCE = "torch.linalg.matrix_rank, all maps of a layer"
LOOP = "the official loop: torch.linalg.matrix_rank, map by map"


@dataclass
class Timing:
    """Seconds of one way, a number per repeat, and how its ranks compare to REFERENCE's."""

    seconds: list[float]
    maps: int = 0
    mismatches: int = 0

    @property
    def microseconds_per_map(self) -> float:
        """Median over the repeats."""
        return 1e6 * statistics.median(self.seconds) / self.maps


@dataclass
class Benchmark:
    """All timings, by the way's name, of the same `maps` feature maps."""

    timings: dict[str, Timing]
    forward_seconds: list[float]  # of the forward pass alone, a number per repeat
    job_seconds: list[float]  # of `estimate_ranks`: forward pass, ranks and sums
    images: int = 0
    maps: int = 0
    undecided: dict[str, int] = field(default_factory=dict)  # form -> maps that were left to LAPACK


def ways(device: torch.device) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the ways to rank [N, C, H, W] by name; all but the first use torch's threads."""
    spectrum, nothing = Form(_gram_spectrum, 1 << 20), Form(_undecided, 1 << 20)
    found = {
        REFERENCE: torch.linalg.matrix_rank,
        "the same in threads": functools.partial(map_ranks, form=nothing),
        "float64 Gram matrix, eigvalsh": functools.partial(map_ranks, form=spectrum),
    }
    for name in forms(device):
        found[f"map_ranks ({name})"] = functools.partial(_map_ranks_by, name=name)
    return found


@torch.no_grad()
def benchmark(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Iterable[Tensor],
    *,
    repeats: int,
    loop_images: int,
) -> Benchmark:
    """Rank the maps at `sites` in all ways, interleaved, `repeats` times each.

    The official loop is slow: it ranks, once, the first `loop_images` of the images.
    """
    found = Benchmark({}, [0.0] * repeats, [0.0] * repeats)
    for images in batches:
        for repeat in range(repeats):
            with evaluating(model):
                found.forward_seconds[repeat] += _seconds(lambda images=images: model(images))[0]
            job = functools.partial(estimate_ranks, model, sites, [images])
            found.job_seconds[repeat] += _seconds(job)[0]
        with _maps_of(model, sites) as maps:
            model(images)
        _add_loop(found, maps, max(0, loop_images - found.images))
        _add_ways(found, maps, repeats)
        found.images += len(images)
    return found


@torch.no_grad()
def count_maps(model: nn.Module, sites: Sequence[Site], image: Tensor) -> int:
    """Return how many feature maps there are at the sites for one image [1, 3, H, W]."""
    with _maps_of(model, sites) as maps:
        model(image)
    return sum(layer.size(1) for layer in maps.values())


@contextmanager
def _maps_of(model: nn.Module, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
    """Yield {site: its latest maps}, of the model in eval mode."""
    maps: dict[Site, Tensor] = {}

    def keep(site: Site, output: Tensor) -> None:
        maps[site] = output.clone()  # the next module may work in place

    with evaluating(model), outputs_of(model, sites, keep):
        yield maps


def _add_ways(found: Benchmark, maps: Mapping[Site, Tensor], repeats: int) -> None:
    all_ways = ways(next(iter(maps.values())).device)
    count = sum(layer.shape[:2].numel() for layer in maps.values())
    found.maps += count
    reference: list[Tensor] = []
    for repeat in range(repeats):
        for name, rank in all_ways.items():
            timing = found.timings.setdefault(name, Timing([0.0] * repeats))
            seconds, ranks = _seconds(lambda rank=rank: [rank(layer) for layer in maps.values()])
            timing.seconds[repeat] += seconds
            if repeat == 0:
                reference = reference or ranks
                timing.maps += count
                timing.mismatches += _differing(ranks, reference)
    for layer in maps.values():
        for name, form in forms(layer.device, min(layer.shape[2:])).items():
            left = int((form.ranks(layer.flatten(0, 1).contiguous()) == UNDECIDED).sum())
            found.undecided[name] = found.undecided.get(name, 0) + left


def _add_loop(found: Benchmark, maps: Mapping[Site, Tensor], images: int) -> None:
    layers = [layer[:images] for layer in maps.values()]
    count = sum(layer.shape[:2].numel() for layer in layers)
    if count == 0:
        return
    timing = found.timings.setdefault(LOOP, Timing([0.0]))
    seconds, ranks = _seconds(lambda: [_one_by_one(layer) for layer in layers])
    timing.seconds[0] += seconds
    timing.maps += count
    timing.mismatches += _differing(ranks, [torch.linalg.matrix_rank(layer) for layer in layers])


def _seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long it takes, and what it returns."""
    start = time.perf_counter()
    result = action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def _differing(ranks: list[Tensor], reference: list[Tensor]) -> int:
    return sum(int((a != b).sum()) for a, b in zip(ranks, reference, strict=True))


def _one_by_one(layer: Tensor) -> Tensor:
    ranks = [[torch.linalg.matrix_rank(m).item() for m in image] for image in layer]
    return torch.tensor(ranks, device=layer.device)


def _map_ranks_by(layer: Tensor, *, name: str) -> Tensor:
    return map_ranks(layer, form=forms(layer.device, min(layer.shape[2:])).get(name))


def _gram_spectrum(maps: Tensor) -> Tensor:
    """Count the eigenvalues of A A^T above tau^2: not the law, which rounds to float32."""
    wide = maps.double()
    squares = torch.linalg.eigvalsh(wide @ wide.mT)  # ascending
    return (squares > (max(maps.shape[1:]) * EPS32) ** 2 * squares[:, -1:]).sum(1)


def _undecided(maps: Tensor) -> Tensor:
    return torch.full((len(maps),), UNDECIDED, device=maps.device)
