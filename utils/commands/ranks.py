"""`rank_generation.py`: the average rank of every filter's feature map, written as rank files."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from tqdm import tqdm

from models.rank_layers import rank_layers
from utils.commands.inputs import (
    DataOptions,
    DeviceOptions,
    NetworkOptions,
    checkpoint_of,
    open_dense_network,
    open_device,
    open_images,
)
from utils.data.gpu_loader import batches, num_batches
from utils.data.images import ImageSet
from utils.rank.estimation import RankStatistics, estimate_ranks
from utils.rank.rank_files import write_ranks
from utils.runs.checkpoint import sha256_of
from utils.runs.options import option


@dataclass(frozen=True)
class RankConfig(NetworkOptions, DataOptions, DeviceOptions):
    """Options of rank_generation.py."""

    num_images: int = option(500, "images to rank on", group="ranks")
    limit: int | None = option(
        None, "batches to rank on, instead of --num_images (official)", group="ranks"
    )
    batch_size: int = option(128, "images per batch", flags=("--train_batch_size",), group="ranks")
    split: str = option("train", "which images", choices=("train", "test"), group="ranks")
    augment: bool = option(
        False, "crop and flip the images, as the official code did", group="ranks"
    )
    output: Path | None = option(
        None, "folder for the rank files (default: rank_conv/ARCH[_limitN])", group="ranks"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_images", "limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}: expected at least 1")

    @property
    def images_wanted(self) -> int:
        """Number of images to rank on."""
        return self.num_images if self.limit is None else self.limit * self.batch_size

    @property
    def folder(self) -> Path:
        """Where the rank files go."""
        suffix = "" if self.limit is None else f"_limit{self.limit}"
        return self.output or Path("rank_conv") / f"{self.arch}{suffix}"


def ranks_command(config: RankConfig) -> dict[str, Any]:
    """Rank every prunable conv of a network on the same images, and write the rank files.

    Returns:
        What was done: folder, number of layers, images and maps, mean rank per layer, seconds.

    Raises:
        ValueError: bad input; nothing is written then.
    """
    layers = rank_layers(config.arch).layers
    _check_writable(config.folder)
    device = open_device(config.device, config.gpu)
    checkpoint = checkpoint_of(config)
    network = open_dense_network(config.arch, checkpoint, config.seed)
    model = network.model.to(device)
    images = _chosen_images(config, network.num_classes, device)
    started = time.perf_counter()
    found = _with_bar(model, images, config)
    seconds = time.perf_counter() - started
    write_ranks(config.folder, layers, found, _provenance(config, checkpoint, images))
    return {
        "arch": config.arch,
        "folder": str(config.folder),
        "files": len(layers),
        "images": len(images),
        "maps": sum(len(found[layer.site].total) for layer in layers) * len(images),
        "seconds": seconds,
        "layers": [
            {
                "conv": layer.conv,
                "site": layer.site,
                "map_size": list(found[layer.site].map_size),
                "mean_rank": float(found[layer.site].mean.mean()),
            }
            for layer in layers
        ],
    }


def _with_bar(model: nn.Module, images: ImageSet, config: RankConfig) -> dict[str, RankStatistics]:
    """Rank all layers under a bar that counts a step for each layer of each batch."""
    sites = [layer.site for layer in rank_layers(config.arch).layers]
    steps = num_batches(images, config.batch_size) * len(sites)
    with tqdm(total=steps, unit="layer", desc="ranks", mininterval=0.5) as bar:

        def advance(site: str) -> None:
            bar.set_postfix_str(site, refresh=False)
            bar.update()

        return estimate_ranks(model, sites, _images_of(config, images), after_layer=advance)


def _provenance(config: RankConfig, checkpoint: Path | None, images: ImageSet) -> dict[str, Any]:
    """Return what the manifest says of how the ranks were made."""
    return {
        "arch": config.arch,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "checkpoint_sha256": None if checkpoint is None else sha256_of(checkpoint),
        "dataset": images.name,
        "split": config.split,
        "images": len(images),
        "augment": config.augment,
        "normalization": config.normalization,
        "seed": config.seed,
        "dtype": "float32",
        "method": "torch.linalg.matrix_rank",
        "device": str(images.images.device),
        "torch": torch.__version__,
    }


def _check_writable(folder: Path) -> None:
    """Refuse a folder that could not be written to, before minutes of ranking."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"cannot write rank files into {folder} ({existing} is no folder to write to): "
            "expected a writable place"
        )


def _chosen_images(config: RankConfig, num_classes: int, device: torch.device) -> ImageSet:
    """Return the first `images_wanted` images of the split, in an order drawn by the seed."""
    data = open_images(config, config.arch, device, seed=config.seed, num_classes=num_classes)
    source = data.train if config.split == "train" else data.test
    if config.images_wanted > len(source):
        raise ValueError(
            f"{config.images_wanted} images to rank on: expected at most "
            f"the {len(source)} of {source.name!r}"
        )
    generator = torch.Generator().manual_seed(config.seed)
    return source.subset(torch.randperm(len(source), generator=generator)[: config.images_wanted])


def _images_of(config: RankConfig, images: ImageSet) -> Iterator[Tensor]:
    seed = config.seed if config.augment else None
    for chosen, _ in batches(
        images,
        config.batch_size,
        config.normalization,
        device=images.images.device,
        augment=config.augment,
        seed=seed,
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
    return "\n".join(
        [
            header,
            *rows,
            f"\n{result['files']} rank files in {result['folder']}/ from {result['images']} images"
            f" ({result['maps']:,} feature maps) in {result['seconds']:.1f} s",
        ]
    )
