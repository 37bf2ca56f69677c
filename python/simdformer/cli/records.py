# SPDX-License-Identifier: Apache-2.0
"""A text of an input, with its origin."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

from simdformer.cli.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[Any]  # float32, or int8 codes

DEFAULT_FIELD = "text"


class Record(NamedTuple):
    """A text.

    line: the number of its first line, starting at 1; in parquet and arrow files the number of its row.
    end: the number of input bytes up to its end; 0 if unknown.
    source: the name of the file.
    id: the value of the id field, if there is one.
    span: for a chunk, its first character in the text and the one after its last.
    """

    text: str
    line: int
    end: int = 0
    source: str = ""
    id: object = None
    span: tuple[int, int] | None = None


class Columns(NamedTuple):
    """The contents of an output beside line, text and vector, and the dtype of the vectors."""

    id: bool = False
    source: bool = False
    span: bool = False
    dtype: str = "float32"


@dataclass
class Format:
    """What all files of an output have in common: the dimension of vectors, the columns, the manifest, and the
    type of ids in parquet files, which the first one decides."""

    dim: int
    columns: Columns
    manifest: dict[str, Any]
    id_type: Any = None


class Fields:
    """The members or columns of a record that contain its text and its id.

    The text is the field `text`, or `template` with each {name} replaced by the value of that field.
    given: the options that were given.
    """

    def __init__(
        self, text: str | None = None, *, id: str | None = None, template: str | None = None
    ) -> None:
        """UsageError if both a field and a template are given, or the template contains no field."""
        if text is not None and template is not None:
            raise UsageError("--field and --template exclude each other")
        self.id, self.template = id, template
        options = {"--field": text, "--id": id, "--template": template}
        self.given = [name for name, value in options.items() if value is not None]
        self.names = [DEFAULT_FIELD if text is None else text]
        if template is not None:
            self.names = _template_fields(template)

    @property
    def needed(self) -> list[str]:
        """The fields that each record must have."""
        return [*self.names, *([] if self.id is None else [self.id])]

    def text(self, values: dict[str, str]) -> str:
        """The text of a record with these values of its fields."""
        if self.template is None:
            return values[self.names[0]]
        return self.template.format_map(values)


def _template_fields(template: str) -> list[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"--template {template!r}: {error}") from error
    names = [name for _, name, _, _ in parts if name is not None]
    plain = all(not spec and not conversion for _, name, spec, conversion in parts if name)
    if not names or not plain or not all(name and not set(name) & set(".[") for name in names):
        raise UsageError(
            f"--template {template!r}: expected text with fields in braces, such as"
            ' "{title}: {body}"'
        )
    return list(dict.fromkeys(names))
