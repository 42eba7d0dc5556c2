"""The command lines of all pages, run: on a tiny network and tiny images, an epoch each."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import main
from tests.pages import command_lines
from utils.paper.pages import ROOT

PRUNED = "pruned.pt"
OWN = {"--arch", "--dataset", "--data_dir", "--normalization"}  # flags of the job's own words
OWN |= {"--resume", "--pretrain_dir", "--rank_conv"}
TINY = {  # values for the flags of a line
    "--epochs": "1",
    "--compress_rate": "[0.3]*7",
    "--num_images": "8",
    "--rates": "0.5",
    "--batch_sizes": "1,2",
    "--latency_batch_size": "1",
    "--steps": "2",
    "--jobs": "1",  # processes of their own are slow to start, and tested elsewhere
}
ADDED = {  # flags for a line that has the first word, where the line does not have them
    "controls": {"--criteria": "rank,random", "--seeds": "0", "--num_images": "8"},
    "sorting": {"--rates": "0.5", "--seeds": "0", "--epochs": "1"},
    "--rerank": {"--num_images": "8"},
    "--report": {"--report_images": "4,8", "--compress_rate": "[0.3]*7"},
    "rank_generation.py": {"--num_images": "8"},
    "scan": {"--num_images": "4", "--rates": "0.5"},
    "train": {"--epochs": "1", "--train_batch_size": "16"},
    "prune": {"--epochs": "1", "--train_batch_size": "16"},
}
ELSEWHERE = {"demo", "--rank_conv FOLDER", "--figures", "hrankplus"}  # in tests of their own


def tiny(line: str, job, pruned: Path, scan: Path) -> list[str]:
    """Return the words of a line of the pages for the tiny network, the door first."""
    door, *words = words_of(line)
    given, rest = [door], iter(words)
    for word in rest:
        if word in ("--scan", "--against"):
            next(rest)
            given += [word, str(scan if word == "--scan" else pruned)]
        elif word in OWN:
            value = next(rest)
            given += ["--resume", str(pruned)] if value.endswith(PRUNED) else []
        elif word in TINY:
            given += [word, "0" if next(rest) == "0" else TINY[word]]
        else:
            given.append(word)
    if given[1:2] != ["train"] and not {"--resume", "--untrained"} & set(given):
        given += ["--resume", str(job.checkpoint)]
    others = {"--criterion", "--granularity", "--remove_zeros"} & set(given)
    if given[1:2] == ["prune"] and (not others or "rank" in given):
        given += ["--rank_conv", str(job.ranks)]
    return [*with_tiny_values(given), *(word for word in job.data if word != "--json")]


def words_of(line: str) -> list[str]:
    """Return the words of a line, the command among them where it is left out."""
    door, *words = shlex.split(line)
    return [door, *(["prune"] if door == "main.py" and words[0].startswith("-") else []), *words]


def with_tiny_values(given: list[str]) -> list[str]:
    """Return the words with the flags that their command needs to end soon."""
    for flags in (flags for word, flags in ADDED.items() if word in given):
        given = given + [part for flag in flags.items() if flag[0] not in given for part in flag]
    return given


@pytest.fixture(scope="module")
def made(job, tmp_path_factory) -> tuple[Path, Path]:
    """A pruned file and a scan, made as the pages say, for the lines that name one."""
    folder = tmp_path_factory.mktemp("made")
    network = [word for word in job.network if word != "--json"] + ["--criterion", "l1", "--json"]
    pruned = ["--ratio", "0.5", "--epochs", "0", "--job_dir", str(folder / "pruned")]
    assert main.main(["prune", *network, *pruned]) == 0
    scan = ["--rates", "0.5", "--split", "test", "--num_images", "8"]
    assert main.main(["scan", *network, *scan, "--job_dir", str(folder / "scan")]) == 0
    return folder / "pruned" / PRUNED, folder / "scan"


_FLAGS = re.compile(r"^\S+ \w+|--\w+")
BY_FLAGS = {tuple(_FLAGS.findall(line)): line for line in command_lines()}  # each set once
OWN_LINES = [line for line in BY_FLAGS.values() if "my_net.py" in line]
LINES = [
    line
    for line in BY_FLAGS.values()
    if line not in ["main.py compare", *OWN_LINES] and not any(words in line for words in ELSEWHERE)
]


@pytest.mark.parametrize("line", LINES)
def test_every_line_runs(line, call, job, made, quick):
    if "onnxruntime" in line:
        pytest.importorskip("onnxruntime")
    outcome = call(*tiny(line, job, *made))
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip()


def test_the_lines_for_a_network_of_ones_own_run_in_turn(call, images, quick):
    shutil.copy(ROOT / "utils/benchmarks/my_net.py", "my_net.py")
    assert len(OWN_LINES) > 4
    for line in OWN_LINES:
        words = [str(images) if word == "DATA" else word for word in words_of(line)]
        if "PRUNED.pt" in words:
            words[words.index("PRUNED.pt")] = str(next(Path("result").rglob(PRUNED)))
        outcome = call(*with_tiny_values(words))
        assert outcome.code == 0, (line, outcome.err)
        assert outcome.out.strip()
