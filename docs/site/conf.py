"""Sphinx settings of septa's site. `tools/site.py` copies the pages and this file to one folder, and builds there."""

from importlib.metadata import version as find_version

project = "septa"
author = "The septa developers"
copyright = "The septa developers, BSD-3-Clause"
version = release = find_version("septa")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_static"]

# Pages.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # tools/notebooks.py runs the notebooks and keeps their outputs
nb_merge_streams = True
highlight_language = "default"
smartquotes = False  # two hyphens begin an option
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Docstrings.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True

# Looks. Nothing is loaded from elsewhere, so the site works without a network.
html_theme = "pydata_sphinx_theme"
html_title = "septa"
html_static_path = ["_static"]
html_css_files = ["septa.css"]
html_favicon = "_static/septa.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "logo": {"text": "septa", "image_light": "_static/septa.svg", "image_dark": "_static/septa.svg"},
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "back_to_top_button": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": [], "faq": [], "glossary": [], "comparison": []}
html_context = {"default_mode": "auto"}
