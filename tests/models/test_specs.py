"""Specs name networks of the registry, of libraries and of the user's own files."""

import sys

import pytest
import torch
import torch.nn as nn

import utils.runs.log
from models.registry import ARCHITECTURES
from models.specs import is_own, open_spec, read_arguments

NET = """
import torch.nn as nn
from models import net
from utils import WIDTH

def build(num_classes=10, width=WIDTH):
    from utils import WIDTH as again
    assert again == WIDTH
    return net(width, num_classes)

class Plain(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)

ready = Plain()
count = 3

def empty(): return None
def broken(): raise RuntimeError("no weights\\nat all")
def any_keywords(**keywords): return net(2, **keywords)
"""
MODELS = """
import torch.nn as nn
def net(width, num_classes):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Linear(width, num_classes))
"""


@pytest.fixture
def own(tmp_path):
    """The path of a file whose folder has a `models` and a `utils` of its own."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text(MODELS)
    (tmp_path / "utils.py").write_text("WIDTH = 7\n")
    (tmp_path / "my_net.py").write_text(NET)
    return tmp_path / "my_net.py"


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "50" not in name])
def test_the_registry_builds_the_same_network_by_its_name(name):
    found = open_spec(name)
    with torch.device("meta"):
        built, wanted = found.build(), ARCHITECTURES[name].build(found.num_classes)
    assert str(built) == str(wanted)
    assert found.input_size == (3, ARCHITECTURES[name].image_size, ARCHITECTURES[name].image_size)
    assert not is_own(name)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def test_torchvision_knows_size_and_classes_and_takes_others(name):
    found = open_spec(name)
    assert (found.input_size, found.num_classes, is_own(name)) == ((3, 224, 224), 1000, False)
    with torch.device("meta"):
        assert [m for m in found.build(7).modules() if isinstance(m, nn.Linear)][
            -1
        ].out_features == 7


def test_a_file_imports_from_its_own_folder_and_shadows_nothing(own):
    before = sys.modules["models"], sys.modules["utils"], list(sys.path)
    found = open_spec(f"{own}:build", read_arguments("width=5"))
    assert [found.build(3)[0].out_channels, found.build(3)[1].out_features] == [5, 3]
    assert open_spec(f"{own}:build").build()[0].out_channels == 7
    assert (sys.modules["models"], sys.modules["utils"], list(sys.path)) == before
    assert sys.modules["utils.runs.log"] is utils.runs.log
    assert is_own(f"{own}:build")


def test_classes_and_ready_networks_take_no_number_of_classes(own):
    assert open_spec(f"{own}:Plain").build(5).out_features == 2
    ready = open_spec(f"{own}:ready")
    first, second = ready.build(5), ready.build(5)
    assert torch.equal(first.weight, second.weight)
    assert first.weight.data_ptr() != second.weight.data_ptr()  # nobody's changes reach another
    assert open_spec(f"{own}:any_keywords").build(5)[1].out_features == 5


def test_a_module_of_the_working_directory_is_found(own, monkeypatch):
    monkeypatch.chdir(own.parent)
    assert open_spec("my_net:build").build(4)[1].out_features == 4
    sys.modules.pop("my_net")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("biuld", r"has no 'biuld' \(did you mean 'build'\?\); it holds build, Plain, ready"),
        ("count", "is a int: expected a function or class"),
        ("empty", "is a NoneType: expected a callable that returns a torch.nn.Module"),
        ("broken", "cannot be built: RuntimeError: no weights$"),
    ],
)
def test_what_a_file_does_not_give_is_said(own, name, message):
    with pytest.raises(ValueError, match=message):
        open_spec(f"{own}:{name}").build()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet56", r"unknown arch 'resnet56': expected .* \(did you mean 'resnet_56'\?\)"),
        ("resnet18", r"unknown arch 'resnet18': .* \(did you mean 'torchvision:resnet18'\?\)"),
        ("torchvision:resnet19", r"torchvision has no network 'resnet19' \(did you mean "),
        ("no_file.py:build", "there is no file no_file.py"),
        ("no_module:build", "no_module cannot be imported: ModuleNotFoundError"),
        ("no_file.py:", "expected a name of the registry or torchvision:NAME"),
    ],
)
def test_a_spec_that_names_nothing_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        open_spec(spec)


def test_a_file_that_does_not_import_says_why(tmp_path):
    (tmp_path / "half.py").write_text("def build(:\n")
    with pytest.raises(ValueError, match="half.py cannot be imported: SyntaxError"):
        open_spec(f"{tmp_path / 'half.py'}:build")


def test_arguments_the_callable_does_not_take_are_refused(own):
    with pytest.raises(ValueError, match="cannot be built: TypeError: .*depth"):
        open_spec(f"{own}:build", {"depth": 3}).build()
    with pytest.raises(ValueError, match="registry's networks take no arguments"):
        open_spec("resnet_8", {"depth": 3})


def test_arguments_are_literals_or_words():
    found = read_arguments("a=relu,b=(1,2),c='x',d=None")
    assert found == {"a": "relu", "b": (1, 2), "c": "x", "d": None}
    assert read_arguments("") == {}
    for text in ("3", "a", "a=print()", "a=1,,", "a=b.c", "**{}"):
        with pytest.raises(ValueError, match="--arch_args is"):
            read_arguments(text)
