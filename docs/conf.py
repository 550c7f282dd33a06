"""Sphinx configuration. Nothing here reaches the network: there is no intersphinx."""

import warnings

import skgeo

project = "skgeo"
author = "the skgeo developers"
project_copyright = "2026, the skgeo developers"
release = version = skgeo.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**/README.*"]
root_doc = "index"
default_role = "literal"
today_fmt = "%Y-%m-%d"

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings carry the types
numpydoc_show_class_members = False  # the template of a class lists them
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "skgeo"
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": [], "quickstart": [], "two_readings": [], "api/index": []}

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"[\\/]plot_\w+\.py$",
    "nested_sections": False,
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "abort_on_example_error": True,
    "doc_module": ("skgeo",),
    "backreferences_dir": None,
    "reference_url": {},
    "plot_gallery": True,
}

# sphinx-gallery selects the non-interactive backend, under which every show() would say so.
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
