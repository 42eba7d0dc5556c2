"""Scanning a network: each layer or tied group pruned alone, and what is then right."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from tqdm import tqdm

from utils.data.images import ImageSource, check_enough, draw_images
from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import ChannelGroup
from utils.metrics.accuracy import Accuracy, accuracy_of, batch_sums, measure_accuracy
from utils.metrics.cost import Cost
from utils.options.images import Images
from utils.options.networks import RESULTS
from utils.options.scan_options import DEFAULT_IMAGES, ScanConfig
from utils.options.score_options import how_scored
from utils.planning.plan import score_layers
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
from utils.removal.network_file import Network
from utils.runs.job_folder import named_by
from utils.runs.log import RunLog
from utils.runs.options import as_dict

_PASSING = ("json", "job_dir", "device", "gpu", "workers", "force")  # they change no number


CURVES = "top1_percent"  # in TensorBoard; a step is a thousandth of a rate


@dataclass(frozen=True)
class _Weights:
    """The weights of a layer, in the place of a group's channels."""

    layers: tuple[str]
    channels: range


# each unit, and its masks at each rate
Wanted = list[tuple[ChannelGroup | _Weights, dict[float, Masks]]]


def layer_scores(
    config: ScanConfig, dense: Network, graph: ChannelGraph, sha256: str | None
) -> dict[str, Tensor]:
    """Return {layer: what the lowest go by}: a score of each filter, or each weight's magnitude."""
    if config.by_weight:
        weights = prunable_weights(dense.model)
        return {layer: weight.abs() for layer, weight in weights.items()}
    return score_layers(dense, graph, **how_scored(config, sha256))


def wanted_masks(config: ScanConfig, graph: ChannelGraph, scores: Mapping[str, Tensor]) -> Wanted:
    """Return each unit that a scan prunes alone, with its masks at each of the rates."""
    if config.by_weight:
        return [
            (
                _Weights((layer,), range(magnitudes.numel())),
                {rate: {layer: magnitude_mask(magnitudes, rate)} for rate in config.rates},
            )
            for layer, magnitudes in scores.items()
        ]
    filters = graph.filters()
    return [
        (unit, {rate: masks_at(unit, scores, filters, rate) for rate in config.rates})
        for unit in scan_units(graph, scores, across_sums=config.group)
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

    model: nn.Module
    graph: ChannelGraph
    images: Images
    chosen: ImageSource
    by_weight: bool

    def accuracy(self) -> Accuracy:
        """Return the accuracy of the whole network."""
        return measure_accuracy(self.model, self.images.evaluation_batches(self.chosen))

    def points(
        self, wanted: Wanted, cost: Cost, log: RunLog, *, done: Sequence[ScanPoint]
    ) -> list[ScanPoint]:
        """Measure the points that are not done yet, log each, and return all in order."""
        found = {(point.layers, point.rate): point for point in done}
        total = sum(len(masks) for _, masks in wanted)
        with tqdm(total=total, initial=len(found), unit="point", desc="scan") as bar:
            for number, (unit, masks) in enumerate(wanted, start=1):
                name = unit_name(unit.layers)
                bar.set_postfix_str(name)
                missing = {r: m for r, m in masks.items() if (unit.layers, r) not in found}
                for point in self._measure(unit, missing, cost) if missing else ():
                    percent = 100 * point.correct / point.images
                    step = round(1000 * point.rate)  # a step is a whole number
                    log.scalars({f"{CURVES}/{number:03d} {name}": percent}, step)
                    log.epoch(asdict(point))
                    found[point.layers, point.rate] = point
                    bar.update()
        return [found[unit.layers, rate] for unit, masks in wanted for rate in masks]

    def _measure(
        self, unit: ChannelGroup | _Weights, masks_of: Mapping[float, Masks], cost: Cost
    ) -> list[ScanPoint]:
        """Return the unit's points at the rates of {rate: masks}, measured side by side."""
        totals = [torch.zeros(4, dtype=torch.float64) for _ in masks_of]

        def add(k: int, logits: Tensor, labels: Tensor) -> None:
            totals[k] = totals[k].to(labels.device) + batch_sums(logits, labels)

        batches = self.images.evaluation_batches(self.chosen)
        applied = [self._applied(masks) for masks in masks_of.values()]
        run_masked(self.model, self.graph, applied, batches, add)
        points = []
        for (rate, masks), total in zip(masks_of.items(), totals, strict=True):
            accuracy, channels = accuracy_of(total), len(unit.channels)
            points.append(
                ScanPoint(
                    layers=unit.layers,
                    rate=rate,
                    channels=channels,
                    **self._removed(num_removed(rate, channels), masks, cost),
                    correct=accuracy.correct,
                    images=accuracy.images,
                    loss=accuracy.loss,
                )
            )
        return points

    def _applied(self, masks: Masks) -> ParameterMasks:
        if self.by_weight:
            return WeightMasks(self.model, masks)
        return ChannelMasks(self.model, self.graph, masks)

    def _removed(self, channels: int, masks: Masks, cost: Cost) -> dict[str, int]:
        """Return how much goes; zeroed weights shrink no tensor."""
        gone = sum(int((~mask).sum()) for mask in masks.values())
        if self.by_weight:
            return {"removed": gone, "filters_removed": 0, "macs_removed": 0}
        macs = {layer.name: layer.macs for layer in cost.layers}
        left = macs_left(self.model, self.graph, macs, masks)
        return {
            "removed": channels,
            "filters_removed": gone,
            "macs_removed": cost.macs - left,
        }


def scan_identity(config: ScanConfig, sha256: str | None, wanted: Wanted) -> dict[str, Any]:
    """Return what makes a scan the same: its options, the network, and the filters that go."""
    digest = hashlib.sha256()
    for masks in (masks for _, at in wanted for masks in at.values()):
        for mask in masks.values():
            digest.update(mask.numpy().tobytes())
    return {
        "command": "scan",
        **as_dict(config, without=_PASSING),
        "checkpoint_sha256": sha256,
        "masks_sha256": digest.hexdigest(),
    }


def scan_folder(config: ScanConfig, identity: Mapping[str, Any]) -> Path:
    """Return the folder of the scan: the one given, else one that its identity names."""
    what = "weight" if config.by_weight else config.criterion
    name = f"scan_{what}{'_group' * config.group}"
    return config.job_dir or RESULTS / config.arch / named_by(name, identity)
