"""A file of JSON is read whole and checked, or refused in a sentence that names the place."""

import os
from pathlib import Path

import pytest

from utils.runs.json_files import read_json
from utils.runs.regular_file import check_regular
from utils.runs.schema import FLAG, TEXT, Kind, MapOf, Nullable, Optional, number, one_of, whole

SCHEMA = {
    "name": TEXT,
    "sizes": [whole(1)],
    "share": Optional(number(0, below=1)),
    "of": Optional(Nullable(one_of("macs", "params"))),
    "states": Optional(MapOf({"done": FLAG})),
}
LAW = (SCHEMA, Kind("a name of its own", lambda value: value["name"] != "x"))
WHOLE = '{"name": "a", "sizes": [1, 2], "share": 0.5, "of": null, "states": {"s": {"done": true}}}'


def read(path: Path, text: str, schema=SCHEMA):
    path.write_text(text)
    return read_json(path, schema, "a test's numbers")


def test_what_fits_comes_back_with_fields_that_nobody_asked_for(tmp_path):
    found = read(tmp_path / "f.json", WHOLE[:-1] + ', "more": [1.5]}')
    assert found["sizes"] == [1, 2] and found["of"] is None and found["more"] == [1.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is not JSON \(line 1: .*\): expected a test's numbers"),
        ("{\n\n]", r"is not JSON \(line 3: "),
        ("[" * 200_000, r"is not JSON \(nested too deep\)"),
        ("[" * 101 + "]" * 101, r"is not JSON \(nested too deep\)"),
        ('{"name": NaN}', r"is not JSON \(NaN is no number"),
        ('{"name": 1e999}', r"is not JSON \(1e999 is too large"),
        ("9" * 5000, r"is not JSON \("),
        ("[1]", r"holds a list of 1: expected a test's numbers, an object"),
        ("null", r"holds null: expected a test's numbers"),
        ("5", r"holds 5: expected a test's numbers"),
        ('{"name": "a"}', r"lacks 'sizes': expected a test's numbers"),
        (WHOLE.replace('"a"', "7"), r"'name' is 7, expected text"),
        (WHOLE.replace("2]", "0]"), r"'sizes\[1\]' is 0, expected a whole number, at least 1"),
        (WHOLE.replace("2]", "true]"), r"'sizes\[1\]' is true, expected a whole number"),
        (WHOLE.replace("2]", "1.0]"), r"'sizes\[1\]' is 1\.0, expected a whole number"),
        (WHOLE.replace("[1, 2]", "{}"), r"'sizes' is an empty object, expected a list"),
        (WHOLE.replace("0.5", "1"), r"'share' is 1, expected a number, at least 0, less than 1"),
        (WHOLE.replace("null", '"flops"'), r"'of' is 'flops', expected one of macs, params"),
        (WHOLE.replace('"done": true', ""), r"lacks 'done' in 'states\.s'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"f\.json:? {message}") as error:
        read(tmp_path / "f.json", text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_law_over_fields_is_looked_at_once_they_fit(tmp_path):
    assert read(tmp_path / "f.json", WHOLE, LAW)
    with pytest.raises(ValueError, match=r"expected a test's numbers, a name of its own"):
        read(tmp_path / "f.json", WHOLE.replace('"a"', '"x"'), LAW)


def test_a_file_of_other_bytes_or_of_too_many_is_named(tmp_path, monkeypatch):
    (tmp_path / "f.json").write_bytes(b"{}\xff")
    with pytest.raises(ValueError, match=r"f\.json is no UTF-8 text \(byte 2\)"):
        read_json(tmp_path / "f.json", SCHEMA, "numbers")
    monkeypatch.setattr("utils.runs.json_files.MOST_BYTES", 10)
    with pytest.raises(ValueError, match=r"f\.json has \d+ bytes: expected a test's numbers, of"):
        read(tmp_path / "f.json", WHOLE)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "is a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to("nothing"), "is a link to nothing"),
        (lambda path: path.symlink_to(path.name), "cannot be read"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_no_regular_file_is_named_at_once(tmp_path, make, words):
    make(tmp_path / "f")
    with pytest.raises(ValueError, match=rf"checkpoint .*/f {words}.*: expected weights"):
        check_regular(tmp_path / "f", "checkpoint", "weights")
    with pytest.raises(ValueError, match=r"cannot be read \(File name too long\)"):
        check_regular(tmp_path / ("x" * 300), "checkpoint", "weights")


def test_a_link_to_a_file_is_one(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert check_regular(tmp_path / "link", "checkpoint", "weights") == 3
