"""Rank files come back as written, the official ones are read, and broken ones are named."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models.registry import build_model
from tests.reference import NETWORKS, needs_reference, published_ranks, reference
from utils.graph.prunable import RankLayer, Site
from utils.options.networks import outline
from utils.rank import rank_files
from utils.rank.estimation import RankStatistics
from utils.rank.rank_files import MANIFEST, read_manifest, read_ranks, write_ranks
from utils.runs.checkpoint import sha256_of

LAYERS = (
    RankLayer("conv1", "rank_conv1.npy", Site("relu"), 0, 0),
    RankLayer("layer1.0.conv1", "rank_conv2.npy", Site("layer1.0.relu1"), 1, 1),
)
FILTERS = {"conv1": 3, "layer1.0.conv1": 2}


def statistics(seed=0):
    generator = torch.Generator().manual_seed(seed)
    totals = {x.site: torch.randint(0, 70, (FILTERS[x.conv],), generator=generator) for x in LAYERS}
    return {site: RankStatistics(t, t * t, 7, (8, 8)) for site, t in totals.items()}


def written(folder, seed=0, arch="resnet_8"):
    write_ranks(folder, LAYERS, statistics(seed), {"arch": arch, "images": 7})
    return folder


def read(folder, arch="resnet_8"):
    return read_ranks(folder, arch, LAYERS, FILTERS)


def test_ranks_come_back_as_written(tmp_path):
    found, expected = read(written(tmp_path / "new" / "folder")), statistics()
    assert list(found) == ["conv1", "layer1.0.conv1"]
    for layer in LAYERS:
        assert torch.equal(found[layer.conv], expected[layer.site].mean.float())


def test_files_are_those_of_the_official_code(tmp_path):
    array = np.load(written(tmp_path) / "rank_conv2.npy")
    assert (array.dtype, array.shape) == (np.float32, (2,))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        MANIFEST,
        "rank_conv1.npy",
        "rank_conv2.npy",
    ]


def test_the_manifest_says_where_the_ranks_come_from(tmp_path):
    manifest, expected = read_manifest(written(tmp_path)), statistics()[Site("relu")]
    assert (manifest["arch"], manifest["images"]) == ("resnet_8", 7)
    assert manifest["layers"][0] == {
        "file": "rank_conv1.npy",
        "sha256": sha256_of(tmp_path / "rank_conv1.npy"),
        "conv": "conv1",
        "site": "relu",
        "map_size": [8, 8],
        "mean": expected.mean.tolist(),
        "variance": expected.variance.tolist(),
    }


def test_new_ranks_replace_old_ones(tmp_path):
    written(tmp_path, seed=1)
    found = read(written(tmp_path, seed=2))
    assert torch.equal(found["conv1"], statistics(2)[Site("relu")].mean.float())


@pytest.mark.parametrize("old_ranks", [False, True])
def test_ranks_of_an_interrupted_run_are_refused_until_they_are_whole(
    tmp_path, monkeypatch, old_ranks
):
    if old_ranks:
        written(tmp_path, seed=1)

    def write_first(path, array):
        if path.name != "rank_conv1.npy":
            raise KeyboardInterrupt
        np.save(path, array)

    with monkeypatch.context() as patched:
        patched.setattr(rank_files, "write_array", write_first)
        with pytest.raises(KeyboardInterrupt):
            written(tmp_path, seed=2)
    with pytest.raises(ValueError, match="is unfinished, its writing was interrupted: expected"):
        read(tmp_path)
    assert torch.equal(
        read(written(tmp_path, seed=2))["conv1"], statistics(2)[Site("relu")].mean.float()
    )


def test_ranks_cannot_be_written_into_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write .*file"):
        written(tmp_path / "file")


def test_a_folder_without_manifest_is_read(tmp_path):
    (written(tmp_path) / MANIFEST).unlink()
    assert read_manifest(tmp_path) is None
    assert torch.equal(read(tmp_path)["conv1"], statistics()[Site("relu")].mean.float())


@needs_reference
@pytest.mark.parametrize("arch", NETWORKS)
def test_the_published_files_are_read(arch):
    layers, model = outline(arch).layers.layers, build_model(arch)
    filters = {x.conv: model.get_submodule(x.conv).out_channels for x in layers}
    found = read_ranks(published_ranks(arch), arch, layers, filters)
    files = reference("rank_files.json")["hrank"][arch]["files"]
    by_file = {layer.file: found[layer.conv] for layer in layers}
    assert list(by_file) == [facts["file"] for facts in files]
    for ranks, facts in zip(by_file.values(), files, strict=True):
        assert ranks.dtype == torch.float32 and list(ranks.shape) == facts["shape"]
        assert (float(ranks.min()), float(ranks.max())) == (facts["min"], facts["max"])
        torch.testing.assert_close(ranks * 768, (ranks * 768).round(), rtol=0, atol=0.01)


def test_convs_may_share_a_site_and_a_file(tmp_path):
    twins = [RankLayer(conv, "rank_conv1_n5x5.npy", Site("block", 2, 4), 0, 0) for conv in "ab"]
    ranks = RankStatistics(torch.tensor([7, 14]), torch.tensor([49, 196]), 7, (8, 8))
    write_ranks(tmp_path, twins, {Site("block", 2, 4): ranks}, {"arch": "googlenet"})
    found = read_ranks(tmp_path, "googlenet", twins, {"a": 2, "b": 2})
    assert torch.equal(found["a"], torch.tensor([1.0, 2.0])) and torch.equal(*found.values())
    assert read_manifest(tmp_path)["layers"][1]["site"] == "block[2:4]"


def test_the_manifest_says_which_file_is_whose(tmp_path):
    manifest = read_manifest(written(tmp_path))
    (tmp_path / "rank_conv1.npy").rename(tmp_path / "elsewhere.npy")
    manifest["layers"][0]["file"] = "../elsewhere.npy"  # no way out of the folder
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert torch.equal(read(tmp_path)["conv1"], statistics()[Site("relu")].mean.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": None}, "'layers' is null, expected a list"),
        ({"layers": 3}, "'layers' is 3, expected a list"),
        ({"layers": [3]}, r"'layers\[0\]' is 3, expected an object"),
        ({"layers": [{"file": "a"}]}, r"lacks 'conv' in 'layers\[0\]'"),
        (
            {"layers": [{"conv": "conv1", "file": "a", "map_size": [8, 0]}]},
            r"'layers\[0\]\.map_size\[1\]' is 0, expected a whole number, at least 1",
        ),
        ({"sites": "nobody's"}, "'sites' is .*expected one of official, "),
        ({"checkpoint_sha256": 7}, "'checkpoint_sha256' is 7, expected text"),
    ],
)
def test_a_manifest_with_other_fields_is_named(tmp_path, change, message):
    manifest = {**read_manifest(written(tmp_path)), **change}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"manifest\.json:? {message}"):
        read(tmp_path)


def test_a_missing_folder_says_what_makes_it(tmp_path):
    message = "absent does not exist: .*`python rank_generation.py --arch resnet_8` writes"
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "absent")


def test_ranks_of_another_network_are_refused(tmp_path):
    written(tmp_path, arch="resnet_56")
    with pytest.raises(ValueError, match="was made for 'resnet_56': expected 'resnet_8'"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"manifest\.json is not JSON \(line 1"),
        (b"", r"manifest\.json is not JSON \(line 1"),
        (b"\xff\xfe", r"manifest\.json is no UTF-8 text"),
        (b"[1]", r"manifest\.json holds a list of 1: expected a manifest of rank files, an object"),
        (b"null", r"manifest\.json holds null: expected a manifest of"),
        (b"{}", "was made for None: expected 'resnet_8'"),
    ],
)
def test_a_broken_manifest_is_named(tmp_path, content, message):
    (written(tmp_path) / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    (written(tmp_path) / "rank_conv2.npy").unlink()
    message = r"rank_conv2\.npy is missing: expected ranks of 'layer1\.0\.conv1'"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-3])


def malformed(path):
    path.write_bytes(path.read_bytes().replace(b"(3,)", b"(3, ", 1))


def longer(path):
    path.write_bytes(path.read_bytes() + bytes(4))


def archive(path):
    with path.open("wb") as file:
        np.savez(file, ranks=np.ones(3, np.float32))


@pytest.mark.parametrize(
    "damage",
    [truncated, archive, malformed, longer]
    + [lambda path, data=data: path.write_bytes(data) for data in (b"", b"hello", b"PK\x03\x04")],
)
def test_a_file_that_is_no_array_is_named(tmp_path, damage):
    damage(written(tmp_path) / "rank_conv1.npy")
    message = r"rank_conv1\.npy cannot be read as a \.npy array"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_regular_file_is_named_at_once(tmp_path, make):
    path = written(tmp_path) / "rank_conv1.npy"
    path.unlink()
    make(path)
    with pytest.raises(ValueError, match=r"rank_conv1\.npy is a (folder|pipe): expected ranks of"):
        read(tmp_path)


def test_a_header_of_more_than_any_memory_holds_is_read_no_further(tmp_path):
    with (written(tmp_path) / "rank_conv1.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"holds shape \[1000000000000\]: expected \[3\]"):
        read(tmp_path)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (), (0,)])
def test_ranks_of_another_shape_are_named(tmp_path, shape):
    np.save(written(tmp_path) / "rank_conv1.npy", np.ones(shape, np.float32))
    message = f"holds shape {list(shape)}: expected [3], one value per filter of 'conv1'"
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        [1.0, -0.5, 2.0],
        [1.0, np.nan, 2.0],
        [1.0, np.inf, 2.0],
        [1, 2, 3],
        ["a", "b", "c"],
        [1j] * 3,
        [None, 1, 2],
    ],
)
def test_what_is_no_rank_is_named(tmp_path, values):
    np.save(written(tmp_path) / "rank_conv1.npy", np.array(values))
    message = r"rank_conv1\.npy holds a value that is no rank: expected floats >= 0"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_a_flipped_bit_is_found(tmp_path):
    path = written(tmp_path) / "rank_conv1.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # a rank still, of another value
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"rank_conv1\.npy is not the one that manifest\.json"):
        read(tmp_path)


def test_a_manifest_is_plain_json(tmp_path):
    assert json.loads((written(tmp_path) / MANIFEST).read_text()) == read_manifest(tmp_path)
