"""Scanning a network: each layer or tied group pruned alone, and what is then right."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.data.images import ImageSource, check_enough, draw_images
from utils.graph.groups import ChannelGroup
from utils.graph.network import Network
from utils.metrics.accuracy import Accuracy, accuracy_of, batch_sums, measure_accuracy
from utils.metrics.cost import Cost
from utils.options.images import Images
from utils.options.networks import results_of
from utils.options.scan_options import DEFAULT_IMAGES, ScanConfig
from utils.options.score_options import how_scored
from utils.planning.plan import check_finite, score_layers
from utils.pruning.compress_rates import num_removed
from utils.pruning.magnitude import WeightMasks, magnitude_mask, prunable_weights
from utils.pruning.sensitivity import (
    Masks,
    ScanPoint,
    macs_left,
    masks_at,
    run_masked,
    scan_units,
    unit_name,
)
from utils.removal.masks import ChannelMasks, ParameterMasks
from utils.runs.bars import bar
from utils.runs.job_folder import JobFolder, named_by
from utils.runs.log import RunLog
from utils.runs.options import as_dict
from utils.training.recalibration import recalibrate, statistics_kept, statistics_of

CURVES = "top1_percent"  # in TensorBoard; a step is a thousandth of a rate
_PASSING = ("json", "job_dir", "device", "gpu", "workers", "force")  # they change no number


@dataclass(frozen=True)
class _Weights:
    """The weights of a layer, in the place of a group's channels."""

    layers: tuple[str]
    channels: range


class _Recalibrated(ParameterMasks):
    """Masks, and the statistics of norms that read something else under them."""

    def __init__(self, masks: ParameterMasks, statistics: Sequence[tuple[Tensor, Tensor]]):
        super().__init__()
        self.masks, self.statistics = masks, statistics

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (*self.masks.parameters, *(buffer for buffer, _ in self.statistics))

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        before = [buffer.clone() for buffer, _ in self.statistics]
        with self.masks.applied():
            try:
                for buffer, value in self.statistics:
                    buffer.copy_(value)
                yield
            finally:
                for (buffer, _), value in zip(self.statistics, before, strict=True):
                    buffer.copy_(value)


# each unit, and its masks at each rate
Wanted = list[tuple[ChannelGroup | _Weights, dict[float, Masks]]]


@dataclass(frozen=True)
class ScanPlan:
    """What a scan tries on a dense network: each unit that is pruned alone, its masks at rates."""

    config: ScanConfig
    dense: Network
    wanted: Wanted

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes a scan the same: its options, the network, and the filters that go."""
        digest = hashlib.sha256()
        for masks in (masks for _, at in self.wanted for masks in at.values()):
            for mask in masks.values():
                digest.update(mask.numpy().tobytes())
        return {
            "command": "scan",
            **as_dict(self.config, without=_PASSING),
            "checkpoint_sha256": self.dense.checkpoint_sha256,
            "masks_sha256": digest.hexdigest(),
        }

    @property
    def folder(self) -> Path:
        """The folder of the scan: the one given, else one that its identity names."""
        config = self.config
        what = "weight" if config.by_weight else config.criterion
        name = f"scan_{what}{'_group' * config.group}"
        return config.job_dir or results_of(self.dense) / named_by(name, self.identity)


def plan_scan(
    config: ScanConfig, dense: Network, scores: Mapping[str, Tensor] | None = None
) -> ScanPlan:
    """Plan what a scan tries; `scores` are those of the filters, where they are known already.

    Raises:
        ValueError: weights that are NaN or Inf, or what `score_layers` refuses.
    """
    if config.by_weight:
        check_finite(dense)
        return ScanPlan(config, dense, _of_weights(config, dense))
    scores = scores or score_layers(dense, **how_scored(config))
    filters = dense.graph.filters()
    units = scan_units(dense.graph, scores, across_sums=config.group)
    wanted = [
        (unit, {rate: masks_at(unit, scores, filters, rate) for rate in config.rates})
        for unit in units
    ]
    return ScanPlan(config, dense, wanted)


def _of_weights(config: ScanConfig, dense: Network) -> Wanted:
    return [
        (
            _Weights((layer,), range(weight.numel())),
            {rate: {layer: magnitude_mask(weight.abs(), rate)} for rate in config.rates},
        )
        for layer, weight in prunable_weights(dense.model).items()
    ]


def chosen_images(config: ScanConfig, images: Images) -> ImageSource:
    """Return the images to answer, drawn from the split by the seed."""
    source = images.test if config.split == "test" else images.validation
    count = config.num_images or min(DEFAULT_IMAGES, len(source))
    check_enough(source, count, f"--num_images is {count}")
    return draw_images(source, count, config.seed)


@dataclass(frozen=True)
class Scanning:
    """A dense network, and the images that it answers, whole and masked."""

    plan: ScanPlan
    images: Images
    chosen: ImageSource

    @property
    def model(self) -> nn.Module:
        """The dense network, on the images' device."""
        return self.plan.dense.model

    def accuracy(self) -> Accuracy:
        """Return the accuracy of the whole network."""
        return measure_accuracy(self.model, self.images.evaluation_batches(self.chosen))

    def points(self, cost: Cost, log: RunLog, *, done: Sequence[ScanPoint]) -> list[ScanPoint]:
        """Measure the points that are not done yet, log each, and return all in order.

        Raises:
            ValueError: a point that is done is none of this scan's.
        """
        wanted = self.plan.wanted
        found = {(point.layers, point.rate): point for point in done}
        known = {(unit.layers, rate) for unit, masks in wanted for rate in masks}
        for layers, rate in found.keys() - known:
            raise ValueError(
                f"{JobFolder(self.plan.folder).log} has a point of {unit_name(layers)!r} at the "
                f"rate {rate:g}: expected points of this scan alone"
            )
        total = sum(len(masks) for _, masks in wanted)
        with bar(total=total, initial=len(found), unit="point", desc="scan") as shown:
            for number, (unit, masks) in enumerate(wanted, start=1):
                name = unit_name(unit.layers)
                shown.set_postfix_str(name, refresh=False)
                missing = {r: m for r, m in masks.items() if (unit.layers, r) not in found}
                for point in self._measure(unit, missing, cost) if missing else ():
                    percent = 100 * point.correct / point.images
                    step = round(1000 * point.rate)  # a step is a whole number
                    log.scalars({f"{CURVES}/{number:03d} {name}": percent}, step)
                    log.epoch(asdict(point))
                    found[point.layers, point.rate] = point
                    shown.update()
        return [found[unit.layers, rate] for unit, masks in wanted for rate in masks]

    def _measure(
        self, unit: ChannelGroup | _Weights, masks_of: Mapping[float, Masks], cost: Cost
    ) -> list[ScanPoint]:
        """Return the unit's points at the rates of {rate: masks}, measured side by side."""
        applied = [self._applied(masks) for masks in masks_of.values()]
        measured = self._answers(applied)
        recalibrated: list[Accuracy | None] = [None] * len(applied)
        if self.plan.config.recalibrate:
            recalibrated = self._answers([self._recalibrated(masks) for masks in applied])
        points = []
        found = zip(masks_of.items(), measured, recalibrated, strict=True)
        for (rate, masks), accuracy, again in found:
            channels = len(unit.channels)
            points.append(
                ScanPoint(
                    layers=unit.layers,
                    rate=rate,
                    channels=channels,
                    **self._removed(num_removed(rate, channels), masks, cost),
                    correct=accuracy.correct,
                    images=accuracy.images,
                    loss=accuracy.loss,
                    recalibrated_correct=again and again.correct,
                    recalibrated_loss=again and again.loss,
                )
            )
        return points

    def _answers(self, applied: Sequence[ParameterMasks]) -> list[Accuracy]:
        """Return the accuracy under each of the masks."""
        totals = [torch.zeros(4, dtype=torch.float64) for _ in applied]

        def add(k: int, logits: Tensor, labels: Tensor) -> None:
            totals[k] = totals[k].to(labels.device) + batch_sums(logits, labels)

        batches = self.images.evaluation_batches(self.chosen)
        run_masked(self.model, self.plan.dense.graph, applied, batches, add)
        return [accuracy_of(total) for total in totals]

    @cached_property
    def _whole(self) -> dict[str, Tensor]:
        """The norms' statistics of the whole network, on the images for recalibration."""
        return self._statistics()

    def _statistics(self) -> dict[str, Tensor]:
        """Return the norms' statistics, re-estimated of the model as it is."""
        config = self.plan.config
        with statistics_kept(self.model):
            batches = self.images.recalibration_batches(config.recalibrate, config.seed)
            recalibrate(self.model, batches)
            return statistics_of(self.model)

    def _recalibrated(self, masks: ParameterMasks) -> "_Recalibrated":
        whole = self._whole
        with masks.applied():
            found = self._statistics()
        changed = {name for name, value in found.items() if not torch.equal(value, whole[name])}
        return _Recalibrated(masks, [(self.model.get_buffer(x), found[x]) for x in sorted(changed)])

    def _applied(self, masks: Masks) -> ParameterMasks:
        if self.plan.config.by_weight:
            return WeightMasks(self.model, masks)
        return ChannelMasks(self.model, self.plan.dense.graph, masks)

    def _removed(self, channels: int, masks: Masks, cost: Cost) -> dict[str, int]:
        """Return how much goes; zeroed weights shrink no tensor."""
        gone = sum(int((~mask).sum()) for mask in masks.values())
        if self.plan.config.by_weight:
            return {"removed": gone, "filters_removed": 0, "macs_removed": 0}
        macs = {layer.weight: layer.macs for layer in cost.layers}
        left = macs_left(self.model, self.plan.dense.graph, macs, masks)
        return {
            "removed": channels,
            "filters_removed": gone,
            "macs_removed": cost.macs - left,
        }
