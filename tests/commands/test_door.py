"""A door turns what a command returns or raises into an exit code and the right stream."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.command_lines import ROOT
from utils.commands.door import always, run
from utils.runs.options import option
from utils.runs.stop_signals import Stopped


@dataclass(frozen=True)
class Config:
    json: bool = option(False, "print JSON")
    eval_batch_size: int = option(1, "images")


PROGRAM = """import sys, {door} as door
try:
    code = door.main({words})
except SystemExit as stop:
    code = stop.code
assert "torch" not in sys.modules
sys.exit(code)"""
SMALLER, ANOTHER = "expected a smaller --eval_batch_size", "expected another path or file"


def opened(command, *words: str) -> int:
    pick = always(command, lambda result: f"it is {result['it']}")
    return run(Config, pick, words, prog="p", description="")


def failing(error: BaseException):
    def command(config):
        raise error

    return command


def test_a_result_is_text_or_one_json_object(capsys):
    assert opened(lambda config: {"it": 1}) == 0
    assert opened(lambda config: {"it": 1}, "--json") == 0
    assert capsys.readouterr() == ('it is 1\n{"it": 1}\n', "")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("rate is 7: expected less"), 2, "p: error: rate is 7: expected less\n"),
        (PermissionError(13, "denied", "f"), 2, f"p: error: cannot use f (denied): {ANOTHER}\n"),
        (OSError("no words"), 2, "p: error: no words\n"),
        (MemoryError(), 2, f"p: error: the memory does not suffice: {SMALLER}\n"),
        (OSError(12, "no memory"), 2, f"p: error: the memory does not suffice: {SMALLER}\n"),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes."
            ),
            2,
            f"p: error: the memory does not suffice for 7 bytes more: {SMALLER}\n",
        ),
        (
            RecursionError(),
            2,
            "p: error: what was read is nested too deep: expected files and "
            "options as they are documented\n",
        ),
        (Stopped(2), 130, "p: stopped by SIGINT: nothing was written\n"),
        (Stopped(15, "half is"), 143, "p: stopped by SIGTERM: half is\n"),
    ],
)
def test_what_the_user_can_cause_is_one_sentence(capsys, error, code, words):
    assert opened(failing(error), "--json") == code
    assert capsys.readouterr() == ("", words)


def test_our_own_bugs_keep_their_traceback():
    with pytest.raises(RuntimeError, match="bug"):
        opened(failing(RuntimeError("bug")))


@pytest.mark.parametrize("words", [["main.py", "layers"], ["rank_generation.py"]])
def test_an_interrupt_amid_the_imports_is_one_sentence(words, tmp_path):
    """A command imports this numpy first of what is slow, which waits to be interrupted."""
    (tmp_path / "numpy").mkdir()
    waiting = "import signal; signal.raise_signal(signal.SIGINT)"
    (tmp_path / "numpy" / "__init__.py").write_text(waiting)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    door, *rest = words
    line = [sys.executable, str(ROOT / door), *rest, "--arch", "resnet_8"]
    ended = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == f"{' '.join(words)}: stopped by SIGINT: nothing was written\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["main.py"], 0, "usage: main.py [COMMAND] [options]"),
        (["main.py", "prun"], 2, "did you mean 'prune'?"),
        (["main.py", "prune", "--help"], 0, "--compress_rate"),
        (["main.py", "compare", "--experiment", "controls", "--help"], 0, "--criteria"),
        (["main.py", "evaluate", "--reusme", "x"], 2, "did you mean '--resume'?"),
        (["main.py", "export", "--format", "ptx"], 2, "choose from"),
        (["rank_generation.py", "--num_image", "5"], 2, "did you mean '--num_images'?"),
    ],
)
def test_the_parser_answers_before_torch_is_imported(words, code, said):
    """Its import takes seconds: the answer to a typo does not wait for them."""
    door, *rest = words
    line = [sys.executable, "-c", PROGRAM.format(door=door.removesuffix(".py"), words=rest)]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stdout + ended.stderr
