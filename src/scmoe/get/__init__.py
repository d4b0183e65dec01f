"""Results as tables."""

from scmoe.get._proba import cluster_proba

__all__ = ["cluster_proba"]
