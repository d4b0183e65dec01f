"""What the FCS reader raises and warns with."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FCSReadError(ValueError):
    """A file, or a set of files, that cannot be read as FCS.

    Parameters
    ----------
    path
        The file (or folder) at fault.
    reason
        What is wrong with it, and what to do about it where something can be done.
    keyword
        The keyword of TEXT that is at fault, with its ``$``; None if it is none.
    value
        What the file says there; None if the keyword is missing.
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
    """The files disagreed with the FCS standard; what was done is in ``.uns["fcs"]``."""


class Fault(Exception):
    """What is wrong with a file, before somebody says which file it is."""

    def __init__(self, reason: str, keyword: str | None = None, value: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.keyword = keyword
        self.value = value

    def of(self, path: Path) -> FCSReadError:
        """Return the error that the user sees."""
        return FCSReadError(path, self.reason, self.keyword, self.value)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file into the error that names it."""
    try:
        yield
    except Fault as fault:
        raise fault.of(path) from None
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise FCSReadError(path, f"the file cannot be read: {error}") from error


class Repairs:
    """What was found in a file and how it was read; refuses repairs if it is strict."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.told: list[str] = []
        self.shift: str | None = None

    def repair(self, text: str, keyword: str | None = None, value: str | None = None) -> None:
        """Note what disagrees with the standard but leaves one reading only."""
        if self.strict:
            raise Fault(f"{text} (refused because of `strict=True`)", keyword, value)
        self.told.append(text)

    def moved(self, text: str, keyword: str | None = None) -> None:
        """Note a repair that bytes put in or cut out would ask for; two are no accident."""
        if self.shift is not None:
            raise Fault(f"{self.shift}, and {text}: bytes were put in or cut out", keyword)
        self.repair(text, keyword)
        self.shift = text

    def tell(self, text: str) -> None:
        """Note what the standard allows but the user has to know."""
        self.told.append(text)


def printable(text: str) -> str:
    """Return a name without what a terminal obeys and h5ad or FCS files cannot hold.

    Other blanks become a space; control characters, format characters such as U+202E and bytes
    that are no text are left out.
    """
    if text.isprintable():
        return text
    spaced = "".join(" " if character.isspace() else character for character in text)
    return "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cf", "Cs")).strip()


def shown(value: str, most: int = 40) -> str:
    """Quote a value of TEXT, which may be long or hold what no terminal should see."""
    return repr(value if len(value) <= most else value[:most] + "...")


def listed(numbers: list[int], most: int = 20) -> str:
    """List numbers, not all of very many."""
    text = ", ".join(map(str, numbers[:most])) or "none"
    return f"{text}, ..." if len(numbers) > most else text
