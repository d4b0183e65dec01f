"""What the user is told while the command runs, and how it ends."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
import warnings
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPECTED = (ValueError, KeyError, OSError, ImportError, MemoryError)
"""What wrong input and full disks raise; anything else is a fault of the program."""

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143


class Console:
    """Lines on the standard error stream; warnings are kept for the report.

    Parameters
    ----------
    quiet
        Tell warnings and errors only.
    debug
        Show tracebacks, and the warnings of other libraries.

    Attributes
    ----------
    warnings
        What the user was warned of.
    goes_on
        How to go on after an interruption; empty if there is no way.
    """

    def __init__(self, *, quiet: bool, debug: bool) -> None:
        self.quiet = quiet
        self.debug = debug
        self.goes_on = ""
        self.warnings: list[str] = []

    def step(self, text: str) -> None:
        """Say what is being done."""
        if not self.quiet:
            _line(text)

    def warn(self, text: str) -> None:
        """Say what the user should look at, once."""
        text = one_line(text)
        if text not in self.warnings:
            self.warnings.append(text)
            _line(f"warning: {text}")

    def fail(self, text: str) -> None:
        """Say why there is no result."""
        _line(f"error: {one_line(text)}")

    @property
    def bars(self) -> bool:
        """Whether to draw progress bars: not into files, where each step would be a line."""
        return not self.quiet and sys.stderr.isatty()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn warnings into lines, and errors and interruptions into a line and a status."""
        terminated = []

        def terminate(*_) -> None:
            terminated.append(True)
            # what is in the way of Ctrl-C is in the way of this too
            raise KeyboardInterrupt

        try:
            with self._library_speaks_here(), _on_sigterm(terminate):
                yield
        except KeyboardInterrupt:
            self.fail(f"interrupted; nothing was written. {self.goes_on}")
            sys.exit(TERMINATED if terminated else INTERRUPTED)
        except click.ClickException:
            raise
        except Exception as error:  # noqa: BLE001
            if self.debug:
                traceback.print_exc()
            self.fail(reason(error))
            sys.exit(FAILED)

    @contextmanager
    def _library_speaks_here(self) -> Iterator[None]:
        logger = logging.getLogger("scmoe")
        handler = _Handler(self)
        handler.setLevel(logging.WARNING)
        propagate = logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        try:
            # the bars of scvi-tools go to the standard output stream
            with warnings.catch_warnings(), redirect_stdout(sys.stderr):
                if not self.debug:
                    warnings.simplefilter("ignore")
                warnings.filterwarnings("always", category=UserWarning, module=r"scmoe(\.|$)")
                warnings.showwarning = lambda message, *_, **__: self.warn(_in_options(message))
                yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate


def _in_options(message: Warning | str) -> str:
    """Return what a warning says, with options for what the library advises."""
    # --help loads nothing of this
    from scmoe._checks import ScaleWarning

    if not isinstance(message, ScaleWarning):
        return str(message)
    return f"{message.what} --transform applies arcsinh, --no-transform leaves values as they are."


class _Handler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.warn(record.getMessage())


def reason(error: Exception) -> str:
    """Why it failed, in one line."""
    if isinstance(error, KeyError):
        # str() of it would be quoted
        text = str(error.args[0]) if error.args else ""
        # a bare key, which no message of ours is, comes from elsewhere
        return text if " " in text else _unexpected(error)
    if isinstance(error, OSError) and error.strerror:
        names = [str(n) for n in (error.filename, error.filename2) if n is not None]
        return ": ".join([*names, error.strerror])
    if isinstance(error, MemoryError):
        return f"out of memory. {error}"
    if isinstance(error, EXPECTED):
        return str(error) or type(error).__name__
    return _unexpected(error)


def _unexpected(error: Exception) -> str:
    name = type(error).__name__
    return f"unexpected {name}: {error} (a fault of the program; --debug shows where)"


def one_line(text: str) -> str:
    """The text without line breaks or control characters, which names of files may hold."""
    text = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(text.split())


def _line(text: str) -> None:
    click.echo(f"scmoe: {text}", err=True)


@contextmanager
def _on_sigterm(handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
