"""Steps that a signal must not cut in two."""

import os
import signal
import threading

import pytest

from mtlsk.whole import STOPS, whole


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_waits_until_the_step_is_done_and_tells_it_to_hurry(number):
    came, order = [], []
    signal.signal(number, lambda n, frame: came.append(n))
    with whole(lambda: order.append("hurry")):
        os.kill(os.getpid(), number)
        order.append("done")
        assert came == []
    assert order == ["hurry", "done"]
    assert came == [number]


def test_what_it_raises_comes_after_the_step():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    def step():
        with whole():
            signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hurried = []
    with whole(lambda: hurried.append(1)):
        signal.raise_signal(signal.SIGINT)
    assert hurried == []
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_has_no_signals():
    def step():
        with whole():
            seen.append(signal.getsignal(signal.SIGTERM))

    before, seen = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert seen == [before]
