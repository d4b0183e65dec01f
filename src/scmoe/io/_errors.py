"""Errors and warnings of the FCS reader, and the quoting of values in messages."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FCSReadError(ValueError):
    """Raised for a file, or a set of files, that cannot be read as FCS.

    Parameters
    ----------
    path
        The file (or folder) at fault.
    reason
        What is wrong, and what to do about it where something can be done.
    keyword
        The keyword of TEXT at fault, with its ``$``; None if no keyword is.
    value
        Value of the keyword; None if it is missing.
    """

    def __init__(
        self,
        path: str | Path,
        reason: str,
        keyword: str | None = None,
        value: str | None = None,
    ) -> None:
        super().__init__(path, reason, keyword, value)
        self.path = Path(path)
        self.reason = reason
        self.keyword = keyword
        self.value = value

    def __str__(self) -> str:
        return f"{printable(str(self.path))}: {self.reason}"


class FCSRepairWarning(UserWarning):
    """Warns of files that depart from the FCS standard; ``.uns["fcs"]`` lists the repairs."""


class Fault(Exception):
    """Raised for what is wrong with a file where its path is not known, see :func:`faults_of`."""

    def __init__(self, reason: str, keyword: str | None = None, value: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.keyword = keyword
        self.value = value

    def of(self, path: Path) -> FCSReadError:
        """Return the error that names the file."""
        return FCSReadError(path, self.reason, self.keyword, self.value)


@contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """Turn a Fault into an FCSReadError that names the file."""
    try:
        yield
    except Fault as fault:
        raise fault.of(path) from None
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise FCSReadError(path, f"the file cannot be read: {error}") from error


class Repairs:
    """Departures of a file from the standard, and how they were read.

    Parameters
    ----------
    strict
        Raise Fault instead of making a repair.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.messages: list[str] = []
        self.shift: str | None = None

    def repair(self, text: str, keyword: str | None = None, value: str | None = None) -> None:
        """Note a departure from the standard that leaves one possible reading."""
        if self.strict:
            raise Fault(f"{text} (refused because of `strict=True`)", keyword, value)
        self.messages.append(text)

    def repair_shift(self, text: str, keyword: str | None = None) -> None:
        """Note a repair that inserted or deleted bytes would need too; a second one is refused."""
        if self.shift is not None:
            raise Fault(f"{self.shift}, and {text}: bytes were inserted or deleted", keyword)
        self.repair(text, keyword)
        self.shift = text

    def note(self, text: str) -> None:
        """Note what the standard allows but the user should know."""
        self.messages.append(text)


def printable(text: str) -> str:
    """Return a name without characters that control a terminal or do not fit into files.

    Other white space becomes a space; control characters, format characters such as U+202E and
    bytes that are not text are removed.
    """
    if text.isprintable():
        return text
    spaced = "".join(" " if character.isspace() else character for character in text)
    return "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cf", "Cs")).strip()


def quoted(value: str, most: int = 40) -> str:
    """Quote a value of TEXT, shortened and with control characters escaped."""
    return repr(value if len(value) <= most else value[:most] + "...")


def join_numbers(numbers: list[int], most: int = 20) -> str:
    """Return numbers with commas between, shortened if there are many."""
    text = ", ".join(map(str, numbers[:most])) or "none"
    return f"{text}, ..." if len(numbers) > most else text
