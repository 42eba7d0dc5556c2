"""A file is its old self or its new self, never a part, and failures leave nothing behind."""

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.runs.atomic_write import (
    atomic_open,
    remove_unfinished,
    write_array,
    write_json,
    write_tensors,
    write_text,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_content_stays_until_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    write_text(path, "old")
    with atomic_open(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names_in(path.parent) == ["file.txt"]


def test_the_bytes_are_on_the_disk_before_the_name_is_and_the_name_before_it_goes_on(
    tmp_path, monkeypatch
):
    path, synced = tmp_path / "file.txt", []

    def sync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write_text(path, "whole")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_failing_block_changes_nothing(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_open(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file.txt"]


def test_what_a_killed_writer_left_can_be_removed_alone(tmp_path):
    write_text(tmp_path / "file.txt", "whole")
    with atomic_open(tmp_path / "file.txt") as file:
        leftover = Path(file.name)
        kept = leftover.read_bytes()
    leftover.write_bytes(kept)
    (tmp_path / ".hidden").touch()
    remove_unfinished(tmp_path)
    assert names_in(tmp_path) == [".hidden", "file.txt"]


def test_json_keeps_its_order_and_ends_the_line(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [2.5, None]})
    text = (tmp_path / "a.json").read_text()
    assert text.startswith('{\n  "b": 1,\n  "a"') and text.endswith("}\n")
    assert json.loads(text) == {"b": 1, "a": [2.5, None]}


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_tensors_and_arrays_come_back(tmp_path):
    tensor, array = torch.arange(6.0).view(2, 3), np.arange(4, dtype=np.float32)
    write_tensors(tmp_path / "t.pt", {"a": tensor})
    write_array(tmp_path / "a.npy", array)
    assert torch.equal(torch.load(tmp_path / "t.pt", weights_only=True)["a"], tensor)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array, strict=True)


def test_arrays_of_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_array(tmp_path / "a.npy", np.array([{}], dtype=object))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("place", ["file/below", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=f"cannot write .*{place} .*expected a writable place"):
        write_text(tmp_path / place, "")
    assert names_in(tmp_path) == ["file", "folder"]


def write_much(path):
    write_text(path, "new" * 100_000)


def write_many(path):
    write_tensors(path, {str(index): torch.zeros(10_000) for index in range(10)})


@pytest.mark.parametrize("write", [write_much, write_many])
def test_half_a_file_that_the_disk_takes_is_no_file(tmp_path, write, bytes_of_a_file):
    write_text(tmp_path / "file", "old")
    expected = re.escape(f"cannot write {tmp_path / 'file'} (File too large): expected")
    with pytest.raises(ValueError, match=expected), bytes_of_a_file(100_000):
        write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_full_disk_at_the_very_end_changes_nothing(tmp_path, monkeypatch):
    def fill(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(ValueError, match=r"cannot write .*file \(No space left on device\)"):
        write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["file"]
