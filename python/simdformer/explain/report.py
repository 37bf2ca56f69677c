# SPDX-License-Identifier: Apache-2.0
"""Reports with text and pictures, as a page, as JSON, or in a notebook."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from simdformer import SentenceTransformer, __version__
from simdformer.explain.figures import Figure, Heads, packed_maps, plain, slug

_TEMPLATE = Path(__file__).with_name("template")


@dataclass(frozen=True, eq=False)
class Section:
    """Sentences and their pictures."""

    title: str
    paragraphs: Sequence[str]
    figures: Sequence[Figure]

    def _repr_html_(self) -> str:
        return _frame(Report(self.title, {}, [self]).to_html())


@dataclass(frozen=True, eq=False)
class Report:
    """Result of `explain_texts` and `measure_points`. Notebooks display it.

    Parameters
    ----------
    title
        Title of the page.
    facts
        Facts about the model and the texts, by name.
    sections
        Sections of sentences and pictures.

    Examples
    --------
    >>> from simdformer.explain import Report
    >>> Report("Title", {"Texts": 2}, []).to_dict()["title"]
    'Title'
    """

    title: str
    facts: Mapping[str, Any]
    sections: Sequence[Section]

    def to_dict(self) -> dict[str, Any]:
        """Return all sentences and numbers for JSON. Maps of heads are omitted: `outputs` returns them."""
        content: dict[str, Any] = plain(self)
        return content

    def to_json(self) -> str:
        """Return the same as a JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n"

    def to_html(self) -> str:
        """Return one page that contains everything and makes no request."""
        content = self.to_dict()
        for section, shown in zip(self.sections, content["sections"], strict=True):
            for figure, data in zip(section.figures, shown["figures"], strict=True):
                if isinstance(figure, Heads):
                    data["maps"] = packed_maps(figure.maps)
        return Template(_read("page.html")).substitute(
            title=html.escape(self.title),
            style=_read("style.css"),
            script=_read("canvas.js") + _read("page.js"),
            # Characters that could end the element or start a comment are written as escapes.
            data=json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
        )

    def named_figures(self) -> Iterator[tuple[str, Figure]]:
        """Yield (file name, picture), such as "2-1-entropy"."""
        for i, section in enumerate(self.sections, 1):
            for j, figure in enumerate(section.figures, 1):
                yield f"{i}-{j}-{slug(figure.title)}", figure

    def _repr_html_(self) -> str:
        return _frame(self.to_html())


def model_facts(model: SentenceTransformer) -> dict[str, Any]:
    """The facts about a model that reports show."""
    layers = list(model.encoder.layers)
    return {
        "Model": model.name_or_path,
        "Layers": len(layers),
        "Heads per layer": layers[0].self_attn.num_heads,
        "Hidden size": model.encoder.hidden_size,
        "Pooling": ", ".join(model.pooling_modes),
        "Compute type": model.compute_type,
        "Made with": f"simdformer {__version__}",
    }


def _frame(page: str) -> str:
    """The page in a frame, for notebooks."""
    style = "width: 100%; height: 720px; border: 0"
    return f'<iframe srcdoc="{html.escape(page)}" style="{style}"></iframe>'


def _read(name: str) -> str:
    return (_TEMPLATE / name).read_text(encoding="utf-8")
