"""A signal stops at once or at the next good moment, and then means again what it meant before."""

import os
import signal
import threading
import time

import pytest

from utils.runs.stop_signals import Stopped, stops_held, stops_leaving, stops_raised

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def signals_that_are_heard():
    """Handlers of the test's own, which a test in the background would not have either."""
    heard = []
    before = {number: signal.signal(number, lambda *args: heard.append(args[0])) for number in BOTH}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_stops_at_once_and_is_put_back(number, signals_that_are_heard):
    with pytest.raises(Stopped) as stop, stops_raised():
        send(number)
        pytest.fail("it went on")
    assert (stop.value.signal, stop.value.outcome, stop.value.amid) == (number, "", False)
    send(number)
    assert signals_that_are_heard == [number]


@pytest.mark.parametrize("number", BOTH)
def test_a_held_signal_waits_for_the_end_of_the_block(number, capfd):
    passed = []
    with pytest.raises(Stopped) as stop, stops_raised(), stops_held() as stops:
        stops.check()
        send(number)
        passed.append(1)
        with pytest.raises(Stopped):
            stops.check()
        send(signal.SIGTERM)  # whoever sends it twice is no less patient
        passed.append(2)
    assert (passed, stop.value.signal) == ([1, 2], number)
    assert capfd.readouterr().err == "\nstopping after this step; Ctrl-C once more stops at once\n"


def test_a_second_interrupt_does_not_wait():
    with pytest.raises(Stopped) as stop, stops_raised(), stops_held():
        send(signal.SIGINT)
        send(signal.SIGINT)
        pytest.fail("it went on")
    assert stop.value.amid


def test_an_error_of_the_block_goes_before_the_signal_that_waits():
    with pytest.raises(ValueError, match="bad"), stops_raised():
        with stops_held():
            send(signal.SIGTERM)
            raise ValueError("bad")
        pytest.fail("it went on")


def test_nothing_is_held_where_nobody_asked_for_stops(signals_that_are_heard):
    with stops_held() as stops:
        send(signal.SIGTERM)
        stops.check()
    assert signals_that_are_heard == [signal.SIGTERM]


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stops_raised():
        send(signal.SIGINT)


def test_another_thread_has_no_signals_but_may_do_the_same():
    done = []

    def work():
        with stops_raised(), stops_held():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


def test_the_innermost_block_says_what_a_stop_leaves():
    with (
        pytest.raises(Stopped) as stop,
        stops_raised(),
        stops_leaving("outside"),
        stops_leaving("inside"),
        stops_leaving(""),
    ):
        send(signal.SIGTERM)
    assert stop.value.outcome == "inside"


def test_a_worker_leaves_the_signals_of_the_group_to_its_parent():
    with stops_raised():
        worker = os.fork()
        if worker == 0:
            signal.alarm(20)  # an end, whatever happens
            while signal.alarm(20) > 10:
                time.sleep(0.01)
            os._exit(7)
        os.kill(worker, signal.SIGINT)
        time.sleep(0.1)
        assert os.waitpid(worker, os.WNOHANG) == (0, 0)
        os.kill(worker, signal.SIGTERM)  # it has ten seconds more
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 7
