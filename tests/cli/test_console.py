"""How a run ends."""

from __future__ import annotations

import os
import signal
import time

import pytest

from scmoe.cli._console import Console


class Dies:
    """Gets a signal in its destructor, where exceptions are swallowed."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        time.sleep(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_a_destructor_is_not_lost(number, capsys):
    before = signal.getsignal(number)
    cleaned = []

    def run():
        with Console(quiet=False, debug=False).guard():
            try:
                Dies(number)
                time.sleep(20)
            finally:
                # another one does not break the cleaning
                os.kill(os.getpid(), number)
                cleaned.append(True)

    start = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 128 + number
    assert time.monotonic() - start < 10
    assert cleaned
    assert "error: interrupted; nothing was written" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Console(quiet=False, debug=False).guard():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)
