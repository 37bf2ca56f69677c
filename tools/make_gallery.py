"""Draws the pictures of docs/explain.md and writes the measured figures into the page.

    python tools/make_gallery.py

Needs the default model and the extra "plots". The text between the page's two markers is replaced. The times
in the pictures depend on the machine.
"""

from __future__ import annotations

from pathlib import Path

from simdformer import SentenceTransformer
from simdformer.explain import Report, explain_texts, measure_points
from simdformer.explain.figures import slug
from simdformer.explain.plots import draw

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- gallery -->\n", "<!-- end of the gallery -->\n"

TEXTS = "The cat sat on the mat because it was tired.", "A tired kitten lay down on the rug."
# The titles of the pictures on the page.
SHOWN = {
    "Share of each pair of tokens",
    "Tokens of the text",
    "Heads on the text",
    "Attention of a token to itself",
    "Largest weight, by layer",
    "Jacobian of softmax, random vectors",
    "Time of one layer, one thread",
    "Influence on the last output by distance",
    "Scaled dot product",
    "Cosine",
    "Spread of the tokens",
    "One text in two batches",
    "Sinusoidal position encoding",
    "Products of sinusoidal positions",
}


def section(report: Report, name: str, folder: Path) -> str:
    """The report in Markdown. Its pictures are written into the folder."""
    lines = []
    for part in report.sections:
        lines += [f"### {part.title}", ""]
        for paragraph in part.paragraphs:
            lines += [paragraph, ""]
        for figure in part.figures:
            if figure.title in SHOWN:
                file = folder / f"{name}-{slug(figure.title)}.png"
                file.write_bytes(draw(figure, "png"))
                lines += [f"![{figure.title}]({folder.name}/{file.name})", ""]
    return "\n".join(lines)


def main() -> None:
    model = SentenceTransformer("all-MiniLM-L6-v2")
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    texts, points = explain_texts(model, *TEXTS), measure_points(model)
    gallery = (
        f"{BEGIN}## Gallery: {texts.title}\n\n{section(texts, 'texts', folder)}\n"
        f"## Gallery: {points.title.lower()}\n\n{section(points, 'points', folder)}\n{END}"
    )
    page = DOCS / "explain.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(before + gallery + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
