"""A dataclass and its command line say the same: names, types, defaults, help."""

import argparse
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from utils.runs.options import add_options, as_dict, option, parse, refuse_given


@dataclass(frozen=True)
class Config:
    lr: float = option(0.1, "learning rate", flags=("--learning_rate",), group="training")
    epochs: int = option(30, "how many epochs", group="training")
    lr_decay_step: tuple[int, ...] = option((5, 10), "epochs at which the rate falls 90%")
    rates: tuple[float, ...] = option((), "fractions")
    mode: str = option("remove", "what goes", choices=("remove", "mask"))
    data_dir: Path = option(Path("data"), "images", metavar="DIR")
    output: Path | None = option(None, "folder (default: beside the weights)")
    checkpoint: Path | None = option(None, "weights", flags=("--resume", "--pretrain_dir"))
    augment: bool = option(False, "flip images")
    shuffle: bool = option(True, "shuffle images")
    size: int = option(0, "bytes", type=lambda word: int(word, 16))

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}: expected at least 1")


def parsed(*words: str) -> Config:
    return parse(Config, words, prog="main.py prune", description="Prune.")


def test_no_words_are_the_defaults():
    assert parsed() == Config()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--lr 0.5", {"lr": 0.5}),
        ("--learning_rate 0.5", {"lr": 0.5}),
        ("--lr_decay_step 50,100", {"lr_decay_step": (50, 100)}),
        ("--lr_decay_step 50", {"lr_decay_step": (50,)}),
        ("--lr_decay_step=", {"lr_decay_step": ()}),
        ("--rates 0.5,1e-1", {"rates": (0.5, 0.1)}),
        ("--mode mask", {"mode": "mask"}),
        ("--data_dir /d", {"data_dir": Path("/d")}),
        ("--resume a.pt", {"checkpoint": Path("a.pt")}),
        ("--pretrain_dir a.pt", {"checkpoint": Path("a.pt")}),
        ("--augment", {"augment": True}),
        ("--no-shuffle", {"shuffle": False}),
        ("--size ff", {"size": 255}),
    ],
)
def test_words_become_values(words, expected):
    assert parsed(*words.split()) == replace(Config(), **expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epoch 3", "unrecognized arguments: --epoch 3; did you mean '--epochs'?"),
        ("--zzz", "unrecognized arguments: --zzz (see main.py prune --help)"),
        ("--lr inf", "--lr is inf: expected a finite number"),
        (f"--epochs {2**63}", f"--epochs is {2**63}: expected a whole number, less than 2**63"),
        ("--epochs three", "invalid int value: 'three'"),
        ("--lr_decay_step 5,x", "expected ints separated by commas, such as 5,10, got '5,x'"),
        ("--lr 0,01", "invalid float value: '0,01'; did you mean 0.01?"),
        ("--lr low", "invalid float value: 'low'"),
        ("--mode maks", "invalid choice: 'maks'"),
        ("--mode maks", "did you mean 'mask'?"),
    ],
)
def test_wrong_words_are_one_sentence_without_the_usage(words, message, capsys):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parsed(*words.split())
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


@dataclass(frozen=True)
class Lenient:
    unneeded: ClassVar = {"--use_dali": "it is not needed"}

    lr: float = option(0.1, "learning rate")
    epochs: int = option(30, "how many epochs")
    start: Path | None = option(
        None, "weights", flags=("--weights",), may_stand_alone="that is how it is"
    )
    recipe: str | None = option(
        None,
        "values for the others",
        choices=("fast", "slow"),
        presets=lambda given: {"epochs": 1, "lr": given.get("lr", 0) + 1},
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("--start./here", {"start": Path("./here")}),
        ("--start/here --lr.5", {"start": Path("/here"), "lr": 0.5}),
        ("--start=./here", {"start": Path("./here")}),
        ("--start", {}),
        ("--weights here --start", {"start": Path("here")}),
        ("--recipe fast", {"recipe": "fast", "epochs": 1, "lr": 1.0}),
        ("--lr 0.5 --recipe fast", {"recipe": "fast", "epochs": 1, "lr": 0.5}),
        ("--recipe fast --epochs 30", {"recipe": "fast", "epochs": 30, "lr": 1.0}),
        ("--use_dali --lr 3", {"lr": 3.0}),
        ("--use_dali yes --lr 3", {"lr": 3.0}),
    ],
)
def test_words_of_other_programs(words, expected, capsys):
    found = parse(Lenient, words.split(), prog="p", description="")
    assert found == replace(Lenient(), **expected)
    said = "--use_dali has nothing to do here: it is not needed\n" * ("--use_dali" in words)
    said += "--start alone has nothing to do here: that is how it is\n" * words.endswith("--start")
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("words", ["--weights", "--weights --lr 1", "--stars./here"])
def test_leniency_has_bounds(words):
    expected = r"/--weights: expected one argument$|unrecognized arguments: --stars"
    with pytest.raises(ValueError, match=expected):
        parse(Lenient, words.split(), prog="p", description="")


def test_a_value_that_the_dataclass_refuses_is_a_value_error():
    with pytest.raises(ValueError, match="epochs is 0: expected at least 1"):
        parsed("--epochs", "0")


def test_help_groups_the_flags_and_shows_each_default_once():
    parser = argparse.ArgumentParser()
    add_options(parser, Config)
    text = " ".join(parser.format_help().split())
    assert "training: --lr" in text
    for words in (
        "learning rate (default: 0.1)",
        "epochs at which the rate falls 90% (default: 5,10)",
        "fractions (default: none)",
        "weights (default: none)",
        "flip images (default: off)",
        "shuffle images (default: on)",
    ):
        assert words in text
    assert "folder (default: beside the weights) --checkpoint" in text
    assert text.count("(default:") == 11


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lr 0.1 --mode mask", None),
        ("--lr 0.2", "--lr is 0.2 without a reason"),
        ("--checkpoint a.pt", "--checkpoint is 'a.pt' without a reason"),
        ("--augment", "--augment without a reason"),
    ],
)
def test_options_that_would_do_nothing_are_refused_but_at_their_defaults(words, message):
    config, names = parsed(*words.split()), {"lr", "checkpoint", "augment"}
    if message is None:
        refuse_given(config, names, "without a reason")
        return
    with pytest.raises(ValueError, match=f"^{message}$"):
        refuse_given(config, names, "without a reason")


def test_as_dict_is_what_json_gives_back():
    config = parsed("--resume", "a.pt")
    assert as_dict(config) == json.loads(json.dumps(as_dict(config)))
    assert as_dict(config)["checkpoint"] == "a.pt" and as_dict(config)["lr_decay_step"] == [5, 10]
