"""Every AnnData slot that scmoe reads or writes, named once."""

from __future__ import annotations


class Key:
    """Names of the slots. ``key`` is the user's ``key_added`` (default ``"scmoe"``)."""

    DEFAULT = "scmoe"

    class var:
        """Columns of ``.var`` written by the FCS reader."""

        CHANNEL = "channel"
        """Name of the channel on the instrument (``$PnN``)."""
        MARKER = "marker"
        """Name of the marker (``$PnS``); empty where the file names none."""
        KIND = "kind"
        """What the channel measures: one of ``fluor, mass, scatter, time, other``."""

    class obs:
        """Columns of ``.obs``."""

        SAMPLE = "sample"
        """The file that a cell comes from."""
        POPULATION = "population"
        """The population that somebody gave a cell, NaN for none."""

        @staticmethod
        def labels(key: str) -> str:
            return key

    class obsm:
        """Arrays in ``.obsm``."""

        @staticmethod
        def latent(key: str) -> str:
            return f"X_{key}"

        @staticmethod
        def proba(key: str) -> str:
            return f"{key}_proba"

    class uns:
        """Records in ``.uns``."""

        FCS = "fcs"
        """Keywords and repairs of the FCS files, per sample."""
        ARCSINH = "arcsinh"
        """Parameters of the arcsinh transform that was applied, per layer."""

        @staticmethod
        def result(key: str) -> str:
            return key
