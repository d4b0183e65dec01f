"""Benchmarks of scmoe and its peers. Not part of the wheel.

An experiment is a module of this package with

``KEYS``
    Columns that identify a record: a new record replaces an old one with the same values.
``SEEDS``
    Seeds by default.
``SETTINGS``
    What holds for all records; written beside them.
``run(options, say)``
    Makes records, plain dicts; a generator, so that each is written as it comes.
``section(result)``
    The part of the page that shows them, markdown.
"""

EXPERIMENTS = (
    "cytof",
    "synthetic",
    "images",
    "decoders",
    "organs",
    "cells",
    "assign",
    "batches",
    "numbers",
    "auto",
    "latents",
    "santos",
    "augmentation",
    "coupled",
    "stability",
    "speed",
    "cost",
)
"""Names of the experiments, in the order of the page."""
