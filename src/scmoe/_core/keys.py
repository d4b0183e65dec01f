"""Every AnnData slot that scmoe reads or writes, named once."""

from __future__ import annotations


class Key:
    """Names of the slots. ``key`` is the user's ``key_added`` (default ``"scmoe"``)."""

    DEFAULT = "scmoe"
    N_CLUSTERS = "n_clusters"
    """The default ``key_added`` of the number of clusters."""
    LATENT_DIM = "latent_dim"

    class var:
        """Columns of ``.var`` written by the FCS reader."""

        CHANNEL = "channel"
        """Name of the channel on the instrument (``$PnN``)."""
        MARKER = "marker"
        """Name of the marker (``$PnS``); empty where the file names none."""
        KIND = "kind"
        """What the channel measures: one of ``fluor, mass, scatter, time, copy, other``."""
        MARKER_KINDS = ("mass", "fluor")
        """Kinds of channels that a clustering looks at."""
        TECHNICAL_KINDS = ("time", "scatter", "copy", "other")
        """All others."""

    class obs:
        """Columns of ``.obs``."""

        SAMPLE = "sample"
        """The file that a cell comes from."""
        EVENT = "event"
        """Number of a cell within its file, from 0."""
        POPULATION = "population"
        """The population that somebody gave a cell, NaN for none."""
        LABEL = "label"
        """What an image shows."""
        SPLIT = "split"
        """``train`` or ``test``, as the images were published."""
        FILE = "file"
        """The file that a cell comes from, where that is not its sample."""

        CLUSTER = "cluster"
        """The cluster that a step of a walk is of."""
        EXPERT = "expert"
        """The cluster whose expert made a cell of a walk or of a probe."""

        @staticmethod
        def expert(key: str) -> str:
            """Name the cluster whose expert generated a cell."""
            return f"{key}_expert"

        @staticmethod
        def labels(key: str) -> str:
            return key

        @staticmethod
        def outlier(key: str) -> str:
            return f"{key}_outlier"

        @staticmethod
        def consensus(key: str) -> str:
            return f"{key}_consensus"

        @staticmethod
        def ambiguity(key: str) -> str:
            return f"{key}_ambiguity"

        @staticmethod
        def names(key: str) -> str:
            return f"{key}_names"

        @staticmethod
        def arm_consensus(key: str) -> str:
            """Share of the pairs of arms that give a cell the same category."""
            return f"{key}_arm_consensus"

        @staticmethod
        def entropy(key: str) -> str:
            """Entropy of the categories of a cell, in nats."""
            return f"{key}_entropy"

    class obsm:
        """Arrays in ``.obsm``."""

        MARKERS = "X_markers"
        """The values that the command line clusters by, where they are not all of ``.X``."""
        PRIOR = "marker_prior"
        """Which classes the markers of each cell speak for."""

        @staticmethod
        def latent(key: str) -> str:
            return f"X_{key}"

        @staticmethod
        def proba(key: str) -> str:
            return f"{key}_proba"

        @staticmethod
        def runs(key: str) -> str:
            return f"{key}_runs"

        @staticmethod
        def state(key: str) -> str:
            """Name the state of a cell within its category."""
            return f"{key}_state"

        @staticmethod
        def votes(key: str) -> str:
            """Name the category that each arm assigns, as a column of the probabilities."""
            return f"{key}_votes"

    class obsp:
        """Graphs in ``.obsp``."""

        GRAPH = "scmoe_connectivities"
        """The graph of a clustering, in its working copy of the cells."""

    class layers:
        """Arrays of cells x variables in ``.layers``."""

        MEASURED = "measured"
        """Whether the file of a cell has the marker."""

    class uns:
        """Records in ``.uns``."""

        FCS = "fcs"
        """Keywords and repairs of the FCS files, per sample."""
        ARCSINH = "arcsinh"
        """Parameters of the arcsinh transform that was applied, per layer."""
        COMPENSATED = "compensated"
        """The spillover that was undone, per layer."""
        IMAGE_SHAPE = "image_shape"
        """Rows, columns and, if there are any, channels of the images that ``.X`` holds flat."""
        VALUE_SCALE = "value_scale"
        """What the values of an array were divided by; times it they are as they were."""
        GENERATED = "generated"
        """How generated cells were drawn."""

        @staticmethod
        def result(key: str) -> str:
            return key

        @staticmethod
        def stability(key: str) -> str:
            return f"{key}_stability"

        @staticmethod
        def state_genes(key: str) -> str:
            """Name the table of markers that follow the state within each cluster."""
            return f"{key}_state_genes"

        @staticmethod
        def cut(key: str) -> str:
            """Name the labels of a tree that is cut again."""
            return f"{key}_cut"
