"""Files that are all there in the end, or none is."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_all(
    writers: Iterable[tuple[Path, Callable[[BinaryIO], None]]],
) -> None:
    """Let each writer fill a file under a temporary name beside its own; then rename them all.

    If anything fails, temporary files go, and so do new files that were renamed already.
    """
    partial: dict[Path, Path] = {}
    renamed: list[Path] = []
    try:
        for path, write in writers:
            partial[path] = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
            with partial[path].open("xb") as handle:
                write(handle)
                handle.flush()
                os.fsync(handle.fileno())
        for path, temporary in partial.items():
            is_new = not path.exists()
            temporary.replace(path)
            if is_new:
                renamed.append(path)
    except BaseException:
        for path in [*partial.values(), *renamed]:
            path.unlink(missing_ok=True)
        raise


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise FileExistsError if any of the files is there."""
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise FileExistsError(f"Would overwrite {', '.join(there)}; pass `overwrite=True`.")


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder, with those above it; on an error, remove what was made."""
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for empty in made:
            empty.rmdir()
        raise
