# SPDX-License-Identifier: Apache-2.0
"""The documentation site: `make docs` builds it into build/docs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import simdformer
from simdformer.cli import build_parser

os.environ["COLUMNS"] = "100"  # of the command line's help

ROOT = Path(__file__).parent.parent
REPOSITORY = f"https://github.com/{os.environ.get('GITHUB_REPOSITORY', 'simdformer/simdformer')}"

project = "simdformer"
author = "The simdformer authors"
project_copyright = author
version = release = simdformer.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["gallery"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures have names and defaults; docstrings say shapes and dtypes
autoclass_content = "class"
numpydoc_show_class_members = False  # autodoc lists them
autosummary_generate = False  # of numpydoc
default_role = "code"
smartquotes = False  # error messages are searched for as they are printed
toc_object_entries_show_parents = "hide"

# Every reference to our own names has to resolve; those to Python, NumPy and torch need no network.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!simdformer\.).*")]

html_theme = "furo"
html_title = f"simdformer {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "source_repository": f"{REPOSITORY}/",
    "source_branch": "main",
    "source_directory": "docs/",
}


def link_to_repository(_app: Any, docname: str, source: list[str]) -> None:
    """Links that leave docs/ go to the repository; a file that does not exist is an error."""
    folder = (ROOT / "docs" / docname).parent

    def address(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if not target.exists():
            raise ValueError(f"docs/{docname}.md: no file {match[2]}")
        if target.is_relative_to(ROOT / "docs"):
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"{match[1]}({REPOSITORY}/{kind}/main/{target.relative_to(ROOT).as_posix()}"

    source[0] = re.sub(r"(?<!!)(\[[^][]*\])\(((?:\.\./)+[^)#]+)", address, source[0])


def add_command_line(_app: Any, docname: str, source: list[str]) -> None:
    """Appends the help of each command to the page of the command line."""
    if docname != "reference/cli":
        return
    (commands,) = (a for a in build_parser()._actions if a.choices and a.metavar == "COMMAND")
    for name, parser in commands.choices.items():
        source[0] += f"\n## simdformer {name}\n\n```text\n{parser.format_help()}```\n"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", link_to_repository)
    app.connect("source-read", add_command_line)
