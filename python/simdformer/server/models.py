# SPDX-License-Identifier: Apache-2.0
"""The models of the server, by the names that requests use."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from simdformer.cross_encoder import CrossEncoder
from simdformer.sentence_transformer import SentenceTransformer
from simdformer.server.errors import ApiError, shown
from simdformer.server.scorer import Reranker, Scorer
from simdformer.server.served import Embedder, SparseEmbedder
from simdformer.sparse_encoder import SparseEncoder

Model = SentenceTransformer | CrossEncoder | SparseEncoder
AnyRunner = Embedder | SparseEmbedder | Scorer
R = TypeVar("R")

# Names of the kinds in messages.
_KINDS: dict[type[Any], str] = {
    Embedder: "no embedding model is served: start with MODEL, or --model NAME=MODEL",
    SparseEmbedder: "no sparse embedding model is served: start with --model NAME=MODEL",
    Reranker: "no reranker is served: start with --reranker, or --model NAME=MODEL",
    Scorer: "no cross-encoder is served: start with --reranker, or --model NAME=MODEL",
}


class ServedName:
    """The names of a model in requests."""

    def __init__(self, name: str, organization: str) -> None:
        """name: the folder or name with which the server was started. organization: used for a name on the hub
        without one."""
        base = Path(name).resolve().name
        # The path of a folder is not disclosed.
        self.id = base if Path(name).is_dir() else name
        repository = next(
            (part for part in Path(name).resolve().parts if part.startswith("models--")), None
        )
        if repository is not None:  # in a Hugging Face cache: models--ORG--NAME/snapshots/COMMIT
            hub_name = repository.removeprefix("models--").replace("--", "/", 1)
            self.id = hub_name
        else:
            hub_name = self.id if "/" in self.id else f"{organization}/{self.id}"
        self.all = frozenset({name, self.id, base, hub_name, hub_name.rpartition("/")[2]})


class Models:
    """The served models in the order in which they were given."""

    def __init__(self) -> None:
        self._entries: list[tuple[ServedName, AnyRunner]] = []

    def add(self, name: str, model: Model) -> None:
        """Serve a model under a name. ValueError if it cannot be served, or the name is taken."""
        organization = (
            "cross-encoder" if isinstance(model, CrossEncoder) else "sentence-transformers"
        )
        served = ServedName(name, organization)
        if served.id in self.ids():
            raise ValueError(f"two models have the name {served.id!r}; use --model NAME=MODEL")
        self._entries.append((served, _runner(model)))

    def ids(self) -> list[str]:
        """The names of all models."""
        return [name.id for name, _ in self._entries]

    def find(self, kind: type[R] | tuple[type[R], ...], asked: str | None) -> tuple[R, str]:
        """The model of this kind with this name, and its main name. Without a name: the first of the kind.

        kind: of several ones, the earlier is preferred for a name that is not exact.
        ApiError if there is none.
        """
        kinds = kind if isinstance(kind, tuple) else (kind,)
        of_kind = [(name, r) for each in kinds for name, r in self._entries if isinstance(r, each)]
        if not of_kind:
            raise ApiError(404, _KINDS[kinds[-1]], code="model_not_found")
        return _named(of_kind, asked)

    def any(self, asked: str | None) -> tuple[AnyRunner, str]:
        """The model of any kind with this name, and its main name."""
        return _named(self._entries, asked)


def _named(entries: Sequence[tuple[ServedName, R]], asked: str | None) -> tuple[R, str]:
    """The entry with this name, or the first one without a name."""
    exact = (entry for entry in entries if asked in (None, entry[0].id))
    others = (entry for entry in entries if asked in entry[0].all)
    found = next(chain(exact, others), None)  # exact names first: short ones may be equal
    if found is None:
        raise unknown_model(str(asked), ", ".join(name.id for name, _ in entries))
    return found[1], found[0].id


def unknown_model(asked: str, known: str) -> ApiError:
    """The error if no served model has the name."""
    return ApiError(
        404,
        f"unknown model {shown(asked)}; served here: {known}",
        param="model",
        code="model_not_found",
    )


def _runner(model: Model) -> AnyRunner:
    if isinstance(model, CrossEncoder):
        return Reranker(model) if model.num_labels == 1 else Scorer(model)
    return SparseEmbedder(model) if isinstance(model, SparseEncoder) else Embedder(model)
