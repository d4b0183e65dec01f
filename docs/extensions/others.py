"""Link names of other packages to their documentation without downloading inventories.

The address of a name follows from a rule for each package. A name that the installed package does
not have stays unresolved, and causes the usual warning.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy.typing
from docutils.nodes import reference

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

RULES = {
    "anndata": "https://anndata.readthedocs.io/en/stable/generated/{name}.html#{name}",
    "matplotlib": "https://matplotlib.org/stable/api/_as_gen/{name}.html#{name}",
    "numpy": "https://numpy.org/doc/stable/reference/generated/{name}.html#{name}",
    "numpy.random": "https://numpy.org/doc/stable/reference/random/generator.html#{name}",
    "numpy.typing": "https://numpy.org/doc/stable/reference/typing.html#{name}",
    "pandas": "https://pandas.pydata.org/docs/reference/api/{name}.html#{name}",
    "scanpy": "https://scanpy.readthedocs.io/en/1.11.x/generated/{name}.html#{name}",
    "scipy": "https://docs.scipy.org/doc/scipy/reference/generated/{name}.html#{name}",
    "scvi": "https://docs.scvi-tools.org/en/stable/api/reference/{name}.html#{name}",
    "sklearn": "https://scikit-learn.org/stable/modules/generated/{name}.html#{name}",
    "torch": "https://docs.pytorch.org/docs/stable/generated/{name}.html#{name}",
    "torch.Tensor": "https://docs.pytorch.org/docs/stable/tensors.html#{name}",
    "": "https://docs.python.org/3/library/{module}.html#{name}",
}
"""Addresses by the prefix of the name; the longest matching one is used, ``""`` is Python."""

PUBLIC = {
    "anndata._core.anndata.": "anndata.",
    "matplotlib.axes._axes.": "matplotlib.axes.",
    "numpy.random._generator.": "numpy.random.",
    "pandas.core.frame.": "pandas.",
    "pandas.core.series.": "pandas.",
    "scipy.sparse._csr.": "scipy.sparse.",
}
"""Modules in which classes are defined, and the public modules of the same classes."""


TYPES = {"bytes", "dict", "frozenset", "list", "range", "set", "str", "tuple"}
"""Builtins that the Python library reference lists among the standard types."""


def address(name: str) -> str | None:
    """Return the address of a public name; None if the name does not exist."""
    for private, public in PUBLIC.items():
        name = name.replace(private, public)
    try:
        found = resolve_name(name if "." in name else f"builtins:{name}")
    except (ImportError, AttributeError, ValueError):
        return None
    rule = max((r for r in RULES if f"{name}.".startswith(f"{r}." if r else "")), key=len)
    module = name.rpartition(".")[0]
    if not module:
        error = isinstance(found, type) and issubclass(found, BaseException)
        constant = found is None or found is Ellipsis
        module = "exceptions" if error else "constants" if constant else "functions"
        module = "stdtypes" if name in TYPES else module
    return RULES[rule].format(name=name, module=module)


def link(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: TextElement
) -> Element | None:
    """Resolve a reference to a name of another package."""
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py" or name.split(".")[0] == "scmoe":
        return None
    found = address(name)
    return None if found is None else reference("", "", content, internal=False, refuri=found)


class ArrayLike:
    """Replace the union of a dozen protocols, which is unreadable in a signature."""

    __module__ = "numpy.typing"


def setup(app: Sphinx) -> dict[str, bool]:
    numpy.typing.ArrayLike = ArrayLike
    # after intersphinx, where that is in use
    app.connect("missing-reference", link, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
