"""The C++ form is built once, and where it cannot be had nothing but speed is lost."""

import shutil

import pytest
import torch

from utils.rank import compiled
from utils.rank.matrix_rank import forms, map_ranks

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def fresh():
    """No library loaded before, and none left from a test after."""
    compiled._load.cache_clear()
    yield
    compiled._load.cache_clear()


@needs_compiler
def test_it_is_built_once_into_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    assert compiled.compiled_ranks()(torch.eye(3)[None]).tolist() == [3]
    (library,) = (tmp_path / "hrank").iterdir()
    made = library.stat().st_mtime_ns
    compiled._load.cache_clear()
    assert list(forms(CPU)) == ["C++", "torch"]
    assert library.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (compiled.SWITCH, "0"),
        ("CXX", "/absent/compiler"),
        ("CXX", "false"),
        ("XDG_CACHE_HOME", "/dev/null"),
    ],
)
def test_without_it_ranks_are_the_same(variable, value, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(variable, value)
    assert compiled.compiled_ranks() is None
    assert list(forms(CPU)) == ["torch"]
    maps = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).relu()
    assert torch.equal(map_ranks(maps), torch.linalg.matrix_rank(maps))
