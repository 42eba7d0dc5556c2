"""A deflated file holds the same tensors in fewer bytes, and is the same file each time."""

import torch

from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import load_file
from utils.runs.deflate import deflate, deflated_bytes


def test_a_deflated_file_loads_as_before_and_zeros_cost_little(tmp_path):
    path, weight = tmp_path / "file.pt", torch.randn(100, 100)
    weight[:, 10:] = 0
    content = {"weight": weight, "kept": torch.arange(5), "words": ["a", 1, None]}
    write_tensors(path, content)
    stored = path.stat().st_size
    deflate(path)
    small = path.read_bytes()
    assert len(small) == deflated_bytes(content) < stored / 5
    found = load_file(path)
    assert torch.equal(found["weight"], weight) and torch.equal(found["kept"], content["kept"])
    assert found["words"] == content["words"]
    assert list(tmp_path.iterdir()) == [path]
    write_tensors(path, content)
    deflate(path)
    assert path.read_bytes() == small
