"""`main.py scan`: accuracy against compress rate, one layer or one tied group at a time."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from tqdm import tqdm

from models.registry import example_images
from utils.data.images import ImageSource, check_enough, draw_images
from utils.graph.channel_graph import ChannelGraph
from utils.graph.groups import ChannelGroup
from utils.metrics.accuracy import Accuracy, accuracy_of, batch_sums, measure_accuracy
from utils.metrics.cost import Cost, physical_cost
from utils.options.inputs import (
    RESULTS,
    DataOptions,
    DeviceOptions,
    Images,
    NetworkOptions,
    checkpoint_of,
    open_dense_network,
    open_images,
)
from utils.options.weight_options import GranularityOptions
from utils.planning.plan import ScoreOptions, check_finite, how_scored, score_layers
from utils.pruning.compress_rates import num_removed
from utils.pruning.magnitude import WeightMasks, magnitude_mask, prunable_weights
from utils.pruning.sensitivity import (
    Masks,
    ScanPoint,
    macs_left,
    masks_at,
    read_points,
    run_masked,
    scan_units,
)
from utils.removal.masks import ChannelMasks, ParameterMasks
from utils.removal.network_file import Network
from utils.reports.scan_results import scan_summary, unit_name, write_scan
from utils.runs.checkpoint import sha256_of
from utils.runs.environment import environment
from utils.runs.job_folder import named_by, open_job
from utils.runs.log import RunLog
from utils.runs.options import as_dict, option

_PASSING = ("json", "job_dir", "device", "gpu", "workers", "force")  # they change no number
_DEFAULT_IMAGES = 1000
_CURVES = "top1_percent"  # in TensorBoard; a step is a thousandth of a rate


@dataclass(frozen=True)
class ScanConfig(ScoreOptions, GranularityOptions, NetworkOptions, DataOptions, DeviceOptions):
    """Options of `main.py scan`."""

    rates: tuple[float, ...] = option(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "compress rates (of weights: sparsities) to try on each layer, the others whole",
        group="scan",
    )
    group: bool = option(
        False,
        "prune layers that a sum ties together as one, at the mean of their scores",
        group="scan",
    )
    split: str = option(
        "val",
        "which images: train images that --select_on val holds out, too, or test images",
        choices=("val", "test"),
        group="scan",
    )
    val_fraction: float = option(0.1, "share of train that is held out for val", group="scan")
    num_images: int | None = option(
        None,
        f"images to answer (default: {_DEFAULT_IMAGES}, or as many as there are)",
        group="scan",
    )
    job_dir: Path | None = option(
        None, "folder of the run (default: result/ARCH/scan_..., named by the options)", group="run"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_other_granularity(shared=())
        if self.by_weight and self.group:
            raise ValueError("--group with --granularity weight: expected one of them")
        in_order = list(self.rates) == sorted(set(self.rates))
        if not self.rates or not in_order or not all(0 <= rate < 1 for rate in self.rates):
            given = ",".join(f"{rate:g}" for rate in self.rates)
            raise ValueError(
                f"--rates is {given!r}: expected ascending rates, at least 0 and less than 1"
            )
        if self.num_images is not None and self.num_images < 1:
            raise ValueError(f"--num_images is {self.num_images}: expected at least 1")


def scan_command(config: ScanConfig) -> dict[str, Any]:
    """Scan a network and return the summary that is also written to the folder.

    Called again with the same options it goes on where it was stopped.

    Raises:
        ValueError: bad input, or a folder that holds a run with other options.
    """
    checkpoint = checkpoint_of(config)
    dense = open_dense_network(config.arch, checkpoint, config.seed)
    sha256 = None if checkpoint is None else sha256_of(checkpoint)
    check_finite(dense)
    graph = dense.trace()
    scores = _scores(config, dense, graph, sha256)
    wanted = wanted_masks(config, graph, scores)
    held_out = config.val_fraction if config.split == "val" else None
    images = open_images(config, config.arch, num_classes=dense.num_classes, val_fraction=held_out)
    chosen, device = _chosen(config, images), images.device
    identity = scan_identity(config, sha256, wanted)
    folder = scan_folder(config, identity)
    with open_job(folder, identity) as job, RunLog(job) as log:
        scan = _Scan(dense.model.to(device), graph, images, chosen, config.by_weight)
        cost = physical_cost(scan.model, example_images(config.arch).to(device))
        accuracy = scan.accuracy()
        points = scan.points(wanted, cost, log, done=read_points(folder))
        if not job.summary_json.exists():
            log.scalars({f"{_CURVES}/dense": accuracy.top1_percent}, step=0)
        summary = {
            "command": "scan",
            "arch": config.arch,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "job_dir": str(folder),
            "dataset": chosen.name,
            **scan_summary(accuracy, cost, points),
            "options": identity,
            "environment": environment(device),
        }
        write_scan(job, summary)
    return summary


@dataclass(frozen=True)
class _Weights:
    """The weights of a layer, in the place of a group's channels."""

    layers: tuple[str]
    channels: range


# each unit, and its masks at each rate
Wanted = list[tuple[ChannelGroup | _Weights, dict[float, Masks]]]


def _scores(
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


def _chosen(config: ScanConfig, images: Images) -> ImageSource:
    """Return the images to answer, drawn from the split by the seed."""
    source = images.test if config.split == "test" else images.validation
    count = config.num_images or min(_DEFAULT_IMAGES, len(source))
    check_enough(source, count, f"--num_images is {count}")
    return draw_images(source, count, config.seed)


@dataclass(frozen=True)
class _Scan:
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
                    log.scalars({f"{_CURVES}/{number:03d} {name}": percent}, step)
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
