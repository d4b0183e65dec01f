"""Clustering of single cells by a mixture-of-experts similarity VAE.

The sub-packages load when they are first used, so ``import scmoe`` stays fast and
torch is imported only when a model is.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "datasets",
        "get",
        "io",
        "metrics",
        "model",
        "pl",
        "pp",
        "similarity",
        "tl",
    ],
)

__version__ = version("scmoe")
