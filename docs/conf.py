"""The site of the documentation: these same Markdown pages, and a reference made of the docstrings."""

from mnistlab import __version__

project = "mnistlab"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"mnistlab {__version__}"
exclude_patterns = ["_build"]

myst_heading_anchors = 4  # pages link to headings, as they do where Markdown is read without a site
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
