"""What can be wrong with a file: ways to spoil one, each a function of its path and a chance."""

import copy
import json
import os
import pickle
import random
import socket
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Spoil = Callable[[Path, random.Random], None]
_OTHERS = (None, "nonsense", -7, [1], {"x": 1}, float("nan"), True, 10**30)
_BOMB_BYTES = 8 * 2**30


def _replaced(make: Callable[[Path], Any]) -> Spoil:
    """Return the spoil that puts what `make` makes of the path in the place of the file."""

    def spoil(path: Path, chance: random.Random) -> None:
        path.unlink()
        make(path)

    return spoil


def _written(content: bytes) -> Spoil:
    return _replaced(lambda path: path.write_bytes(content))


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has 107 characters at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _truncated(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _garbled(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(len(data) // 20 + 1):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)


NO_FILE: dict[str, Spoil] = {
    "folder": _replaced(Path.mkdir),
    "pipe": _replaced(os.mkfifo),
    "socket": _replaced(_socket),
    "device": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "link to nothing": _replaced(lambda path: path.symlink_to("nothing")),
    "link to itself": _replaced(lambda path: path.symlink_to(path.name)),
}
ANY_FILE: dict[str, Spoil] = {
    **NO_FILE,
    "empty": _written(b""),
    "words": _written(b"hello world\n"),
    "page": _written(b"<!DOCTYPE html>"),
    "zeros": _written(bytes(5000)),
    "truncated": _truncated,
    "garbled": _garbled,
}


CODE: dict[str, Spoil] = {  # a part of a program may still run
    name: spoil for name, spoil in ANY_FILE.items() if name not in ("truncated", "garbled")
}


def _leaf(content: Any, chance: random.Random, wanted: Callable[[str], bool]) -> tuple[Any, Any]:
    """Return a container in `content` and a name of its, one that is wanted."""
    found = []

    def walk(value: Any) -> None:
        parts = value.items() if isinstance(value, dict) else ()
        parts = enumerate(value) if isinstance(value, list) else parts
        for name, part in parts:
            if wanted(str(name)):
                found.append((value, name))
            walk(part)

    walk(content)
    return chance.choice(found)


def json_spoils(*names: str, needed: bool = True) -> dict[str, Spoil]:
    """Return spoils of a file of JSON; fields of these names, of all where none, are changed.

    Where they are `needed`, they may be missing, too.
    """

    def wanted(name: str) -> bool:
        return not names or name in names

    def changed(path: Path, chance: random.Random) -> None:
        content = json.loads(path.read_text())
        inside, name = _leaf(content, chance, wanted)
        kinds = [x for x in _OTHERS if type(x) is not type(inside[name])]
        inside[name] = chance.choice(kinds)
        path.write_text(json.dumps(content, indent=1))

    def lacking(path: Path, chance: random.Random) -> None:
        content = json.loads(path.read_text())
        inside, name = _leaf(content, chance, wanted)
        del inside[name]
        path.write_text(json.dumps(content))

    texts = ("[1]", "null", "5", '"x"', "[" * 200_000, "{", "NaN", "1e999", "9" * 5000, "[NaN]")
    fixed = {f"text {text[:8]}": _written(text.encode()) for text in texts}
    return (
        ANY_FILE | fixed | {"changed": changed} | ({"lacking": lacking} if names and needed else {})
    )


def line_spoils() -> dict[str, Spoil]:
    """Return spoils of a log of JSON lines."""

    def with_line(path: Path, chance: random.Random) -> None:
        lines = path.read_text().splitlines()
        lines[chance.randrange(len(lines))] = chance.choice(["{}", "nonsense", "[1]", "null", "{"])
        path.write_text("\n".join(lines) + "\n")

    return NO_FILE | {"line": with_line, "bytes": _written(b"\xff\xfe\n")}


def _odd_tensor(tensor: torch.Tensor, chance: random.Random) -> Any:
    kinds = {
        "sparse": lambda: tensor.to_sparse(),
        "complex": lambda: tensor.to(torch.complex64),
        "whole": lambda: tensor.to(torch.int32),
        "meta": lambda: tensor.to("meta"),
        "expanded": lambda: torch.zeros(1).expand(tensor.shape),
        "nan": lambda: torch.full(tensor.shape, torch.nan),
        "shape": lambda: torch.zeros(3, 3, 3),
        "quantized": lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        "number": lambda: 3.5,
        "words": lambda: "nonsense",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds that torch will not have for long
        return kinds[chance.choice(list(kinds))]()


def _spoilt_tensor(path: Path, chance: random.Random) -> None:
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    names = [name for name, value in state.items() if value.dtype.is_floating_point]
    name = chance.choice(names)
    state[name] = _odd_tensor(state[name], chance)
    torch.save(content, path)


def _without_tensor(path: Path, chance: random.Random) -> None:
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    state.pop(chance.choice([name for name in state if not name.endswith("tracked")]))
    torch.save(content, path)


def _other_top(path: Path, chance: random.Random) -> None:
    weight = torch.ones(3)
    tops = ([1], None, 3, "x", {}, {"net": {"w": weight}}, {"state_dict": [weight]}, weight)
    torch.save(chance.choice(tops), path)


def _with_code(path: Path, chance: random.Random) -> None:
    path.write_bytes(pickle.dumps({"state_dict": print}))


def _bomb(path: Path, chance: random.Random) -> None:
    """Let the file's table of contents say that a record grows to 8 GiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
        archive.filelist[0].file_size = _BOMB_BYTES


TENSORS: dict[str, Spoil] = ANY_FILE | {
    "tensor": _spoilt_tensor,
    "tensor missing": _without_tensor,
    "top": _other_top,
    "code": _with_code,
    "bomb": _bomb,
}


def field_spoils(*names: str) -> dict[str, Spoil]:
    """Return spoils of a file of torch.save whose fields have these names."""

    def changed(path: Path, chance: random.Random) -> None:
        content = copy.deepcopy(torch.load(path, weights_only=True))
        inside, name = _leaf(content, chance, lambda name: name in names)
        if chance.random() < 0.5:
            del inside[name]
        else:
            inside[name] = 7.5 if isinstance(inside[name], str) else "nonsense"
        torch.save(content, path)

    return ANY_FILE | {"field": changed}


def _array(make: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    return lambda path, chance: np.save(path, make(np.load(path)))


def _huge_header(path: Path, chance: random.Random) -> None:
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(file, header)


ARRAYS: dict[str, Spoil] = ANY_FILE | {
    "huge": _huge_header,
    "whole": _array(lambda ranks: ranks.astype(np.int32)),
    "negative": _array(lambda ranks: -1 - ranks),
    "nan": _array(lambda ranks: ranks * np.nan),
    "longer": _array(lambda ranks: np.concatenate([ranks, ranks])),
    "objects": _array(lambda ranks: np.array([None] * len(ranks), object)),
    "complex": _array(lambda ranks: ranks.astype(np.complex64)),
}


def _pixels(make: Callable[[], Image.Image], format: str) -> Spoil:
    return lambda path, chance: make().save(path, format=format)


def _palette() -> Image.Image:
    picture = Image.new("P", (32, 32))
    picture.info["transparency"] = 0
    return picture


IMAGES: dict[str, Spoil] = {  # a folder among the images is one, and holds none
    **{name: spoil for name, spoil in ANY_FILE.items() if name != "folder"},
    "whole numbers": _pixels(lambda: Image.fromarray(np.ones((32, 32), np.int32)), "TIFF"),
    "floats": _pixels(lambda: Image.fromarray(np.ones((32, 32), np.float32)), "TIFF"),
    "transparent palette": _pixels(_palette, "PNG"),
}
