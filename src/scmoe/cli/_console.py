"""Messages, errors and signals of a run on the command line."""

from __future__ import annotations

import logging
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

import click

from scmoe._core.progress import stage

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPECTED = (ValueError, KeyError, OSError, ImportError, MemoryError)
"""Errors of invalid input and of full disks; any other error is a bug."""

FAILED = 1

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that end a run; the exit status is 128 plus the number of the signal."""

PATIENCE = 5.0
"""Seconds after which a second signal interrupts again; cleaning up takes less."""

AGAIN = 0.05
"""Seconds after which a signal is sent again that was lost in a destructor."""


class Console:
    """Messages on the standard error stream; warnings are kept for the report.

    Parameters
    ----------
    quiet
        Print only warnings and errors.
    debug
        Show tracebacks, and the warnings of other libraries.

    Attributes
    ----------
    warnings
        Texts of the warnings.
    saved
        The results that have been written.
    """

    def __init__(self, *, quiet: bool, debug: bool) -> None:
        self.quiet = quiet
        self.debug = debug
        self.saved: list[str] = []
        self._stopped_by: int | None = None
        self._stopped_at = 0.0
        self.warnings: list[str] = []

    def stage(self, text: str) -> AbstractContextManager[None]:
        """Show a long step, and how long it took."""
        self._raise_if_interrupted()
        return stage(text, progress=not self.quiet)

    def _raise_if_interrupted(self) -> None:
        """Raise KeyboardInterrupt if a library has suppressed it."""
        if self._stopped_by is not None:
            raise KeyboardInterrupt

    def step(self, text: str) -> None:
        """Print a step of the run."""
        self._raise_if_interrupted()
        if not self.quiet:
            _line(text)

    def warn(self, text: str) -> None:
        """Print a warning, once."""
        text = in_options(one_line(text))
        if text not in self.warnings:
            self.warnings.append(text)
            _line(f"warning: {text}")

    def fail(self, text: str) -> None:
        """Print why there is no result."""
        _line(f"error: {in_options(one_line(text))}")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Print warnings, errors and interruptions as lines, and exit with a status."""
        try:
            with self._warnings_as_lines(), self._signals_as_interruptions():
                yield
        except KeyboardInterrupt:
            self.fail(f"interrupted{self._list_saved('; nothing was written')}")
            sys.exit(128 + (self._stopped_by or signal.SIGINT))
        except click.ClickException:
            raise
        except Exception as error:  # noqa: BLE001
            if self.debug:
                traceback.print_exc()
            self.fail(reason(error) + self._list_saved())
            sys.exit(FAILED)

    def _list_saved(self, nothing: str = "") -> str:
        """Return the results that have been written, in words."""
        return f"; these results are written: {', '.join(self.saved)}" if self.saved else nothing

    @contextmanager
    def _signals_as_interruptions(self) -> Iterator[None]:
        """Raise KeyboardInterrupt at the signals that end a program, but not during cleanup."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: Any) -> None:
            now = time.monotonic()
            if self._stopped_by is None or now > self._stopped_at + PATIENCE:
                self._stopped_by, self._stopped_at = number, now
                # whatever handles Ctrl-C handles the other signals, too
                raise KeyboardInterrupt

        def swallowed(what: Any) -> None:
            number = self._stopped_by
            if issubclass(what.exc_type, KeyboardInterrupt) and number is not None:
                self._stopped_by = None
                main = threading.main_thread().ident
                threading.Timer(AGAIN, signal.pthread_kill, (main, number)).start()
            else:
                unraisable(what)

        unraisable, sys.unraisablehook = sys.unraisablehook, swallowed
        # an ignored signal, such as SIGHUP under nohup, stays ignored
        before = {
            number: signal.signal(number, stop)
            for number in STOPPING
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield
        finally:
            sys.unraisablehook = unraisable
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _warnings_as_lines(self) -> Iterator[None]:
        """Print the warnings and log messages of the library."""
        logger = logging.getLogger("scmoe")
        handler = _Handler(self)
        handler.setLevel(logging.WARNING)
        propagate = logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        try:
            # scvi-tools prints its progress bars to the standard output stream
            with warnings.catch_warnings(), redirect_stdout(sys.stderr):
                if not self.debug:
                    warnings.simplefilter("ignore")
                warnings.filterwarnings("always", category=UserWarning, module=r"scmoe(\.|$)")
                warnings.showwarning = lambda message, *_, **__: self.warn(_advise(message))
                yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate


def _advise(message: Warning | str) -> str:
    """Return the text of a warning, with options in place of the advice of the library."""
    # loads numpy, which --help does not need
    from scmoe._core.values import ScaleWarning

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
    """Return the reason of an error in one line."""
    if isinstance(error, KeyError):
        # str() of it would be quoted
        text = str(error.args[0]) if error.args else ""
        # a bare key is no message of scmoe
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
    return f"unexpected {name}: {error} (a bug; --debug shows where)"


_OPTIONS = [
    (re.compile(pattern), option)
    for pattern, option in (
        # records of the library
        (r"\.uns\[['\"]fcs['\"]\] has no", "the file has no"),
        (r",? see \.uns\[['\"]\w+['\"]\](\[[^]]*\])*", ""),
        (r"\.uns\[['\"]fcs['\"]\]\[sample\]\[['\"]repairs['\"]\] tells", "the report tells"),
        (r", see \.layers\[['\"]measured['\"]\]", ""),
        (r"`?\.?obs\[['\"](.+?)['\"]\]`?", r"the column '\1'"),
        (r"`?(?:adata)?\.layers\[['\"](.+?)['\"]\]`?", r"the layer '\1'"),
        (r"`?(?:adata)?\.uns\[['\"](.+?)['\"]\](\[[^]]*\])*`?", r"the record '\1'"),
        (r"`adata\.X`|(?<![\w)])\.X\b", "X"),
        (r"in `\.obs`, which (?:has|holds) (\[.*?\])", r"among the columns \1"),
        # arguments of functions
        (
            r"Try a smaller learning rate \(.*?\), train longer, or take another `similarity`",
            "Try more --max-epochs or another --similarity",
        ),
        (
            r"`scmoe\.similarity\.DensityTree` with a smaller `significance` takes fainter ones",
            "Another --similarity may find groups",
        ),
        (r"(?:pass )?`?(join|by|offsets|dataset)=[\"']?(\w+)[\"']?`?", r"--\1 \2"),
        (r"(?:pass )?`?(strict|overwrite)=True`?", r"--\1"),
        (r"`?(spillover|layer|offsets|dataset|cofactor|markers|channels)=`?", r"--\1"),
        (r"`scmoe\.pp\.(?:arcsinh|compensate)`", lambda found: _OF_FUNCTION[found[0][10:-1]]),
    )
]
"""Patterns of the messages of the library, and their words on the command line."""

_OF_FUNCTION = {"arcsinh": "--transform", "compensate": "--compensate"}


def in_options(text: str) -> str:
    """Return a message of the library in the words of the command line."""
    for pattern, option in _OPTIONS:
        text = pattern.sub(option, text)
    return text


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, which file names may have."""
    text = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(text.split())


def _line(text: str) -> None:
    # a run without its terminal cannot print
    with suppress(OSError):
        click.echo(f"scmoe: {text}", err=True)
