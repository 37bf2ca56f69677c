# SPDX-License-Identifier: Apache-2.0
"""MultiVectorEncoder: texts in, one vector per token out, with the interface of sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from simdformer.drop_in.arguments import LoadRequest, load_request
from simdformer.drop_in.model_card import model_card
from simdformer.drop_in.module_list import read_module_list
from simdformer.drop_in.settings import settings_files
from simdformer.drop_in.task_model import TaskModel
from simdformer.drop_in.text_model import progress_bar
from simdformer.folder.loading import LoadedModel, load_model
from simdformer.folder.multi_vector_folder import MultiVectorFolder
from simdformer.text.inputs import (
    check_execution,
    check_known,
    old_name,
    refuse_unknown,
)
from simdformer.text.pipeline import Float32
from simdformer.util.late_interaction import SIMILARITIES, HierarchicalTokenPooling
from simdformer.util.similarity import normalize_embeddings as normalized


class MultiVectorEncoder(TaskModel):
    """A late-interaction model (ColBERT): each text gets one vector per token.

    It is a drop-in for the class of sentence-transformers, on CPUs. Texts are compared by MaxSim (Khattab and
    Zaharia 2020, arXiv:2004.12832).

    Queries and documents are read differently: use `encode_query` and `encode_document`. Model folders of
    sentence-transformers 6, PyLate and the original ColBERT (artifact.metadata) are supported.

    A text gives the same bits alone, in any batch and with any number of threads.

    Parameters
    ----------
    model_name_or_path : str or path
        A folder or a name.
    compute_type, num_threads, max_batch_tokens
        See `SentenceTransformer`. Dense layers after the encoder stay in float32.
    prompts, default_prompt_name, similarity_fn_name
        Override the settings of the model. similarity_fn_name is "maxsim" (the default) or "meanmaxsim".
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
        See `SentenceTransformer`. Also ValueError if the folder is not such a model: an untrained
        projection is never created.

    Examples
    --------
    >>> model = MultiVectorEncoder("lightonai/GTE-ModernColBERT-v1")  # doctest: +SKIP
    >>> queries = model.encode_query(["What is the capital of France?"])  # doctest: +SKIP
    >>> documents = model.encode_document(["Paris is the capital of France."])  # doctest: +SKIP
    >>> model.similarity(queries, documents).shape  # doctest: +SKIP
    (1, 1)
    """

    SUPPORTED_SIMILARITY_FN_NAMES = tuple(SIMILARITIES)
    DEFAULT_SIMILARITY_FN_NAME = "maxsim"
    _POSITIONAL = (
        "batch_size",
        "show_progress_bar",
        "output_value",
        "convert_to_numpy",
        "device",
        "normalize_embeddings",
        "pool",
        "chunk_size",
        "token_pooling",
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

    def _load(self, request: LoadRequest) -> LoadedModel:
        request = request.found()
        loaded = load_model(
            request.folder, request.compute_type, request.overrides, MultiVectorFolder
        )
        self._adopt(request, loaded, include_prompt=True)
        modules = read_module_list(request.folder) or [("Transformer", "")]
        self.module_names = tuple(name for name, _ in modules)
        pooling = loaded.pool.pooling  # type: ignore[attr-defined]
        self._token_pooling = None if pooling is None else HierarchicalTokenPooling(**pooling)
        return loaded

    def __repr__(self) -> str:
        return (
            f"MultiVectorEncoder({self.name_or_path!r}, dim={self.get_embedding_dimension()},"
            f" max_seq_length={self.max_seq_length})"
        )

    def get_embedding_dimension(self) -> int:
        """Return the length of a token's vector."""
        return self.pipeline.width

    def encode(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "token_embeddings",
        convert_to_numpy: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        token_pooling: Any = None,
        task: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the token vectors of each text.

        Parameters
        ----------
        inputs, prompt_name, prompt, batch_size, show_progress_bar, device, pool, chunk_size
            See `SentenceTransformer.encode`.
        output_value
            Must be "token_embeddings".
        convert_to_numpy
            Has no effect here, where arrays are NumPy's.
        normalize_embeddings
            Whether vectors get length 1, if the model's modules do not normalize them.
        token_pooling
            Reduces the number of vectors, such as `HierarchicalTokenPooling`; applied after the
            model's own.
        task
            "query" or "document": the marker, the length, the expansion and the tokens left out.
        **kwargs
            See `SentenceTransformer.encode`.

        Returns
        -------
        list of float32 (vectors, dim)
            One array per text; a single array for a str.

        Raises
        ------
        TypeError, ValueError
            See `SentenceTransformer.encode`; also for convert_to_tensor, as shapes differ.
        """
        inputs = old_name(inputs, kwargs)
        check_known("output_value", output_value, ("token_embeddings",))
        check_execution(batch_size, device, pool, chunk_size)
        refuse_unknown("encode", kwargs, set())
        arguments = {
            "normalize_embeddings": normalize_embeddings,
            "token_pooling": token_pooling,
            "task": task,
            "prompt": self.resolve_prompt(prompt, prompt_name),
        }
        texts, single = self._listed(inputs)
        with progress_bar(len(texts), show_progress_bar, "text") as bar:
            parts = self._parts(texts, (device, pool, chunk_size), bar, **arguments)
        found = [vectors for part in parts for vectors in part]
        if not convert_to_numpy:
            found = self._given(found)
        return found[0] if single else found

    def compute(
        self,
        texts: list[str],
        *,
        prompt: str | None,
        normalize_embeddings: bool,
        token_pooling: Any,
        task: str | None = None,
        bar: Any = None,
    ) -> list[Float32]:
        """Return the vectors of checked texts, computed in this process."""
        pipeline, found = self.pipeline.for_task(task), []
        with closing(pipeline.token_vectors(self._prompted(texts, prompt, task), task)) as passes:
            for part in passes:
                found += self._pooled(part, normalize_embeddings, token_pooling, task)
                if bar is not None:
                    bar.update(len(part))
        return found

    def _pooled(
        self, part: list[Float32], normalize: bool, pooling: Any, task: str | None
    ) -> list[Float32]:
        """The vectors that remain after the model's and the call's pooling."""
        kept = part if self._token_pooling is None else self._token_pooling.pool(part, task=task)
        if normalize:
            kept = [normalized(vectors) for vectors in kept]
        return kept if pooling is None else list(pooling.pool(kept, task=task))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare all queries with all documents, by `similarity_fn_name`.

        embeddings1, embeddings2: results of encode_query and encode_document: lists of arrays
        (vectors, dim), or one such array. Returns: float32 (queries, documents).
        """
        return self._given(SIMILARITIES[self.similarity_fn_name][0](embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare query i with document i. Returns: float32 (texts,)."""
        return self._given(SIMILARITIES[self.similarity_fn_name][1](embeddings1, embeddings2))

    def _settings_files(self) -> dict[str, Any]:
        files = settings_files(
            self,
            {"model_type": "MultiVectorEncoder", "similarity_fn_name": self.similarity_fn_name},
        )
        if read_module_list(self.folder):
            # PyLate's model_type says which module class follows its modules
            del files["config_sentence_transformers.json"]["model_type"]
            return files
        raise ValueError(
            "a model in the original ColBERT format cannot be saved; copy its folder instead"
        )
