"""log.jsonl is exact and can be cut back; TensorBoard shows the run in one event stream."""

import struct

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog, read_log


def curve(folder, tag):
    events = EventAccumulator(str(folder.path))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def log_of(tmp_path, count):
    folder = JobFolder(tmp_path)
    with RunLog(folder) as log:
        for epoch in range(count):
            log.epoch({"epoch": epoch, "loss": 0.1 + epoch / 3})
    return folder


def test_records_come_back_exactly_and_are_appended_to(tmp_path):
    folder = log_of(tmp_path, 2)
    with RunLog(folder) as log:
        assert log.lines == 2
        log.epoch({"epoch": 2})
    expected = [{"epoch": 0, "loss": 0.1}, {"epoch": 1, "loss": 0.1 + 1 / 3}, {"epoch": 2}]
    assert read_log(folder.log) == expected


def test_a_log_can_be_cut_back_to_what_counts(tmp_path):
    folder = log_of(tmp_path, 4)
    with RunLog(folder, keep_lines=2) as log:
        assert log.lines == 2
        assert [record["epoch"] for record in read_log(folder.log)] == [0, 1]


def test_a_log_that_lost_lines_is_refused(tmp_path):
    folder = log_of(tmp_path, 2)
    with pytest.raises(ValueError, match=r"log\.jsonl has 2 lines: expected at least the 3"):
        RunLog(folder, keep_lines=3)


def test_half_a_line_is_no_line(tmp_path):
    folder = log_of(tmp_path, 2)
    whole = folder.log.read_bytes()
    folder.log.write_bytes(whole[:-4])
    assert [record["epoch"] for record in read_log(folder.log)] == [0]
    with RunLog(folder) as log:
        log.epoch({"epoch": 1, "loss": 0.1 + 1 / 3})
    assert folder.log.read_bytes() == whole


def test_a_missing_log_and_a_broken_line_are_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_log(tmp_path / "log.jsonl")
    (tmp_path / "log.jsonl").write_text("{}\nnonsense\n")
    with pytest.raises(ValueError, match=r"line 2 is not JSON \(column 1: "):
        read_log(tmp_path / "log.jsonl")


def test_nan_is_not_logged(tmp_path):
    folder = log_of(tmp_path, 1)
    with RunLog(folder) as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.epoch({"loss": float("nan")})
    assert len(read_log(folder.log)) == 1


def test_a_log_without_curves_leaves_no_event_files(tmp_path):
    folder = log_of(tmp_path, 1)
    assert [path.name for path in folder.path.iterdir()] == ["log.jsonl"]


def test_curves_options_and_pages_lie_in_the_run_itself(tmp_path):
    folder = JobFolder(tmp_path)
    with RunLog(folder) as log:
        log.scalars({"loss/train": 0.5, "lr": 0.1}, step=0)
        log.histogram("rank/conv1", torch.arange(8.0), step=0)
        log.text("summary", "**done**")
        log.hparams({"lr": 0.1, "decay_epochs": (5,), "augment": True}, {"top1_percent": 93.5})
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["histograms"] == ["rank/conv1"]
    assert set(events.Tags()["scalars"]) == {"loss/train", "lr", "top1_percent"}
    metadata = events.summary_metadata
    assert any(data.plugin_data.plugin_name == "hparams" for data in metadata.values())
    assert metadata["summary/text_summary"].plugin_data.plugin_name == "text"


def test_what_is_drawn_is_not_drawn_again_also_where_a_kill_cut_the_file(tmp_path):
    folder = JobFolder(tmp_path)
    for values in ([0.0, 1.0, 2.0], [5.0, 5.0, 20.0, 30.0], [6.0] * 4):
        with RunLog(folder) as log:
            for step, value in enumerate(values):
                log.scalars({"loss": value}, step)
            log.text("summary", "once")
        if len(values) == 3:  # the first run dies amid its last two events, a point and a page
            (file,) = tmp_path.glob("*.tfevents.*")
            file.write_bytes(file.read_bytes()[:-100])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("loss")]
    assert points == [(0, 0.0), (1, 1.0), (2, 20.0), (3, 30.0)]
    assert len(events.Tensors("summary/text_summary")) == 1
    assert len(list(tmp_path.glob("*.tfevents.*"))) == 2, "nothing new, yet a file"


def test_a_full_disk_stops_the_line_and_the_log_goes_on_behind_the_whole_ones(
    tmp_path, bytes_of_a_file
):
    folder = log_of(tmp_path, 2)
    whole = folder.log.read_bytes()
    expected = r"cannot write .*log\.jsonl \(File too large\): expected a writable place"
    refused = pytest.raises(ValueError, match=expected)
    with RunLog(folder) as log, bytes_of_a_file(len(whole) + 5), refused:
        log.epoch({"epoch": 2})
    assert folder.log.read_bytes() == whole + b'{"epo'
    with RunLog(folder) as log:
        log.epoch({"epoch": 2})
    assert folder.log.read_bytes() == whole + b'{"epoch": 2}\n'


def test_a_full_disk_stops_the_curves_and_new_ones_go_on(tmp_path, bytes_of_a_file):
    folder = JobFolder(tmp_path)
    with bytes_of_a_file(300), RunLog(folder) as log:
        expected = r"cannot write .*events\.out\.tfevents.* \(File too large\): expected"
        with pytest.raises(ValueError, match=expected):
            for step in range(100):
                log.scalars({"loss": 10.0}, step)
    assert 1 < step < 10
    with RunLog(folder) as log:
        log.scalars({"loss": 20.0}, step)
    assert curve(folder, "loss") == {**dict.fromkeys(range(step), 10.0), step: 20.0}


@pytest.mark.parametrize("place", [40, -10])
def test_a_damaged_event_file_is_said_and_stops_no_run(tmp_path, capsys, place):
    folder = JobFolder(tmp_path)
    with RunLog(folder) as log:
        log.scalars({"loss": 1.0}, step=0)
    (file,) = tmp_path.glob("*.tfevents.*")
    data = bytearray(file.read_bytes())
    data[place] ^= 0xFF
    file.write_bytes(data)
    with RunLog(folder) as log:
        log.scalars({"loss": 1.0}, step=0)
    assert f"{file} is damaged, and read no further: a checksum does not agree" in (
        capsys.readouterr().err
    )
    assert file.read_bytes() == data and len(list(tmp_path.glob("*.tfevents.*"))) == 2


def test_an_event_longer_than_its_file_is_not_read(tmp_path):
    """Its length has the right checksum: nothing but the file's size says that it cannot be."""
    folder, length = JobFolder(tmp_path), struct.pack("<Q", 2**45)
    head = length + struct.pack("<I", masked_crc32c(length))
    (tmp_path / "events.out.tfevents.0000000001.0.0").write_bytes(head + bytes(100))
    with RunLog(folder) as log:
        log.scalars({"loss": 1.0}, step=0)
    assert len(list(tmp_path.glob("*.tfevents.*"))) == 2


def test_a_clock_that_goes_back_leaves_event_files_in_order(tmp_path, monkeypatch):
    names = []
    for now in (5000, 1000, 3000):
        monkeypatch.setattr("time.time", lambda now=now: now)
        with RunLog(JobFolder(tmp_path)) as log:
            log.scalars({"loss": 1.0}, step=now)
        names += [p.name for p in tmp_path.glob("*.tfevents.*") if p.name not in names]
    assert names == sorted(names) and len(names) == 3


def test_a_log_that_is_only_opened_stays_as_it_is(tmp_path):
    folder = log_of(tmp_path, 2)
    folder.log.write_bytes(folder.log.read_bytes() + b'{"half')
    before = folder.log.read_bytes()
    with RunLog(folder):
        pass
    assert folder.log.read_bytes() == before
