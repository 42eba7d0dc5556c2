"""Laws of several processes: one result for all, one writer, and one that says what went wrong."""

import importlib
import math
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.several_processes import side_by_side, values_of
from utils.runs import processes
from utils.runs.atomic_write import write_text
from utils.training.synchronised_norms import differentiable_sum

TASKS = Path("/proc/self/task")
BATCHES = [slice(0, 5), slice(5, 10), slice(10, 11)]


def test_one_process_is_all_there_are():
    tensor = torch.ones(2, requires_grad=True)
    with processes.joined():
        assert (processes.num_processes(), processes.process_index()) == (1, 0)
    assert processes.is_first()
    assert processes.summed(tensor) is tensor
    assert processes.averaging_gradients(tensor) is tensor
    assert processes.total(7) == processes.largest(7) == processes.from_first(lambda: 7) == 7
    assert processes.gathered("a") == ["a"]
    assert processes.in_turn(BATCHES) == processes.part_of_each(BATCHES) == BATCHES
    processes.check_same("the plan", [1])


def everything_once() -> dict:
    index = processes.process_index()
    large = torch.tensor([2**60 + index, -index])
    weight = torch.tensor([1.0 + index], requires_grad=True)
    (differentiable_sum(weight).square().sum() * (index + 1)).backward()
    return {
        "summed": processes.summed(large).tolist(),
        "kept": large.tolist(),
        "gradient": weight.grad.item(),
        "total": processes.total(index),
        "largest": processes.largest(10 - index),
        "gathered": processes.gathered({"index": index}),
        "from_first": processes.from_first(lambda: f"of {index}"),
        "is_first": processes.is_first(),
    }


def test_all_get_what_all_gave(tmp_path):
    found = values_of(3, tmp_path, everything_once)
    for index, values in enumerate(found):
        assert values["summed"] == [3 * 2**60 + 3, -3]
        assert values["kept"] == [2**60 + index, -index]
        # sum_i (i + 1) (w_0 + w_1 + w_2)^2, by any w: 2 * (1 + 2 + 3) * (1 + 2 + 3)
        assert values["gradient"] == 72
        assert (values["total"], values["largest"]) == (3, 10)
        assert values["gathered"] == [{"index": 0}, {"index": 1}, {"index": 2}]
        assert values["from_first"] == "of 0"
        assert values["is_first"] == (index == 0)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_batches_are_shared_out_whole_or_in_parts(monkeypatch, count):
    turns, parts = [], []
    monkeypatch.setattr(processes, "num_processes", lambda: count)
    for index in range(count):
        monkeypatch.setattr(processes, "process_index", lambda index=index: index)
        turns.append(processes.in_turn(BATCHES))
        parts.append(processes.part_of_each(BATCHES))
    assert sorted((b for own in turns for b in own), key=lambda b: b.start) == BATCHES
    assert max(map(len, turns)) - min(map(len, turns)) <= 1
    for number, batch in enumerate(BATCHES):
        images = [list(range(own[number].start, own[number].stop)) for own in parts]
        assert sum(images, []) == list(range(batch.start, batch.stop))
        assert max(map(len, images)) == math.ceil((batch.stop - batch.start) / count)


def threads_left_behind() -> int:
    """How many threads more there are after the processes were joined than before."""
    late = "torch.distributed.nn"  # torch.compile and DistributedDataParallel import it
    for name in [name for name in sys.modules if name.startswith(late)]:
        del sys.modules[name]
    before = len(list(TASKS.iterdir()))
    with processes.joined():
        importlib.import_module(late)
        processes.total(1)
    return len(list(TASKS.iterdir())) - before


@pytest.mark.skipif(not TASKS.is_dir(), reason="this system does not list a process's threads")
def test_no_thread_outlives_the_joined_processes(tmp_path):
    outcomes = side_by_side(2, tmp_path, threads_left_behind)
    assert [outcome.value for outcome in outcomes] == [0, 0], outcomes


def how_many_joined() -> int:
    """How many processes had joined, the second one slowly, when this one goes on."""
    join = dist.init_process_group

    def slowly(*args, rank: int, **kwargs) -> None:
        join(*args, rank=rank, **kwargs)
        time.sleep(0.3 * rank)
        Path(f"joined{rank}").touch()

    dist.init_process_group = slowly
    with processes.joined():
        return len(list(Path().glob("joined*")))


def test_nobody_goes_on_and_perhaps_fails_before_all_have_joined(tmp_path):
    outcomes = side_by_side(2, tmp_path, how_many_joined)
    assert [outcome.value for outcome in outcomes] == [2, 2]


def write_and_read() -> list[str]:
    path, read = Path("file"), []
    for number in range(3):
        if processes.is_first():
            time.sleep(0.05 * (number % 2))
        else:
            time.sleep(0.05 * (1 - number % 2))
        read.append(path.read_text() if path.exists() else "nothing")
        write_text(path, f"{number} of {processes.process_index()}")
    return [*read, path.read_text()]


def test_the_first_writes_and_others_read_the_old_before_and_the_new_after(tmp_path):
    expected = ["nothing", "0 of 0", "1 of 0", "2 of 0"]
    assert values_of(2, tmp_path, write_and_read) == [expected] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["err0", "err1", "file"]


def fail(which: str) -> None:
    with processes.joined():
        index = processes.process_index()
        print(f"note of {index}", file=sys.stderr)
        if which == "plan":
            processes.check_same("the plan", {"conv1": [0, 1 + index]})
        if which in ("all", str(index)):
            raise ValueError(f"bad input in {index}")
        processes.meet()


@pytest.mark.parametrize(
    ("which", "codes", "errors"),
    [
        ("all", [3, 1], ["note of 0\nValueError: bad input in 0\n", ""]),
        ("0", [3, 1], ["note of 0\nValueError: bad input in 0\n", ""]),
        ("1", [1, 3], ["note of 0\n", "ValueError: bad input in 1\n"]),
        (
            "plan",
            [3, 1],
            [
                "note of 0\nValueError: the plan of process 1 is not that of process 0: expected "
                "the same in all 2 processes, from the same files\n",
                "",
            ],
        ),
    ],
)
def test_one_process_says_why_all_stop(tmp_path, which, codes, errors):
    outcomes = side_by_side(2, tmp_path, fail, which)
    assert [outcome.code for outcome in outcomes] == codes
    assert [outcome.err for outcome in outcomes] == errors
