"""Files of torch.save with their records deflated: zeros cost next to nothing on the disk."""

import io
import os
import zipfile
from typing import IO

import torch

from utils.runs.atomic_write import atomic_open


def deflate(path: str | os.PathLike) -> None:
    """Rewrite what torch.save wrote to `path`, smaller; torch.load reads it as before."""
    with zipfile.ZipFile(path) as stored, atomic_open(path) as file:
        _deflate(stored, file)


def deflated_bytes(value: object) -> int:
    """Return the size of the file that `deflate` would leave of `value`."""
    stored, small = io.BytesIO(), io.BytesIO()
    torch.save(value, stored)
    with zipfile.ZipFile(stored) as archive:
        _deflate(archive, small)
    return small.getbuffer().nbytes


def _deflate(stored: zipfile.ZipFile, file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w") as small:
        for record in stored.infolist():
            small.writestr(record, stored.read(record), zipfile.ZIP_DEFLATED)
