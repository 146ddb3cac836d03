"""Settings of the documentation. ``make docs`` builds it, without a network, into build/docs."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

import hilum  # noqa: E402

project = "hilum"
author = "The hilum authors"
copyright = author
version = release = hilum.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "command_reference",
    "fields",
]
templates_path = ["templates"]
exclude_patterns = ["extensions", "templates"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
nitpick_ignore_regex = [
    ("py:.*", r"(annotated_types|collections|numpy|np|os|pandas|pathlib|PIL|pydantic|torch)\..*"),
    # Type aliases and names for type checkers alone, and what stands behind a Predictor and a Config.
    (
        "py:class",
        r"\w+Config|GateThresholds|TrainingHashes|Box|Gray|ImageSource|NDArray|NoInterval|OrientationFix|OverlayFormat|Path|Severity|SplitName|"
        r"Status|Temperature|Threshold",
    ),
    ("py:class", r"hilum\.(backends|gate|inference\.predictor|config)\..*"),
]

html_theme = "pydata_sphinx_theme"
html_title = "hilum"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": ["pages"]}
html_theme_options = {
    "navbar_center": [],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = "$ "
