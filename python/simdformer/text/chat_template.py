# SPDX-License-Identifier: Apache-2.0
"""Chat templates: texts as messages, rendered as in transformers by jinja2 in its sandbox.

sentence-transformers turns each text into a user's message, a prompt into a system message before it,
and a pair into messages of the roles "query" and "document". Text that a template adds after the
content is kept when a text is truncated. Source: sentence-transformers 6.2, base/modality.py and
base/modules/transformer.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from simdformer.checkpoint import naming, read_optional_json, read_regular
from simdformer.text.tokenizer_files import special_tokens

# Expressions in templates that read the content of a message as a list of parts.
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "message.content[")
# Model types whose templates contain these expressions but take plain texts.
_FLAT_MODELS = ("apertus", "deepseek_v3", "gpt_oss", "seed_oss")
# The folder with templates besides chat_template.jinja, by name.
_MORE_TEMPLATES = "additional_chat_templates"
# A template with its macros has a few KB.
_LARGEST = 1 << 20


class Rendered(str):
    """A rendered text. suffix: the ids at the end that do not depend on the content."""

    suffix: Sequence[int] = ()


class ChatTemplate:
    """A template and its variables besides messages.

    Errors of rendering: ValueError that names the template's file.
    """

    def __init__(
        self, path: Path, source: str, form: str, variables: Mapping[str, Any], *, keep_suffix: bool
    ) -> None:
        self._path = path
        self._variables = variables
        self._structured = form == "structured"
        self._keep_suffix = keep_suffix
        self._suffixes: dict[Any, Sequence[int]] = {}
        with _as_value_error(path):
            self._template = _environment().from_string(source)

    def render(
        self, text: str, prompt: str | None, ids: Callable[[str], Sequence[int]], task: str | None
    ) -> Rendered:
        """The ids of a text as the model reads it. ids: the tokenizer's function from a text to ids."""
        return self._rendered([("user", text)], prompt, ids, task)

    def render_pair(
        self, pair: tuple[str, str], prompt: str | None, ids: Callable[[str], Sequence[int]]
    ) -> Rendered:
        """The ids of a pair as the model reads it."""
        return self._rendered([*zip(("query", "document"), pair, strict=True)], prompt, ids, None)

    def check_pairs(self) -> None:
        """ValueError if the template drops a part of a pair."""
        first, *others = (
            self._text(list(zip(("query", "document"), pair, strict=True)), None, None)
            for pair in (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))
        )
        if first in others:
            raise ValueError(
                f"{self._path}: the chat template drops messages with the role 'query' or"
                " 'document', which pairs need"
            )

    def _rendered(
        self,
        messages: list[tuple[str, str]],
        prompt: str | None,
        ids: Callable[[str], Sequence[int]],
        task: str | None,
    ) -> Rendered:
        result = Rendered(self._text(messages, prompt, task))
        if self._keep_suffix:
            key = (len(messages), prompt, task)
            suffix = self._suffixes.get(key)  # read once: another thread may clear them
            if suffix is None:
                if len(self._suffixes) > 256:
                    self._suffixes.clear()
                fillers = [[(role, text) for role, _ in messages] for text in ("0", "1 2 3 4")]
                first, second = (ids(self._text(filled, prompt, task)) for filled in fillers)
                suffix = self._suffixes[key] = _common_end(first, second)
            result.suffix = suffix
        return result

    def _text(
        self, messages: Sequence[tuple[str, str]], prompt: str | None, task: str | None
    ) -> str:
        said = [("system", prompt), *messages] if prompt else messages
        chat = [{"role": role, "content": self._content(text)} for role, text in said]
        variables = {"task": task, **self._variables} if task else self._variables
        with _as_value_error(self._path):
            return str(self._template.render(messages=chat, **variables))

    def _content(self, text: str | None) -> Any:
        return [{"type": "text", "text": text}] if self._structured else text


@contextmanager
def _as_value_error(path: Path) -> Iterator[None]:
    """Convert exceptions of jinja2 to a ValueError with the template's file."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{path}: chat template: {error}") from error


def load_chat_template(
    folder: Path,
    overrides: Mapping[str, Any],
    *,
    form: str,
    model_type: object,
    variables: Mapping[str, Any],
) -> ChatTemplate | None:
    """The template of a folder; None if there is none.

    overrides: replace fields of tokenizer_config.json. form: "flat", "structured", or "auto" to detect
    it from the template. variables: variables besides the defaults.
    Errors: ValueError naming the file; ImportError if jinja2 is missing.
    """
    config = {**read_optional_json(folder / "tokenizer_config.json"), **overrides}
    variables = dict(variables)
    path, source = _source(folder, config, variables.pop("chat_template", None))
    if source is None:
        return None
    if form == "auto":
        shown = model_type not in _FLAT_MODELS and any(word in source for word in _STRUCTURED)
        form = "structured" if shown else "flat"
    keep_suffix = variables.pop("restore_suffix", True)
    defaults = {"tools": None, "documents": None, "add_generation_prompt": False}
    given = {**defaults, **special_tokens(folder, overrides), **variables}
    return ChatTemplate(path, source, form, given, keep_suffix=bool(keep_suffix))


def _source(folder: Path, config: Mapping[str, Any], name: object) -> tuple[Path, str | None]:
    """A template's file and text: the default or the named one of the files with templates, else the one in
    tokenizer_config.json."""
    files = {file.stem: file for file in sorted((folder / _MORE_TEMPLATES).glob("*.jinja"))}
    if os.path.lexists(folder / "chat_template.jinja"):
        files["default"] = folder / "chat_template.jinja"
    chosen = "default" if name is None else str(name)
    if chosen in files:
        with naming(files[chosen]):
            return files[chosen], read_regular(files[chosen], _LARGEST).decode("utf-8")
    path, given = folder / "tokenizer_config.json", config.get("chat_template")
    if files:
        path, given = folder / _MORE_TEMPLATES, {}
    elif isinstance(given, list):
        with naming(path):
            given = dict(map(_named, given))
    if isinstance(given, dict) and chosen in given:
        given = given[chosen]
    elif isinstance(given, dict) or name is not None:
        if "{" not in chosen:  # else a template that overrides the folder's
            raise ValueError(f"{path}: chat_template has no template named {chosen!r}")
        given = name
    if given is not None and not isinstance(given, str):
        raise ValueError(
            f"{path}: chat_template must be a string or a list of named templates, got {given!r}"
        )
    return path, given


def _named(entry: object) -> tuple[str, str]:
    if isinstance(entry, dict) and isinstance(entry.get("name"), str):
        return entry["name"], str(entry.get("template"))
    raise ValueError(f"chat_template must list objects with name and template, got {entry!r}")


def _common_end(first: Sequence[int], second: Sequence[int]) -> Sequence[int]:
    """The ids that both lists have in common at the end; none if that is all of one list."""
    count = 0
    for a, b in zip(reversed(first), reversed(second), strict=False):
        if a != b:
            break
        count += 1
    return first[len(first) - count :] if 0 < count < min(len(first), len(second)) else ()


def _raise(message: object) -> None:
    raise ValueError(message)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _environment() -> Any:
    """transformers' environment: templates cannot access Python's own attributes or modify anything."""
    try:
        jinja2 = import_module("jinja2")
        sandbox, ext = import_module("jinja2.sandbox"), import_module("jinja2.ext")
    except ImportError as error:
        raise ImportError(
            "this model has a chat template, which needs jinja2: pip install 'simdformer[chat]'"
        ) from error

    class Generation(ext.Extension):  # type: ignore[misc, name-defined]
        """The tag's content, unchanged. For training, the tag marks texts of the assistant."""

        tags: ClassVar[set[str]] = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    class Namespace(jinja2.utils.Namespace):  # type: ignore[misc, name-defined]
        """A namespace without names that start with an underscore, which give access to Python's
        internals."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            values = dict(*args[1:], **kwargs)
            for name in values:
                _check_name(name)
            jinja2.utils.Namespace.__init__(args[0], values)

        def __setitem__(self, name: str, value: Any) -> None:
            _check_name(name)
            super().__setitem__(name, value)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_raise,
        strftime_now=lambda form: datetime.now().strftime(form),
        dict=_dict,
        namespace=Namespace,
    )
    return environment


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    # the class would give access to its attributes
    return dict(*args, **kwargs)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise ValueError(f"a namespace must not contain the name {name!r}")
