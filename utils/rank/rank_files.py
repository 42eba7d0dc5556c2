"""Rank files: `rank_conv/<arch>/rank_conv<i>.npy` and their `manifest.json`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.graph.prunable import RankLayer, Site
from utils.rank.estimation import RankStatistics
from utils.runs.atomic_write import write_array, write_json
from utils.runs.checkpoint import sha256_of

MANIFEST = "manifest.json"


def write_ranks(
    folder: Path,
    layers: Iterable[RankLayer],
    statistics: Mapping[Site, RankStatistics],
    provenance: Mapping[str, Any],
) -> None:
    """Write the float32 `.npy` files of the layers (the official names), then the manifest.

    `statistics` maps each layer's site to its ranks; layers may share one site, and one file.
    `provenance` goes into the manifest as it is.
    The manifest says "unfinished" until all files are written: ranks of two runs never pass for
    those of one.
    """
    write_json(folder / MANIFEST, {"unfinished": True})
    entries = []
    for layer in layers:
        found = statistics[layer.site]
        write_array(folder / layer.file, found.mean.numpy().astype(np.float32))
        entries.append(
            {
                "file": layer.file,
                "sha256": sha256_of(folder / layer.file),
                "conv": layer.conv,
                "site": str(layer.site),
                "map_size": list(found.map_size),
                "mean": found.mean.tolist(),
                "variance": found.variance.tolist(),
            }
        )
    write_json(folder / MANIFEST, {**provenance, "layers": entries})


def read_ranks(
    folder: Path, arch: str, layers: Iterable[RankLayer], filters: Mapping[str, int]
) -> dict[str, Tensor]:
    """Read the average rank of every filter: {conv: float32 [filters]}.

    A folder without a manifest (the official ones) is accepted. A manifest says which file a conv's
    ranks are in; without one it is the layer's own.

    Args:
        filters: {conv: number of filters} that the files must fit.

    Raises:
        ValueError: naming the file, if it is missing or unreadable, has another length than the
            conv, or holds a value that is no rank; or if the manifest speaks of another network
            or of ranks that were not written to the end.
    """
    if not folder.is_dir():
        raise ValueError(
            f"rank folder {folder} does not exist: expected rank_conv<i>.npy files, "
            f"which `python rank_generation.py --arch {arch}` writes, of the same checkpoint "
            "(--resume) and on images that it was trained on (--dataset, --data_dir, "
            "--normalization)"
        )
    manifest = read_manifest(folder)
    if manifest is not None and manifest.get("unfinished"):
        raise ValueError(
            f"rank folder {folder} is unfinished, its writing was interrupted: expected all files "
            f"of one run of `python rank_generation.py --arch {arch}`"
        )
    if manifest is not None and manifest.get("arch") != arch:
        raise ValueError(
            f"rank folder {folder} was made for {manifest.get('arch')!r}: expected {arch!r}"
        )
    entries = _entries_by_conv(folder, manifest)
    return {
        x.conv: _read_file(folder, entries.get(x.conv, {"file": x.file}), x.conv, filters[x.conv])
        for x in layers
    }


def _entries_by_conv(folder: Path, manifest: Mapping[str, Any] | None) -> dict[str, dict[str, str]]:
    """Return {conv: {"file": ..., "sha256": ...}} as the manifest has it, nothing without one."""
    try:
        return {
            entry["conv"]: {"file": Path(entry["file"]).name, "sha256": entry.get("sha256")}
            for entry in (manifest or {})["layers"]
        }
    except KeyError:
        return {}
    except TypeError:
        raise ValueError(
            f"{folder / MANIFEST}: expected `layers` as this program writes them"
        ) from None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the folder's manifest, or None where there is none.

    Raises:
        ValueError: if it is no JSON object.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"{path} holds a {type(manifest).__name__}: expected a JSON object")
    return manifest


def _read_file(folder: Path, entry: Mapping[str, str], conv: str, filters: int) -> Tensor:
    path = folder / entry["file"]
    try:
        with path.open("rb") as file:
            ranks = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"rank file {path} is missing: expected ranks of {conv!r}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"rank file {path} cannot be read as a .npy array: {error}") from None
    if ranks.shape != (filters,):
        raise ValueError(
            f"rank file {path} holds shape {list(ranks.shape)}: "
            f"expected [{filters}], one value per filter of {conv!r}"
        )
    if not np.issubdtype(ranks.dtype, np.floating) or not np.all(np.isfinite(ranks) & (ranks >= 0)):
        raise ValueError(f"rank file {path} holds a value that is no rank: expected floats >= 0")
    if entry.get("sha256") not in (None, sha256_of(path)):
        raise ValueError(f"rank file {path} is not the one that {MANIFEST} speaks of: it changed")
    return torch.from_numpy(ranks.astype(np.float32))
