"""The scanpy-style face of the models."""

from scmoe.tl._cluster import cluster

__all__ = ["cluster"]
