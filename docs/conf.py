"""Configuration of Sphinx.

The documentation builds without a network: links to other packages follow the rules in
``extensions/others.py``. With ``SCMOE_INTERSPHINX=1``, and on Read the Docs, they come from the
inventories of these packages.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import warnings
from importlib.metadata import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

# sphinx-autodoc-typehints 3.6 says this of its own code, for every docstring
warnings.filterwarnings("ignore", message=".*set_application' is deprecated")

# -- project -------------------------------------------------------------------------------

info = metadata("scmoe")
project = info["Name"]
author = info["Author"]
copyright = f"2026, {author}"
version = release = info["Version"]

# -- extensions ----------------------------------------------------------------------------

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "mathml",
    "others",
    "prose_returns",
]
if os.environ.get("SCMOE_INTERSPHINX") or os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
    "distributed": ("https://distributed.dask.org/en/stable/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/docs/", None),
    "python": ("https://docs.python.org/3/", None),
    "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    "scipy": ("https://docs.scipy.org/doc/scipy/", None),
    "scvi-tools": ("https://docs.scvi-tools.org/en/stable/", None),
    "sklearn": ("https://scikit-learn.org/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}
# autosummary writes its pages with the first of these endings
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]


def is_ours(module: str, name: str, member: str) -> bool:
    """Return whether scmoe, also in a private base class, defines a member of a class."""
    bases = getattr(importlib.import_module(module), name).__mro__
    owner = next((base for base in bases if member in vars(base)), object)
    return owner.__module__.split(".")[0] == "scmoe"


autosummary_context = {"is_ours": is_ours}
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # sphinx_autodoc_typehints writes them
typehints_defaults = "braces"
typehints_document_rtype = False
always_use_bars_union = True

napoleon_google_docstring = False
napoleon_use_param = True

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
suppress_warnings = [
    # notebooks contain outputs of types that Sphinx does not know
    "mystnb.unknown_mime_type",
    # a function in the context of templates cannot be cached
    "config.cache",
]

# Every name must resolve, ours and those of others (extensions/others.py).
nitpicky = True
# Private base classes have no page; their methods are listed with those of the class.
nitpick_ignore_regex = [(r"py:class", r"scmoe\..*\._.*")]

# -- appearance ----------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = "scmoe"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["scmoe.css"]
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search is in the sidebar
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


# -- tutorials -----------------------------------------------------------------------------


def copy_tutorials() -> None:
    """Copy ``../tutorials/*.ipynb`` here and write the page that lists them."""
    target = HERE / "tutorials"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    names = []
    for notebook in sorted((HERE.parent / "tutorials").glob("*.ipynb")):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        (target / notebook.name).write_text(json.dumps(content), encoding="utf-8")
        names.append(notebook.stem)
    page = ["# Tutorials", "", "Notebooks to read, or to run on your own cells."]
    if names:
        page += ["", "```{toctree}", ":maxdepth: 1", "", *names, "```"]
    (target / "index.md").write_text("\n".join(page) + "\n", encoding="utf-8")


copy_tutorials()
# remove the pages of names that no longer exist: they would be in no table of contents
shutil.rmtree(HERE / "api" / "generated", ignore_errors=True)
