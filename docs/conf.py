"""The documentation as a site: `make docs`. The sources are copies of the README and the pages, laid out as in the
repository, so that links between them work in both places.
"""

from sphinx.application import Sphinx

from lstm_fcn import __version__

project = "LSTM-FCN"
author = "LSTM-FCN maintainers"
version = release = __version__
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4
suppress_warnings = ["toc.not_included"]  # reports of benchmarks, which pages link to
html_theme = "furo"
html_title = f"LSTM-FCN {__version__}"
html_show_copyright = False
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
default_role = "code"  # of `names` in docstrings
pygments_style, pygments_dark_style = "friendly", "monokai"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autoclass_content = "both"
napoleon_numpy_docstring = False

# The pages in the sidebar, by part, as the README lists them.
PARTS = {
    "Start": ["tutorial", "python", "mlflow", "data", "settings", "gallery"],
    "Guides": [
        "models",
        "hyperparameters",
        "tuning",
        "serving",
        "kubernetes",
        "batch",
        "sagemaker",
        "gpu",
        "distributed",
        "languages",
        "troubleshooting",
    ],
    "Background": ["network", "benchmarks", "../benchmarks/results/README", "comparison", "migration"],
    "Reference": ["api", "../CONTRIBUTING", "../SECURITY", "../CHANGELOG"],
}


def add_sidebar(_app: Sphinx, page: str, source: list[str]) -> None:
    """Give the README the table of contents that makes the sidebar; code hosts would show its source."""
    if page == root_doc:
        for part, pages in PARTS.items():
            lines = [f"docs/{name}".replace("docs/../", "") for name in pages]
            source[0] += "\n".join(["\n\n```{toctree}", ":hidden:", f":caption: {part}", "", *lines, "```\n"])


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_sidebar)
