"""Average rank of each filter's feature map over images, all layers in one sweep."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from utils.graph.activation_sites import SiteValues
from utils.graph.call_sites import CallSite
from utils.graph.prunable import Site
from utils.rank.matrix_rank import map_ranks
from utils.runs import processes
from utils.runs.borrowed_state import evaluating


@dataclass(frozen=True)
class RankStatistics:
    """Ranks of one layer's feature maps, summed exactly over the images."""

    total: Tensor  # int64 [C], sum of ranks
    total_of_squares: Tensor  # int64 [C]
    images: int
    map_size: tuple[int, int]

    @property
    def mean(self) -> Tensor:
        """Average rank, float64 [C]: the filter's score (HRank, Eq. 5)."""
        return self.total.double() / self.images

    @property
    def variance(self) -> Tensor:
        """Population variance of the rank over the images, float64 [C]."""
        return self.total_of_squares.double() / self.images - self.mean**2


class _Totals:
    """Running sums of one site."""

    def __init__(self, site: Site, exact: bool):
        self.site, self.exact = site, exact
        self.total: Tensor | int = 0
        self.total_of_squares: Tensor | int = 0
        self.images = 0
        self.map_size = (0, 0)

    def add(self, maps: Tensor) -> Tensor:  # [N, C, H, W]
        """Rank the site's maps, add to the sums and return the ranks [N, C]."""
        try:
            ranks = map_ranks(maps, exact=self.exact)
        except ValueError as error:
            raise ValueError(f"layer {str(self.site)!r}: {error}") from None
        self.total = self.total + ranks.sum(0)
        self.total_of_squares = self.total_of_squares + (ranks * ranks).sum(0)
        self.images += len(maps)
        self.map_size = (maps.size(2), maps.size(3))
        return ranks

    def on_cpu(self) -> "_Totals":
        """Return the sums, now on the CPU."""
        if isinstance(self.total, Tensor):
            self.total, self.total_of_squares = self.total.cpu(), self.total_of_squares.cpu()
        return self


@torch.no_grad()
def estimate_ranks(
    model: nn.Module,
    sites: Iterable[Site],
    batches: Iterable[Tensor],
    *,
    exact: bool = False,
    after_layer: Callable[[Site, Tensor], None] | None = None,
) -> dict[Site, RankStatistics]:
    """Rank the feature maps of every site on all images, in one forward sweep.

    Args:
        batches: images [N, C, H, W], each batch on the model's device; of several processes, each
            has its own, and all get the statistics of all.
        exact: see `map_ranks`.
        after_layer: called with the site and its ranks int64 [N, C] after each layer of each batch.

    Returns:
        {site: statistics}; sums are integers, so they do not depend on how images are batched.

    Raises:
        ValueError: if there are no images, a site is no module of the model, a site does not run
            exactly once per image, or a feature map holds NaN or Inf; the message names the site.
    """
    totals = {site: _Totals(site, exact) for site in sites}
    images = 0

    def record(site: Site, maps: Tensor) -> None:
        ranks = totals[site].add(maps)
        if after_layer:
            after_layer(site, ranks)

    with evaluating(model), outputs_of(model, totals, record):
        for batch in batches:
            model(batch)
            images += len(batch)
    images = sum(processes.gathered(images))
    if images == 0:
        raise ValueError("cannot average ranks over no images")
    found = processes.gathered({site: sums.on_cpu() for site, sums in totals.items()})
    return {site: _statistics(site, [sums[site] for sums in found], images) for site in totals}


def _statistics(site: Site, parts: Sequence[_Totals], images: int) -> RankStatistics:
    """Return what the sums of all processes, some perhaps of no images, say together."""
    total = sum(part.total for part in parts)
    total_of_squares = sum(part.total_of_squares for part in parts)
    if not isinstance(total, Tensor):
        raise ValueError(f"layer {str(site)!r} did not run: expected a module that forward calls")
    ranked = sum(part.images for part in parts)
    if ranked != images:
        raise ValueError(
            f"layer {str(site)!r} gave {ranked} sets of feature maps for {images} "
            "images: expected a module that forward calls once"
        )
    return RankStatistics(total, total_of_squares, images, max(part.map_size for part in parts))


@contextmanager
def outputs_of(
    model: nn.Module, sites: Iterable[Site], record: Callable[[Site, Tensor], None]
) -> Iterator[None]:
    """Call `record(site, maps)` whenever a site's maps are made, while the context is open.

    Raises:
        ValueError: a site is no module of the model.
    """
    modules = dict(model.named_modules())
    called = [site for site in sites if site.call is not None]
    handles = _tell_values(model, called, record) if called else []
    try:
        for site in sites:
            if site.call is not None:
                continue
            if site.module not in modules:
                raise ValueError(f"layer {site.module!r}: the network has no module of that name")
            handles.append(
                modules[site.module].register_forward_hook(
                    lambda module, inputs, output, site=site: record(
                        site, output[:, site.start : site.stop]
                    )
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tell_values(
    model: nn.Module, sites: Sequence[Site], record: Callable[[Site, Tensor], None]
) -> list[RemovableHandle]:
    """Let every forward pass of the model record what the functions that the sites name give."""
    at: dict[CallSite, list[Site]] = {}
    for site in sites:
        at.setdefault(site.call, []).append(site)

    def tell(call: CallSite, value: Tensor) -> None:
        for site in at[call]:
            record(site, value[:, site.start : site.stop])

    values = SiteValues(model, at, tell)
    return [
        model.register_forward_pre_hook(lambda *_: values.__enter__() and None),
        model.register_forward_hook(lambda *_: values.__exit__(None, None, None), always_call=True),
    ]
