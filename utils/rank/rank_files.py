"""Rank files: `rank_conv/<arch>/rank_conv<i>.npy` and their `manifest.json`."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from utils.graph.prunable import RankLayer, Site
from utils.rank.estimation import RankStatistics
from utils.runs.atomic_write import write_array, write_json
from utils.runs.checkpoint import sha256_of
from utils.runs.choices import SITES
from utils.runs.json_files import read_json
from utils.runs.regular_file import check_regular, is_there
from utils.runs.schema import FLAG, TEXT, Nullable, Optional, one_of, whole

MANIFEST = "manifest.json"
_SCHEMA = {  # of the fields that are read
    "arch": Optional(TEXT),
    "unfinished": Optional(FLAG),
    "checkpoint": Optional(Nullable(TEXT)),
    "checkpoint_sha256": Optional(Nullable(TEXT)),
    "normalization": Optional(TEXT),
    "sites": Optional(one_of(*SITES)),
    "layers": Optional(
        [
            {
                "conv": TEXT,
                "file": Optional(TEXT),
                "sha256": Optional(Nullable(TEXT)),
                "map_size": Optional([whole(1)]),
            }
        ]
    ),
}


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
    folder: Path, spec: str, layers: Iterable[RankLayer], filters: Mapping[str, int]
) -> dict[str, Tensor]:
    """Read the average rank of every filter: {conv: float32 [filters]}.

    A folder without a manifest (the official ones) is accepted. A manifest says which file a conv's
    ranks are in; without one it is the layer's own.

    Args:
        spec: what the network was built by, as the manifest has it.
        filters: {conv: number of filters} that the files must fit.

    Raises:
        ValueError: naming the file, if it is missing or unreadable, has another length than the
            conv, or holds a value that is no rank; or if the manifest speaks of another network
            or of ranks that were not written to the end.
    """
    if not folder.is_dir():
        raise ValueError(
            f"rank folder {folder} does not exist: expected rank_conv<i>.npy files, "
            f"which `python rank_generation.py --arch {spec}` writes, of the same "
            "checkpoint (--resume) and on images that it was trained on (--dataset, --data_dir, "
            "--normalization)"
        )
    if (folder / spec).is_dir() and not any(folder.glob("rank_conv*.npy")):
        raise ValueError(
            f"rank folder {folder} holds no rank files: expected them in it, did you mean "
            f"{folder / spec}?"
        )
    manifest = read_manifest(folder)
    if manifest is not None and manifest.get("unfinished"):
        raise ValueError(
            f"rank folder {folder} is unfinished, its writing was interrupted: expected all files "
            f"of one run of `python rank_generation.py --arch {spec}`"
        )
    if manifest is not None and manifest.get("arch") != spec:
        raise ValueError(
            f"rank folder {folder} was made for {manifest.get('arch')!r}: expected {spec!r}"
        )
    entries = {entry["conv"]: entry for entry in (manifest or {}).get("layers", ())}
    return {
        x.conv: _read_file(
            folder, {"file": x.file} | entries.get(x.conv, {}), x.conv, filters[x.conv]
        )
        for x in layers
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the folder's manifest, or None where there is none.

    Raises:
        ValueError: it is no manifest, of finished ranks or of unfinished ones.
    """
    path = folder / MANIFEST
    return read_json(path, _SCHEMA, "a manifest of rank files") if is_there(path) else None


def check_not_lost(folder: Path, sha256: str | None) -> None:
    """Refuse to write over rank files that git tracks, or of another checkpoint than this one.

    Raises:
        ValueError: the folder holds such files; the message names the ways out.
    """
    manifest = (read_manifest(folder) or {}) if folder.is_dir() else {}
    ways = "give another --output, or --force to write over them"
    if manifest.get("checkpoint_sha256", sha256) != sha256:
        raise ValueError(
            f"{folder} holds ranks of {manifest.get('checkpoint')}, another checkpoint: "
            f"expected a folder without, {ways}"
        )
    if folder.is_dir() and _tracked(folder):
        raise ValueError(f"{folder} holds files that git tracks: expected a folder without, {ways}")


def _tracked(folder: Path) -> bool:
    """Return whether git, where there is one, tracks a file in the folder."""
    try:
        words = ["git", "-C", str(folder), "ls-files", "-z", "--", "."]
        found = subprocess.run(words, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and bool(found.stdout)


def _read_file(folder: Path, entry: Mapping[str, Any], conv: str, filters: int) -> Tensor:
    path = folder / Path(entry["file"]).name  # no way out of the folder
    expected = f"ranks of {conv!r}, a .npy array"
    if not is_there(path):
        raise ValueError(f"rank file {path} is missing: expected {expected}")
    size = check_regular(path, "rank file", expected)
    try:
        with path.open("rb") as file:
            shape, dtype = _header(file)
            if shape != (filters,):
                raise _UnfitError(
                    f"holds shape {list(shape)}: expected [{filters}], one value per filter of "
                    f"{conv!r}"
                )
            if not np.issubdtype(dtype, np.floating):
                raise _UnfitError("holds a value that is no rank: expected floats >= 0")
            if size - file.tell() != filters * dtype.itemsize:
                raise ValueError(f"{size - file.tell()} bytes behind its header")
            ranks = np.fromfile(file, dtype, filters)
    except _UnfitError as error:
        raise ValueError(f"rank file {path} {error}") from None
    except Exception as error:  # numpy evaluates the header as Python's own parser does
        raise ValueError(
            f"rank file {path} cannot be read as a .npy array ({error}): expected {expected}"
        ) from None
    if not np.all(np.isfinite(ranks) & (ranks >= 0)):
        raise ValueError(f"rank file {path} holds a value that is no rank: expected floats >= 0")
    if entry.get("sha256") not in (None, sha256_of(path)):
        raise ValueError(f"rank file {path} is not the one that {MANIFEST} lists: it changed")
    return torch.from_numpy(ranks.astype(np.float32))


class _UnfitError(Exception):
    """A whole .npy file, of something else."""


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and type that the file's header tells, and read no further."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype
