"""Importing a user's own files beside this repository's packages, neither shadowing the other."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType

_REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """Let imports within the block find `folder` first; None changes nothing.

    Where the folder has modules named as this repository's (`models`, `utils`), the block sees the
    folder's, and afterwards everybody else sees the repository's again.
    """
    if folder is None or folder == _REPOSITORY:
        yield
        return
    shared = {name for name in _top_level(_REPOSITORY) if name in _top_level(folder)}
    ours = _taken(shared)
    sys.modules.update(_THEIRS.get(folder, {}))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        _THEIRS[folder] = _taken(shared)
        sys.modules.update(ours)


_THEIRS: dict[Path, dict[str, ModuleType]] = {}  # a folder's modules named as ours, once imported


def library() -> ModuleType:
    """Return `utils.library` for a program whose own `utils` or `models` shadow this repository's.

    The program's stay what they are. This file needs nothing but Python, so that `runpy.run_path`
    gets at this function from anywhere.
    """
    names = _top_level(_REPOSITORY)
    theirs = _taken(names)
    sys.path.insert(0, str(_REPOSITORY))
    importlib.invalidate_caches()
    try:
        found = importlib.import_module("utils.library")
        with suppress(ImportError):  # what is imported late, where it can be had
            importlib.import_module("utils.rank.triton_kernel")
        return found
    finally:
        sys.path.remove(str(_REPOSITORY))
        ours = _taken(names)
        sys.modules.update({name: module for name, module in ours.items() if "." in name} | theirs)


def module_of_file(path: str | Path) -> ModuleType:
    """Return the module in a file of Python, imported once, under a name that nothing else has.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return _imported(Path(path).resolve())


@cache
def _imported(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(path)
    name = f"network_of_{path.stem}_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _top_level(folder: Path) -> set[str]:
    """Return the names that `import` would find in a folder."""
    modules = {path.stem for path in folder.glob("*.py")}
    return modules | {path.name for path in folder.iterdir() if path.is_dir()}


def _taken(names: set[str]) -> dict[str, ModuleType]:
    """Take the modules of these top-level names out of sys.modules and return them."""
    keys = [key for key in sys.modules if key.partition(".")[0] in names]
    return {key: sys.modules.pop(key) for key in keys}
