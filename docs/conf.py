"""The site of the documentation: these same Markdown pages, and a reference made of the docstrings."""

from mnistlab import __version__

project = "mnistlab"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"mnistlab {__version__}"
exclude_patterns = ["_build"]

myst_heading_anchors = 4  # pages link to headings, as they do where Markdown is read without a site
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
# Members of dataclasses and pydantic models that no plugin author meets.
autodoc_mock_imports: list[str] = []
nitpicky = False
suppress_warnings = ["myst.xref_missing"]  # links to files outside docs/ are held against the disk by the tests
