"""`rank_generation.py`: the average rank of every filter's feature map, written as rank files."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.commands.rank_report import report_rates, write_report
from utils.data.gpu_loader import batches, num_batches
from utils.data.images import ImageSource, check_enough, draw_images
from utils.graph.network import Network
from utils.graph.prunable import RankLayers, Site
from utils.options.devices import open_device
from utils.options.images import open_images
from utils.options.networks import open_prunable, outline_of
from utils.options.rank_options import RankConfig
from utils.planning.rank_choices import RankedImages
from utils.rank.estimation import RankStatistics, estimate_ranks
from utils.rank.matrix_rank import rank_method
from utils.rank.rank_files import check_not_lost, write_ranks
from utils.rank.rank_layers import layers_at
from utils.rank.rank_study import RankRecorder
from utils.reports.board import check_not_drawn, log_ranks
from utils.runs import processes
from utils.runs.atomic_write import check_writable
from utils.runs.bars import bar
from utils.runs.environment import environment
from utils.runs.notes import note
from utils.runs.stop_signals import stops_held, stops_leaving


def ranks_command(config: RankConfig) -> dict[str, Any]:
    """Rank every prunable conv of a network on the same images, and write the rank files.

    Returns:
        What was done: folder, number of layers, images and maps, mean rank per layer, seconds.

    Raises:
        ValueError: bad input; nothing is written then.
    """
    rates = report_rates(outline_of(config), config.compress_rate) if config.report else None
    if config.compress_rate and rates is None:
        note("--compress_rate has nothing to do here: the network is ranked before it is pruned")
    if config.limit and not config.augment:
        note("images: plain, so that ranks repeat; HRank's code crops and flips them, as --augment")
    device = open_device(config.device, config.gpu)
    network = open_prunable(config)
    _check_places(config, network.checkpoint_sha256)
    layers, model = layers_at(network, config.sites), network.model.to(device)
    pool = _chosen_images(config, network, device)
    images = pool.subset(range(config.images_wanted))
    recorder = RankRecorder() if config.report else None
    started = time.perf_counter()
    found = _with_bar(model, layers, images, config, recorder=recorder)
    seconds = time.perf_counter() - started
    provenance = _provenance(config, network, images, device)
    with stops_leaving(f"the rank files are written into {config.folder}"), stops_held():
        write_ranks(config.folder, layers.ranked(), found, provenance)
        _draw(config, model, layers, pool, found)
    result = {
        "arch": network.spec,
        "folder": str(config.folder),
        "files": len({layer.file for layer in layers.ranked()}),
        "images": len(images),
        "maps": sum(len(ranks.total) for ranks in found.values()) * len(images),
        "seconds": seconds,
        "layers": [
            {
                "conv": layer.conv,
                "site": str(layer.site),
                "map_size": list(found[layer.site].map_size),
                "mean_rank": float(found[layer.site].mean.mean()),
            }
            for layer in layers.ranked()
        ],
    }
    if rates is not None:
        folder = config.folder / "report"
        with stops_leaving(f"the rank files are written into {config.folder}, the report is not"):
            summary = write_report(
                folder,
                _rank_further(model, layers, pool, config, recorder=recorder),
                rates,
                layers=result["layers"],
                counts=config.report_images,
                batch_size=config.batch_size,
                provenance=provenance | {"environment": environment(device)},
            )
        result["report"] = {"folder": str(folder), **summary["overall"]}
    return result


def _rank_further(
    model: nn.Module,
    layers: RankLayers,
    pool: ImageSource,
    config: RankConfig,
    *,
    recorder: RankRecorder,
) -> RankedImages:
    """Rank the rest of the pool, which the report needs, and the images of the rank files varied.

    `recorder` holds the ranks of those already.
    """
    wanted, further = config.images_wanted, RankRecorder()
    _with_bar(model, layers, pool.subset(range(wanted, len(pool))), config, recorder=further)
    other_way = replace(config, augment=not config.augment)
    varied = _with_bar(model, layers, pool.subset(range(wanted)), other_way)
    first, rest = recorder.ranks(), further.ranks()
    return RankedImages(
        {x.conv: torch.cat([first[x.site], rest[x.site]]) for x in layers.scored_by_rank()},
        {x.conv: varied[x.site].mean for x in layers.scored_by_rank()},
        wanted,
    )


def _with_bar(
    model: nn.Module,
    layers: RankLayers,
    images: ImageSource,
    config: RankConfig,
    *,
    recorder: RankRecorder | None = None,
) -> dict[Site, RankStatistics]:
    """Rank all layers under a bar that counts a step for each layer of each batch."""
    sites, device = layers.sites(), next(model.parameters()).device
    own = processes.in_turn(range(num_batches(images, config.batch_size)))
    with bar(total=len(own) * len(sites), unit="layer", desc="ranks") as shown:

        def advance(site: Site, ranks: Tensor) -> None:
            if recorder is not None:
                recorder(site, ranks)
            shown.set_postfix_str(str(site), refresh=False)
            shown.update()

        chosen = _images_of(config, images, device)
        return estimate_ranks(model, sites, chosen, exact=config.exact, after_layer=advance)


def _provenance(
    config: RankConfig, network: Network, images: ImageSource, device: torch.device
) -> dict[str, Any]:
    """Return what the manifest says of how the ranks were made."""
    return {
        **network.named,
        "checkpoint_sha256": network.checkpoint_sha256,
        "dataset": images.name,
        "split": config.split,
        "sites": config.sites,
        "images": len(images),
        "augment": config.augment,
        "normalization": config.normalization,
        "seed": config.seed,
        "dtype": "float32",
        "method": rank_method(device, exact=config.exact),
        "device": str(device),
        "torch": torch.__version__,
    }


def _draw(
    config: RankConfig,
    model: nn.Module,
    layers: RankLayers,
    images: ImageSource,
    found: Mapping[Site, RankStatistics],
) -> None:
    """Draw the ranks, and the maps of the first image, where --tensorboard says so."""
    if config.tensorboard is None or not processes.is_first():
        return
    scored, device = layers.scored_by_rank(), next(model.parameters()).device
    scores = {layer.conv: found[layer.site].mean for layer in scored}
    ((image, _),) = batches(images.subset([0]), 1, config.normalization, device=device)
    log_ranks(config.tensorboard, model, scored, image, scores)


def _check_places(config: RankConfig, sha256: str | None) -> None:
    """Refuse folders that could not be written to, or would lose ranks, before minutes of it."""
    check_writable(config.folder)
    if not config.force:
        check_not_lost(config.folder, sha256)
    if config.tensorboard is not None:
        check_writable(config.tensorboard)
        check_not_drawn(config.tensorboard)


def _chosen_images(config: RankConfig, network: Network, device: torch.device) -> ImageSource:
    """Return the first `images_needed` images of the split, in an order drawn by the seed."""
    data = open_images(config, network, device)
    source = data.train if config.split == "train" else data.test
    report = " and to report on (see --report_images)" * config.report
    wanted = f"{config.images_needed} images to rank on{report}"
    check_enough(source, config.images_needed, wanted)
    return draw_images(source, config.images_needed, config.seed)


def _images_of(config: RankConfig, images: ImageSource, device: torch.device) -> Iterator[Tensor]:
    seed = config.seed if config.augment else None
    for chosen, _ in batches(
        images,
        config.batch_size,
        config.normalization,
        device=device,
        augment=config.augment,
        seed=seed,
        select=processes.in_turn,
    ):
        yield chosen


def ranks_text(result: dict[str, Any]) -> str:
    """Return the result of `ranks_command` for people."""
    rows = [
        f"{number:5d}  {row['conv']:22s}  {row['map_size'][0]:3d} x {row['map_size'][1]:<3d}"
        f"  {row['mean_rank']:9.3f}"
        for number, row in enumerate(result["layers"], start=1)
    ]
    header = f"{'layer':>5s}  {'conv':22s}  {'map':9s}  mean rank"
    report = f"report: {result['report']['folder']}/" if "report" in result else ""
    return "\n".join(
        [
            header,
            *rows,
            f"\n{result['files']} rank files in {result['folder']}/ from {result['images']} images"
            f" ({result['maps']:,} feature maps) in {result['seconds']:.1f} s",
            *filter(None, [report]),
        ]
    )
