"""HRank's mask files say what the official ones say; whatever else they ask for is not done."""

import io
import pickle
from collections import OrderedDict
from functools import cache
from pathlib import Path

import pytest
import torch

from models.registry import ARCHITECTURES, build_model
from tests.reference import needs_reference, reference
from utils.options.networks import network_of, outline
from utils.removal.mask_pickle import read_masks
from utils.removal.masks import ChannelMasks

NUM_MASKS = {"vgg_16_bn": 48, "resnet_56": 165, "densenet_40": 117, "googlenet": 184}
# resnet_110 and resnet_50 hold 327 and 159; they are resnet_56's kind, and slow


@cache
def traced(arch: str):
    model = build_model(arch)
    return model, network_of(model, arch).graph


def written(path: Path, arch: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Write a mask file as HRank does, and return its convs' masks.

    The slow, obvious version: set all weights to 1, mask, and see which rows became zero.
    """
    model, graph = traced(arch)
    generator = torch.Generator().manual_seed(seed)
    filters = graph.filters()
    masks = {}
    for layer in outline(arch).layers.layers:
        masks[layer.conv] = torch.rand(filters[layer.conv], generator=generator) < 0.6
        masks[layer.conv][0] = True
    ones = build_model(arch)
    for parameter in ones.parameters():
        parameter.data.fill_(1)
    ChannelMasks(ones, graph, masks).apply()
    content = {}
    for index, parameter in enumerate(ones.parameters()):
        rows = parameter.detach().flatten(1).amax(1) if parameter.dim() > 1 else parameter.detach()
        if not rows.all():
            content[index] = rows.reshape(-1, 1, 1, 1) if parameter.dim() > 1 else rows.clone()
    write(path, content)
    return masks


def write(path: Path, content) -> None:
    with path.open("wb") as file:
        pickle.dump(content, file)


@pytest.mark.parametrize("arch", [arch for arch in NUM_MASKS if arch in ARCHITECTURES])
def test_a_file_holds_the_masks_that_were_written(tmp_path, arch):
    expected = written(tmp_path / "mask", arch)
    assert len(pickle.loads((tmp_path / "mask").read_bytes())) == NUM_MASKS[arch]
    found = read_masks(tmp_path / "mask", *traced(arch))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[conv], expected[conv]) for conv in expected)


@needs_reference
@pytest.mark.parametrize("arch", [arch for arch in NUM_MASKS if arch in ARCHITECTURES])
def test_positions_are_those_of_the_official_code(arch):
    names = [name for name, _ in traced(arch)[0].named_parameters()]
    files = reference("rank_files.json")["hrank"][arch]["files"]
    for conv in (conv for file in files for conv in file["ranks_convs_hrank"]):
        assert names[conv["param_index"]] == conv["param"]
        assert set(conv["also_masked"]) < set(names)


@pytest.mark.parametrize("count", [1, 3, 14])
def test_a_file_may_hold_the_first_convs_alone(tmp_path, count):
    model, graph = traced("resnet_8" if count < 4 else "vgg_16_bn")
    names = [name for name, _ in model.named_parameters()]
    convs = [name for name in names if name.endswith("weight")][: 2 * count : 2]
    widths = dict(model.named_parameters())
    content = {}
    for conv in convs[: min(count, 12)]:
        index = names.index(conv)
        masked = 4 if names[index + 1].endswith("bias") else 3  # conv, its bias, norm's two
        for position in range(index, index + masked):
            mask = (torch.arange(widths[conv].size(0)) % 2).float()
            content[position] = mask.reshape(-1, 1, 1, 1) if position == index else mask
    write(tmp_path / "mask", content)
    found = read_masks(tmp_path / "mask", model, graph)
    assert list(found) == [conv.removesuffix(".weight") for conv in convs[: min(count, 12)]]
    assert all(mask.tolist()[:3] == [False, True, False] for mask in found.values())


class Calls:
    """Unpickled with the standard unpickler, calls a function."""

    def __init__(self, function, *words):
        self.call = function, words

    def __reduce__(self):
        return self.call


class HookedTensor:
    """Pickles as a tensor whose backward hooks hold what would be called."""

    def __reduce__(self):
        storage = torch.zeros(16).storage()
        hooks = OrderedDict({0: Calls(open, "was_run", "w")})
        return torch._utils._rebuild_tensor_v2, (storage, 0, (16,), (1,), False, hooks)


def storage_that_runs() -> Calls:
    """A pickle within the pickle, of the kind that torch.load runs unless told not to."""
    inner = io.BytesIO()
    torch.save(Calls(open, "was_run", "w"), inner)
    return Calls(torch.storage._load_from_bytes, inner.getvalue())


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("content", "asks"),
    [
        (lambda: Calls(open, "was_run", "w"), r"it asks for _?io\.open"),
        (lambda: {0: Calls(eval, "open('was_run', 'w')")}, r"it asks for builtins\.eval"),
        (lambda: {0: Calls(torch.load, "mask")}, r"it asks for torch\.serialization\.load"),
        (lambda: {0: HookedTensor()}, r"it asks for _?io\.open"),
        (lambda: {0: storage_that_runs()}, r"a tensor's content is not plain numbers"),
        (lambda: torch.nn.Linear(1, 1), r"it asks for torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_nothing_in_a_file_runs(tmp_path, monkeypatch, content, asks):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mask", content())
    expected = rf"mask file .*mask refused \({asks}\): expected a pickle of tensors"
    with pytest.raises(ValueError, match=expected):
        read_masks(tmp_path / "mask", *traced("resnet_8"))
    assert not (tmp_path / "was_run").exists()


ONES = torch.ones(16)
HALF = (torch.arange(16) % 2).float()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], r"holds a list: expected a dict of masks"),
        ({}, r"holds a dict: expected a dict of masks"),
        ({99: ONES}, r"99 is no position of the network's 23 parameters"),
        ({"conv1": ONES}, r"'conv1' is no position"),
        ({0: torch.ones(15)}, r"mask of 'conv1\.weight' is \[15\], expected \[16\] or \[16, 1"),
        ({0: torch.ones(16, 3, 3, 3)}, r"is \[16, 3, 3, 3\], expected \[16\]"),
        ({0: 1.0}, r"mask of 'conv1\.weight' is float, expected \[16\]"),
        ({0: ONES / 2}, r"mask of 'conv1\.weight' holds other values than 0 and 1"),
        ({0: ONES * torch.nan}, r"holds other values than 0 and 1"),
        ({0: HALF, 1: ONES}, r"mask of 'bn1\.weight' disagrees with those of the convs"),
        ({2: HALF}, r"mask of 'bn1\.bias' disagrees with those of the convs"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, content, expected):
    write(tmp_path / "mask", content)
    with pytest.raises(ValueError, match=f"mask file .*{expected}"):
        read_masks(tmp_path / "mask", *traced("resnet_8"))


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="absent does not exist: expected HRank's `mask`"):
        read_masks(tmp_path / "absent", *traced("resnet_8"))
    write(tmp_path / "mask", {0: HALF})
    (tmp_path / "short").write_bytes((tmp_path / "mask").read_bytes()[:90])
    with pytest.raises(ValueError, match=r"short refused \(.*\): expected a pickle of tensors"):
        read_masks(tmp_path / "short", *traced("resnet_8"))
