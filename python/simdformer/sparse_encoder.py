# SPDX-License-Identifier: Apache-2.0
"""SparseEncoder: texts in, weights of the vocabulary's tokens out, with the interface of
sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np

from simdformer.drop_in.arguments import LoadRequest, load_request
from simdformer.drop_in.model_card import model_card
from simdformer.drop_in.module_list import read_module_list
from simdformer.drop_in.settings import settings_files
from simdformer.drop_in.task_model import TaskModel
from simdformer.drop_in.text_model import progress_bar
from simdformer.folder.loading import LoadedModel, load_model
from simdformer.folder.sparse_folder import SparseFolder
from simdformer.functional.arrays import positive_int
from simdformer.sparse_embeddings import (
    SparseEmbeddings,
    as_sparse,
    pairwise_similarities,
    similarities,
    stacked,
)
from simdformer.text.inputs import check_execution, old_name, refuse_unknown
from simdformer.util.similarity import SIMILARITIES

Decoded = list[tuple[str | None, float]]


class SparseEncoder(TaskModel):
    """A sparse embedding model: each text gets a weight for every token of the vocabulary.

    It is a drop-in for the class of sentence-transformers, on CPUs. Nearly all weights are 0. It runs a masked
    language model with SpladePooling (SPLADE: Formal et al. 2021, arXiv:2109.10086), or a
    SparseStaticEmbedding. A Router can select between them; the static embedding is usually for queries.
    The logits of a text are never stored all at once, so their memory does not grow with its length.

    A text gives the same bits alone, in any batch and with any number of threads.

    Parameters
    ----------
    model_name_or_path : str or path
        A folder or a name of a saved SparseEncoder or of a masked language model.
    compute_type, num_threads, max_batch_tokens
        See `SentenceTransformer`. The compute type also applies to the product with the vocabulary. With
        int8, part_types["vocabulary"] is its compute type.
    prompts, default_prompt_name, similarity_fn_name
        Override the settings of the model. similarity_fn_name is "dot" by default.
    max_active_dims : int or None
        The number of largest weights to keep per text. None for the model's setting, else all.
    cache_folder, revision, local_files_only, token, device, **further
        See `SentenceTransformer`.

    Attributes
    ----------
    encoder, pipeline, name_or_path, compute_type, part_types, prompts, default_prompt_name, num_tokens,
    truncated_texts
        See `SentenceTransformer`.

    Raises
    ------
    FileNotFoundError, ValueError
        See `SentenceTransformer`. Also ValueError if the folder has no head of a masked language model.

    Examples
    --------
    >>> model = SparseEncoder("naver/splade-v3")  # doctest: +SKIP
    >>> queries = model.encode_query(["What is AI?"])  # doctest: +SKIP
    >>> model.decode(queries, top_k=3)  # doctest: +SKIP
    [[('ai', 2.6), ('artificial', 1.7), ('definition', 1.2)]]
    """

    SUPPORTED_SIMILARITY_FN_NAMES = tuple(SIMILARITIES)
    DEFAULT_SIMILARITY_FN_NAME = "dot"
    _POSITIONAL = (
        "batch_size",
        "show_progress_bar",
        "convert_to_tensor",
        "convert_to_sparse_tensor",
        "save_to_cpu",
        "device",
        "max_active_dims",
        "pool",
        "chunk_size",
    )

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        compute_type: str = "default",
        num_threads: int | None = None,
        max_batch_tokens: int = 16384,
        prompts: Mapping[str, str | None] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        max_active_dims: int | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        device: object = None,
        **further: Any,
    ) -> None:
        """Load a model: see the class."""
        request = load_request(
            model_name_or_path,
            further,
            compute_type=compute_type,
            num_threads=num_threads,
            max_batch_tokens=max_batch_tokens,
            device=device,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
        )
        loaded = self._load(request)
        defaults = loaded.defaults
        self.model_card_data = model_card(further)
        self._set_prompts(prompts, default_prompt_name, defaults, always=("query", "document"))
        saved = defaults.similarity_fn_name
        self.similarity_fn_name = self._saved_similarity(similarity_fn_name, saved)
        self.max_active_dims = _checked(max_active_dims, defaults.max_active_dims)

    def _load(self, request: LoadRequest) -> LoadedModel:
        request = request.found()
        loaded = load_model(request.folder, request.compute_type, request.overrides, SparseFolder)
        self._adopt(request, loaded, include_prompt=True)
        modules = read_module_list(request.folder) or [("Transformer", ""), ("SpladePooling", "")]
        self.module_names = tuple(name for name, _ in modules)
        return loaded

    def __repr__(self) -> str:
        return (
            f"SparseEncoder({self.name_or_path!r}, dim={self.get_embedding_dimension()},"
            f" max_seq_length={self.max_seq_length})"
        )

    def _exported_output(self) -> dict[str, Any]:
        if self.max_active_dims is not None:
            raise ValueError(
                f"max_active_dims={self.max_active_dims} cannot be exported: a file's rows are whole;"
                " set it to None"
            )
        return {}

    def get_embedding_dimension(self) -> int:
        """Return the length of a row: the size of the vocabulary."""
        return self.pipeline.width

    get_sentence_embedding_dimension = get_embedding_dimension

    def encode(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = True,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,  # noqa: ARG002  (they are there)
        device: Any = None,
        max_active_dims: int | None = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the weights of each text.

        Parameters
        ----------
        inputs, prompt_name, prompt, batch_size, show_progress_bar, device, pool, chunk_size
            See `SentenceTransformer.encode`.
        convert_to_tensor
            False returns a list of n rows.
        convert_to_sparse_tensor
            False returns float32 arrays that include all zeros, instead of SparseEmbeddings.
        save_to_cpu
            Has no effect.
        max_active_dims
            The number of largest weights to keep per text; None for the model's number.
        **kwargs
            `task`: "query", "document" or another task of the model, which selects routes and lengths.
            For others see `SentenceTransformer.encode`.

        Returns
        -------
        SparseEmbeddings (n, vocabulary)
            The weights; (vocabulary,) for a str.

        Raises
        ------
        TypeError, ValueError
            See `SentenceTransformer.encode`.
        """
        inputs = old_name(inputs, kwargs)
        check_execution(batch_size, device, pool, chunk_size)
        refuse_unknown("encode", kwargs, {"task"})
        arguments = {
            "max_active_dims": _checked(max_active_dims, self.max_active_dims),
            "task": kwargs.get("task"),
            "prompt": self.resolve_prompt(prompt, prompt_name),
        }
        texts, single = self._listed(inputs)
        with progress_bar(len(texts), show_progress_bar, "text") as bar:
            parts = self._parts(texts, (device, pool, chunk_size), bar, **arguments)
        found: Any = parts[0] if len(parts) == 1 else stacked(parts, self.get_embedding_dimension())
        if single or not convert_to_tensor:
            found = list(found)
        if not convert_to_sparse_tensor:
            found = [row.toarray() for row in found] if isinstance(found, list) else found.toarray()
        found = self._given(found)
        return found[0] if single else found

    def compute(
        self,
        texts: list[str],
        *,
        prompt: str | None,
        max_active_dims: int | None,
        task: str | None = None,
        bar: Any = None,
    ) -> SparseEmbeddings:
        """Return the weights of checked texts, computed in this process."""
        pipeline = self.pipeline.for_task(task)
        width, parts = self.get_embedding_dimension(), []
        with closing(pipeline.sparse_rows(self._prompted(texts, prompt, task))) as passes:
            for counts, indices, data in passes:
                indptr = np.concatenate([[0], counts]).cumsum().astype(np.int64)
                part = SparseEmbeddings(data, indices, indptr, (len(counts), width))
                parts.append(part if max_active_dims is None else part.largest(max_active_dims))
                if bar is not None:
                    bar.update(len(counts))
        return parts[0] if len(parts) == 1 else stacked(parts, width)

    # --- functions of embeddings, which may be SparseEmbeddings, rows of them, arrays, or SciPy's or torch's
    # ---

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare all with all, by `similarity_fn_name`.

        embeddings1: (n, vocabulary) or (vocabulary,). embeddings2: (m, vocabulary) or (vocabulary,).
        Returns: float32 (n, m); distances are negated.
        """
        a, b = _alike(embeddings1, embeddings2)
        return self._given(similarities(self.similarity_fn_name, a, b))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare embeddings1[i] with embeddings2[i]. Returns: float32 (n,)."""
        a, b = _alike(embeddings1, embeddings2)
        if len(a) != len(b):
            raise ValueError(f"embeddings1 has {len(a)} rows, embeddings2 {len(b)}")
        return self._given(pairwise_similarities(self.similarity_fn_name, a, b))

    def intersection(self, embeddings_1: Any, embeddings_2: Any) -> Any:
        """Return the positive products of a text's weights with those of one or several other texts.

        embeddings_1: (vocabulary,). embeddings_2: (vocabulary,) or (n, vocabulary). Returns:
        SparseEmbeddings of the shape of embeddings_2.
        """
        a, b = as_sparse("embeddings_1", embeddings_1), as_sparse("embeddings_2", embeddings_2)
        if a.ndim != 1:
            raise ValueError(f"embeddings_1 must have one dimension, its shape is {a.shape}")
        if a.shape[-1] != b.shape[-1]:
            raise ValueError(f"embeddings_1 has shape {a.shape}, embeddings_2 {b.shape}")
        products = a.toarray()[b.indices] * b.data
        kept = products > 0
        indptr = np.concatenate([[0], np.cumsum(kept)])[b.indptr]
        return self._given(SparseEmbeddings(products[kept], b.indices[kept], indptr, b.shape))

    def decode(self, embeddings: Any, top_k: int | None = None) -> Decoded | list[Decoded]:
        """Return the top_k tokens of embeddings with their weights, in descending order.

        embeddings: (vocabulary,) or (n, vocabulary). Returns: a list of (token, weight), or n such lists.
        The token is None if the tokenizer does not have the id.
        """
        rows = as_sparse("embeddings", embeddings)
        if top_k is not None:
            rows = rows.largest(positive_int("top_k", top_k))
        spell = self.pipeline.tokenizer.spell
        decoded = []
        for row in [rows] if rows.ndim == 1 else rows:
            order = np.argsort(-row.data, kind="stable")
            tokens = [token or None for token in spell(row.indices[order].tolist())]
            decoded.append(list(zip(tokens, row.data[order].tolist(), strict=True)))
        return decoded[0] if rows.ndim == 1 else decoded

    @staticmethod
    def sparsity(embeddings: Any) -> dict[str, float]:
        """Return the number of nonzero weights of a text, and the fraction of zeros.

        embeddings: (vocabulary,) or (n, vocabulary). Returns: "active_dims" and "sparsity_ratio", averaged
        over the rows.
        """
        rows = as_sparse("embeddings", embeddings)
        count, width = len(rows.indptr) - 1, rows.shape[-1]
        if count == 0 or width == 0:
            return {"active_dims": 0.0, "sparsity_ratio": 1.0}
        mean = rows.nnz / count
        return {"active_dims": mean, "sparsity_ratio": 1.0 - mean / width}

    def _settings_files(self) -> dict[str, Any]:
        files = settings_files(
            self,
            {
                "model_type": "SparseEncoder",
                "similarity_fn_name": self.similarity_fn_name,
                **({"max_active_dims": self.max_active_dims} if self.max_active_dims else {}),
            },
        )
        if "modules.json" in files:  # a plain masked language model, run with default pooling
            settings = files["sentence_bert_config.json"]
            settings |= {"transformer_task": "fill-mask", "module_output_name": "token_embeddings"}
            pooling = {"pooling_strategy": "max", "activation_function": "relu"}
            files["1_SpladePooling/config.json"] = pooling
        return files


def _checked(given: int | None, default: int | None) -> int | None:
    return default if given is None else positive_int("max_active_dims", given)


def _alike(embeddings1: Any, embeddings2: Any) -> tuple[SparseEmbeddings, SparseEmbeddings]:
    """Both as matrices. ValueError if their rows have different lengths."""
    pair = as_sparse("embeddings1", embeddings1), as_sparse("embeddings2", embeddings2)
    a, b = (x if x.ndim == 2 else stacked([x], x.shape[0]) for x in pair)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings1 has rows of {a.shape[1]}, embeddings2 of {b.shape[1]}")
    return a, b
