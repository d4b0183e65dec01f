"""The command line: files in; labelled cells, tables and a report out."""

from ._command import main

__all__ = ["main"]
