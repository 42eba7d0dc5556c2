"""The pages' examples are what was printed and found, and are cut and folded as they should be."""

import json
import shlex

import pytest

from utils.benchmarks.examples import OUTPUTS, STORED, STUDIES, block_text, excerpt
from utils.paper.pages import read_block

TEXT = "# title\n\nfirst\n\n## Costs\n\n| a |\n\n## Zeros of x\n\nlast\n"


@pytest.mark.parametrize("name", [*OUTPUTS, *STUDIES])
def test_the_pages_hold_what_is_stored(name):
    assert read_block(name) == block_text(name, json.loads(STORED.read_text())[name])


def test_nothing_is_stored_that_no_command_makes():
    stored = json.loads(STORED.read_text())
    commands = {name: command for name, (command, _) in (OUTPUTS | STUDIES).items()}
    assert {name: found["command"] for name, found in stored.items()} == commands


def test_sections_are_cut_out():
    assert excerpt(TEXT, ()) == "first\n\n| a |\n\nlast"
    assert excerpt("no heading\n", ()) == "no heading"
    assert excerpt(TEXT, ("Costs",)) == "| a |"
    assert excerpt(TEXT, ("Zeros of", "Costs")) == "| a |\n\nlast"


def test_long_commands_are_folded_as_a_shell_reads_them():
    made = {"device": "a CPU", "threads": 1, "cpus": 2, "torch": "2.15.0"}
    command = "main.py prune " + " ".join(f"--option_{number} value" for number in range(20))
    stored = {"command": command, "output": "| x |", "environment": made}
    text = block_text("demo", stored)
    folded, shown, hardware = text.split("\n\n")
    assert max(map(len, folded.splitlines())) <= 120
    assert shlex.split(folded.replace("\\\n", " ")) == ["python", *shlex.split(command)]
    assert (shown, hardware) == ("```text\n| x |\n```", "a CPU, 1 of 2 threads; torch 2.15.0.")
