"""Every flag of the official scripts is known here, and a page says what became of it."""

import argparse
import re

import pytest

import main
from tests.command_lines import ROOT
from tests.reference import REFERENCE, needs_reference
from utils.options.evaluate_options import EvaluateConfig
from utils.options.prune_options import PruneConfig
from utils.options.rank_options import RankConfig
from utils.runs.options import add_options


def flags_of(config_class: type) -> set[str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser, config_class)
    return set(parser._option_string_actions)


SCRIPTS = {  # script of the official code -> the options that stand in for it here
    "rank_generation.py": RankConfig,
    "main.py": PruneConfig,
    "evaluate.py": PruneConfig,
    "evaluate_cifar.py": PruneConfig,
    "cal_flops_params.py": PruneConfig,
}


def official_flags() -> list[tuple[str, str, str]]:
    """Return (repository, script, flag) of every official flag."""
    path = REFERENCE / "interfaces.md"
    text = path.read_text() if path.exists() else ""
    sections = re.findall(r"### (HRank(?:Plus)?)/(\w+\.py)\n(.*?)(?=\n##|\Z)", text, re.DOTALL)
    return [
        (repository, script, flag)
        for repository, script, rows in sections
        for flag in re.findall(r"^\| `(--\w+)`", rows, re.MULTILINE)
    ]


@needs_reference
def test_every_official_flag_is_understood():
    assert len(official_flags()) > 70
    for repository, script, flag in official_flags():
        of_hrank = (repository, script) == ("HRank", "evaluate.py")
        assert flag in flags_of(EvaluateConfig if of_hrank else SCRIPTS[script]), (script, flag)


@needs_reference
def test_the_page_has_every_official_flag_and_no_other():
    section = (ROOT / "utils/commands/README.md").read_text().partition("## Official flags\n")[2]
    section = section.partition("\n## ")[0]
    cells = re.findall(r"^\| (`--.*?) +\|", section, re.MULTILINE)
    listed = re.findall(r"`(--\w+)`", " ".join(cells))
    assert len(listed) == len(set(listed))
    assert set(listed) == {flag for *_, flag in official_flags()} | {"--adjust_prune_ckpt"}


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_gives_a_reason_for_each_flag_without_a_use(call, command):
    config_class = main.COMMANDS[command][0]
    text = " ".join(call("main.py", command, "--help").out.split())
    for flag, why in getattr(config_class, "unneeded", {}).items():
        assert flag in text and why in text
