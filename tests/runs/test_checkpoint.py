"""Checkpoints load as data or are refused in one sentence, and fit a model whole or not at all."""

import hashlib
import pickle
import re
import warnings

import pytest
import torch
from torch import nn

from utils.runs.checkpoint import fill_model, load_file, sha256_of, state_dict_of, weights_of
from utils.runs.deflate import deflate


class Classifier(nn.Module):
    def __init__(self, name: str = "fc"):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.add_module(name, nn.Linear(4, 2))


class Malicious:
    """Unpickled with the standard unpickler, creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def assert_same(state, other):
    assert list(state) == list(other)
    for key in state:
        assert torch.equal(state[key], other[key]), key


def saved(tmp_path, content):
    torch.save(content, tmp_path / "file.pt")
    return tmp_path / "file.pt"


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_does_not_run(tmp_path, zipped):
    bomb, path = tmp_path / "was_run", tmp_path / "bomb.pt"
    content = {"state_dict": {"weight": Malicious(bomb)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="refused: it holds .*open, not plain tensors"):
        load_file(path)
    assert not bomb.exists()
    torch.load(path, weights_only=False)["state_dict"]["weight"].close()
    assert bomb.exists(), "the file was harmless, so its refusal proved nothing"


def test_a_plain_pickle_is_refused_and_does_not_run(tmp_path):
    bomb, path = tmp_path / "was_run", tmp_path / "bomb.pkl"
    path.write_bytes(pickle.dumps(Malicious(bomb)))
    with pytest.raises(ValueError, match=r"bomb\.pkl (refused|is damaged)"):
        load_file(path)
    assert not bomb.exists()


def test_a_pickled_module_is_refused_by_its_class(tmp_path):
    with pytest.raises(ValueError, match=r"refused: it holds .*Linear, not plain tensors"):
        load_file(saved(tmp_path, nn.Linear(2, 2)))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.pt does not exist"):
        load_file(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="is a folder"):
        load_file(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_called_damaged(tmp_path, zipped, share):
    path = tmp_path / "file.pt"
    torch.save({"a": torch.rand(2000)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"file\.pt is damaged: expected a whole file"):
        load_file(path)


def test_a_flipped_bit_never_loads_as_another_weight(tmp_path):
    weights = torch.arange(1000.0)
    path = saved(tmp_path, {"state_dict": {"weight": weights}})
    whole, refused = path.read_bytes(), 0
    for position in range(0, len(whole), 37):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        try:
            found = load_file(path)["state_dict"]["weight"]
        except ValueError as error:
            assert "is damaged: expected a whole file" in str(error)
            refused += 1
        else:
            assert torch.equal(found, weights)  # it fell on padding
    assert refused > len(whole) // 37 / 2


@pytest.mark.parametrize("content", [b"hello world", b"<!DOCTYPE html>", b"PK\x03\x04", b"\x80"])
def test_another_kind_of_file_is_called_damaged(tmp_path, content):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load_file(tmp_path / "file.pt")


def test_old_files_load_as_new_ones(tmp_path):
    state = Classifier().state_dict()
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_same(load_file(tmp_path / "old.pt"), state)


def test_a_state_dict_is_found_bare_wrapped_and_parallel():
    state = Classifier().state_dict()
    parallel = {f"module.{key}": value for key, value in state.items()}
    for content in (state, {"state_dict": state, "epoch": 3}, parallel, {"state_dict": parallel}):
        assert_same(state_dict_of(content, "file.pt"), state)


def test_only_a_prefix_of_all_keys_is_dropped():
    state = {"module.weight": torch.ones(1), "bias": torch.ones(1)}
    assert_same(state_dict_of(state, "file.pt"), state)


def test_profiler_counters_are_dropped():
    state = {"conv.total_ops": torch.ones(1), "total_params": torch.ones(1), "w": torch.ones(1)}
    assert list(state_dict_of(state, "file.pt")) == ["w"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "a list of 1"),
        ({}, "an empty object"),
        ({"epoch": 3}, "an object with 'epoch', and 'epoch' is 3"),
        (
            {"nets": {"w": torch.ones(1)}, "acc": 9.5},
            "an object with 'nets', 'acc', and 'nets' is an object with 'w'",
        ),
        (torch.ones(2), "Tensor"),
        ({"net": {}}, "an object with 'net', and 'net' is empty"),
        ({"net": {"w": 3}}, "an object with 'net', and 'w' in 'net' is 3"),
    ],
)
def test_what_is_no_state_dict_is_said(content, words):
    with pytest.raises(ValueError, match=rf"checkpoint file\.pt holds .*{words}"):
        state_dict_of(content, "file.pt")


def odd_tensors():
    """Tensors of a conv's weight's shape that are no plain ones, and what they are called."""
    plain = torch.ones(4, 3, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layouts that are new
        return {
            "a sparse tensor (sparse_coo)": plain.to_sparse(),
            "a sparse tensor (sparse_csr)": plain.to_sparse_csr(),
            "an expanded tensor [4, 3, 3, 3] of 4 bytes": torch.ones(1).expand(4, 3, 3, 3),
            "a tensor without values (of device meta)": plain.to("meta"),
            "a quantized tensor (torch.qint8)": torch.quantize_per_tensor(
                plain, 0.1, 0, torch.qint8
            ),
            "a nested tensor": torch.nested.nested_tensor([plain[0], plain[1]]),
        }


@pytest.mark.parametrize("kind", odd_tensors())
def test_a_tensor_that_is_no_plain_one_is_named(kind):
    state = Classifier().state_dict() | {"conv.weight": odd_tensors()[kind]}
    with pytest.raises(ValueError, match=re.escape(f"file.pt: 'conv.weight' is {kind}: expected")):
        state_dict_of(state, "file.pt")


@pytest.mark.parametrize(
    ("key", "dtype"),
    [
        ("conv.weight", torch.complex64),
        ("conv.weight", torch.int64),
        ("conv.weight", torch.float8_e4m3fn),
        ("norm.running_var", torch.bool),
        ("norm.num_batches_tracked", torch.float32),
    ],
)
def test_numbers_of_another_kind_are_refused_and_nothing_is_filled(key, dtype):
    model = Classifier()
    before = weights_of(model)
    state = weights_of(Classifier())
    expected = f"{key!r} is of {dtype}, expected {state[key].dtype}"
    state[key] = state[key].to(dtype)
    with pytest.raises(ValueError, match=re.escape(expected)):
        fill_model(model, state, "file.pt")
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_another_precision_are_taken(dtype):
    model, state = Classifier(), weights_of(Classifier())
    state["conv.weight"] = state["conv.weight"].to(dtype)
    fill_model(model, state, "file.pt")
    assert torch.equal(model.conv.weight, state["conv.weight"].float())


@pytest.mark.parametrize("key", ["conv.weight", "norm.running_mean", "norm.running_var"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_and_buffers_that_are_no_numbers_are_refused(key, value):
    state = weights_of(Classifier())
    state[key][0] = value
    with pytest.raises(ValueError, match=rf"holds NaN or Inf in '{key}' \(\d+ of \d+ values\)"):
        fill_model(Classifier(), state, "file.pt")


def test_a_small_file_of_many_zeros_does_not_grow_beyond_measure(tmp_path, monkeypatch):
    path = saved(tmp_path, {"state_dict": {"weight": torch.zeros(4_000_000)}})
    deflate(path)
    monkeypatch.setattr("utils.runs.checkpoint._SMALL_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"would grow to 16\d+ bytes: expected at most \d+, more"):
        load_file(path)
    found = load_file(path, needed_bytes=16_000_000)
    assert not found["state_dict"]["weight"].any()


@pytest.mark.parametrize("bare", [True, False])
def test_weights_come_back_whatever_else_the_file_says(tmp_path, bare):
    source, model = Classifier(), Classifier()
    more = {"state_dict": source.state_dict(), "best_prec1": torch.tensor(93.5)}
    path = saved(tmp_path, source.state_dict() if bare else more)
    fill_model(model, state_dict_of(load_file(path), path), path)
    assert_same(model.state_dict(), source.state_dict())


@pytest.mark.parametrize(("theirs", "ours"), [("fc", "linear"), ("linear", "fc")])
def test_the_classifier_may_be_spelled_either_way(theirs, ours):
    source, model = Classifier(theirs), Classifier(ours)
    fill_model(model, source.state_dict(), "file.pt")
    assert torch.equal(model.get_submodule(ours).weight, source.get_submodule(theirs).weight)


def test_batch_counters_may_be_missing():
    source, model = Classifier(), Classifier()
    state = source.state_dict()
    del state["norm.num_batches_tracked"]
    fill_model(model, state, "file.pt")
    assert_same(model.state_dict(), source.state_dict())


def changed(key, value):
    state = Classifier().state_dict()
    if value is None:
        del state[key]
    else:
        state[key] = value
    return state


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (changed("conv.bias", None), r"'conv.bias' is missing \(in all 1 missing, 0 unexpected, 0"),
        (changed("extra", torch.ones(1)), r"'extra' is not in the network \(in all 0 missing, 1"),
        (changed("fc.weight", torch.ones(3, 4)), r"'fc.weight' is \[3, 4\], expected \[2, 4\]"),
    ],
)
def test_a_misfit_is_one_sentence_and_leaves_the_model_alone(state, words):
    model = Classifier()
    before = weights_of(model)
    with pytest.raises(ValueError, match=rf"file\.pt does not fit the network: {words}") as caught:
        fill_model(model, state, "file.pt")
    assert "\n" not in str(caught.value)
    assert_same(model.state_dict(), before)


def test_weights_are_copied_without_the_storage_they_view(tmp_path):
    model = nn.Linear(2, 2, bias=False)
    model.weight = nn.Parameter(torch.zeros(100_000, 2)[:2])
    path = saved(tmp_path, weights_of(model))
    assert path.stat().st_size < 10_000
    weights_of(model)["weight"].fill_(1)
    assert not model.weight.any()


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"ab" * 1_000_000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"ab" * 1_000_000).hexdigest()
    with pytest.raises(ValueError, match="absent does not exist"):
        sha256_of(tmp_path / "absent")
