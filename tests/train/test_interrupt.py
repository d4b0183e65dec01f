"""Ctrl-C during a fit is a KeyboardInterrupt, and the next one works too."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest
from lightning.pytorch.callbacks import Callback

from scmoe._core.compat import interruptible
from scmoe.model import MoESimVAE

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def model(linked):
    MoESimVAE.setup_anndata(linked)
    return MoESimVAE(linked, 5)


class Raises(Callback):
    """Fail in the middle of the second epoch."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 1:
            raise self.error


class PressesCtrlC(Callback):
    """Send a real SIGINT from another thread, then go on until it arrives."""

    def __init__(self):
        self.sent = False

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 1 and not self.sent:
            self.sent = True
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        if self.sent:
            time.sleep(0.01)


def test_interrupt_in_the_middle(model):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.train(3, callbacks=[Raises(KeyboardInterrupt())], **QUIET)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not model.is_trained


def test_real_interrupt(model):
    handler = signal.getsignal(signal.SIGINT)
    callback = PressesCtrlC()
    with pytest.raises(KeyboardInterrupt):
        model.train(500, callbacks=[callback], **QUIET)
    assert callback.sent
    assert signal.getsignal(signal.SIGINT) is handler
    assert not model.is_trained
    # not deaf to the next one
    with pytest.raises(KeyboardInterrupt):
        model.train(500, callbacks=[PressesCtrlC()], **QUIET)


def test_training_after_an_interrupt(model):
    with pytest.raises(KeyboardInterrupt):
        model.train(3, callbacks=[Raises(KeyboardInterrupt())], **QUIET)
    model.train(1, **QUIET)
    assert len(model.predict()) == 600


def test_other_errors_arrive_as_they_are(model):
    with pytest.raises(RuntimeError, match="the disk is full"):
        model.train(3, callbacks=[Raises(RuntimeError("the disk is full"))], **QUIET)


def test_handler_is_restored_after_a_good_end(model):
    handler = signal.getsignal(signal.SIGINT)
    model.train(1, **QUIET)
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_exit_that_is_no_interrupt_stays_an_exit():
    with pytest.raises(SystemExit), interruptible():
        sys.exit(3)


def test_lightning_way_of_exiting_becomes_an_interrupt():
    def lightning():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit(1)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        lightning()
    assert signal.getsignal(signal.SIGINT) is handler


def test_works_outside_the_main_thread():
    seen = []

    def body():
        with interruptible():
            seen.append("body")

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == ["body"]


def test_nothing_is_printed_of_an_error(model, capfd):
    """scvi-tools prints a line about it, which says less than the error."""
    with pytest.raises(NameError, match="mine"):
        model.train(3, callbacks=[Raises(NameError("mine"))], **QUIET)
    assert capfd.readouterr() == ("", "")
