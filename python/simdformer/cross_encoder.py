# SPDX-License-Identifier: Apache-2.0
"""CrossEncoder: pairs of texts in, scores out, with the names and meanings of sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from simdformer.drop_in.arguments import LoadRequest, load_request
from simdformer.drop_in.model_card import model_card
from simdformer.drop_in.settings import settings_files
from simdformer.drop_in.text_model import TextModel, progress_bar
from simdformer.folder.activation import TorchActivation, activation_function
from simdformer.folder.loading import LoadedCrossEncoder, load_cross_encoder
from simdformer.folder.settings import read_activation
from simdformer.functional import softmax
from simdformer.functional.arrays import descending, positive_int
from simdformer.text.inputs import (
    check_execution,
    document_list,
    old_name,
    pair_list,
    refuse_unknown,
)
from simdformer.text.pipeline import Float32
from simdformer.text.tokenizer import Pair, check_text

# What sentence-transformers calls the module of a causal language model's score.
_LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
# Arguments of older releases that newer ones ignore.
_NO_EFFECT = frozenset({"num_workers"})
_NO_EFFECT_ON_RANK = _NO_EFFECT | {"apply_softmax", "convert_to_numpy", "convert_to_tensor"}


class CrossEncoder(TextModel):
    """A model that reads two texts together and scores them, a drop-in for sentence-transformers' class.

    It ranks documents for a query more precisely than embeddings, and more slowly. A pair gives the same
    bits alone, in any batch and with any number of threads. Any number of Python threads may use one model
    at the same time.

    Parameters
    ----------
    model_name_or_path : str or path
        A folder, or a name such as "cross-encoder/ms-marco-MiniLM-L6-v2", of a model with a
        classification head (``...ForSequenceClassification`` of transformers), or of a causal language
        model: ``LogitScore`` names one or two tokens, whose logits after the pair give the score, else
        they are "yes" and "no".
    compute_type, num_threads, max_batch_tokens
        See `SentenceTransformer`. The head is always float32.
    num_labels : int or None
        If given, the number of scores that the model must have.
    max_length : int or None
        Length of the longest pair in tokens; None for the model's setting.
    activation_fn
        Applied to the scores: a name or a module of torch.nn (GELU, Identity, ReLU, SiLU, Sigmoid, Tanh),
        or a function of a float32 array (n, num_labels). None for the model's setting, else a sigmoid
        for one score and nothing for several.
    prompts, default_prompt_name, cache_folder, revision, local_files_only, token, device, **further
        See `SentenceTransformer`.

    Attributes
    ----------
    encoder, name_or_path, pipeline, compute_type, part_types
        See `SentenceTransformer`.
    num_labels : int
        Number of scores per pair; cannot be set.
    activation_fn
        Applied to the scores unless a call passes another.
    prompts, default_prompt_name, num_tokens, truncated_texts
        See `SentenceTransformer`; here for pairs.

    Raises
    ------
    FileNotFoundError, ValueError
        See `SentenceTransformer`; also if the folder has no classification head.

    Examples
    --------
    >>> from simdformer import CrossEncoder
    >>> model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")
    >>> model.predict([("How many cats?", "Two cats."), ("How many cats?", "Rates rose.")]).shape
    (2,)
    """

    _gives_logits = True

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        compute_type: str = "default",
        num_threads: int | None = None,
        max_batch_tokens: int = 16384,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: object = None,
        prompts: Mapping[str, str | None] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        device: object = None,
        **further: Any,
    ) -> None:
        """Load a model; see the class."""
        old = "default_activation_function"
        activation_fn = old_name(activation_fn, further, old, "activation_fn")
        given = None if activation_fn is None else activation_function(activation_fn)
        request = load_request(
            model_name_or_path,
            further,
            compute_type=compute_type,
            num_threads=num_threads,
            max_batch_tokens=max_batch_tokens,
            device=device,
            cache_folder=old_name(cache_folder, further, "cache_dir", "cache_folder"),
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            organization="cross-encoder",
        )
        loaded = self._load(request)
        self.model_card_data = model_card(further)
        self._set_prompts(prompts, default_prompt_name, loaded.defaults)
        if num_labels not in (None, self.num_labels):
            raise ValueError(
                f"num_labels={num_labels!r}, but {self._request.folder} has {self.num_labels}"
            )
        if max_length is not None:
            self.max_length = max_length
        # a saved activation is read only if it is used, so that an unknown one can be overridden
        self.activation_fn = given or read_activation(
            loaded.config, loaded.defaults, self.num_labels
        )

    def _load(self, request: LoadRequest) -> LoadedCrossEncoder:
        request = request.found()
        loaded = load_cross_encoder(request.folder, request.compute_type, request.overrides)
        # Causal attention does not see padding, because it comes after the tokens.
        self._adopt(request, loaded, padding=loaded.pad_token_id)
        self.module_names = (
            ("Transformer", "LogitScore") if loaded.score_tokens else ("Transformer",)
        )
        self._num_labels, self._score_tokens = loaded.num_labels, loaded.score_tokens
        return loaded

    def __repr__(self) -> str:
        return (
            f"CrossEncoder({self.name_or_path!r}, num_labels={self.num_labels},"
            f" max_seq_length={self.max_seq_length})"
        )

    @property
    def num_labels(self) -> int:
        """Number of scores per pair."""
        return self._num_labels

    @property
    def max_length(self) -> int:
        """The older name of `max_seq_length`."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        self.pipeline.limit_length("max_length", value)

    def predict(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: object = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score pairs of texts.

        Parameters
        ----------
        inputs
            A pair of str, or a list, tuple or array of n pairs. `sentences` is the older name.
        prompt_name, prompt
            Text put before the first text of each pair: prompt, else the prompt named prompt_name or
            default_prompt_name.
        batch_size, show_progress_bar, device, pool, chunk_size
            See `SentenceTransformer.encode`.
        activation_fn
            See the class; None for the attribute.
        apply_softmax
            Apply softmax to the scores of each pair, after the activation.
        convert_to_numpy, convert_to_tensor
            False returns a list of n scores; True returns a torch.Tensor.
        **kwargs
            Older names of sentence-transformers.

        Returns
        -------
        float32 (n, num_labels), or (n,) if num_labels is 1
            The scores; (num_labels,) or a scalar for a single pair, (0,) for no pairs.

        Raises
        ------
        TypeError, ValueError
            If an input is not a pair or not a str (the message has its index) or has a lone surrogate, or a
            name or value is unknown.
        """
        inputs = old_name(inputs, kwargs)
        activation_fn = old_name(activation_fn, kwargs, "activation_fct", "activation_fn")
        check_execution(batch_size, device, pool, chunk_size)
        refuse_unknown("predict", kwargs, _NO_EFFECT)
        prompt = self.resolve_prompt(prompt, prompt_name)
        pairs, single = self._listed(inputs)
        with progress_bar(len(pairs), show_progress_bar, "pair") as bar:
            parts = self._parts(pairs, (device, pool, chunk_size), bar, prompt=prompt)
        scores = self._activated(np.concatenate(parts), activation_fn)
        if apply_softmax and scores.ndim > 1:
            scores = softmax(scores)
        result = self._converted(scores, convert_to_numpy, convert_to_tensor)
        return result[0] if single else result

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: object = None,
        device: Any = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Order documents by their scores for a query.

        Parameters
        ----------
        query, documents
            A str and a sequence of str.
        top_k
            Number of documents to return; None for all.
        return_documents
            Add the texts.
        prompt_name, prompt, batch_size, show_progress_bar, activation_fn, device, pool, chunk_size, **kwargs
            See `predict`.

        Returns
        -------
        list of dict
            "corpus_id" (the index in documents), "score" and "text", by descending score. Of equal scores
            the earlier document comes first.

        Raises
        ------
        TypeError, ValueError
            See `predict`; also for a model with several scores per pair.

        Examples
        --------
        >>> from simdformer import CrossEncoder
        >>> model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")
        >>> len(model.rank("How many cats?", ["Rates rose.", "Two cats."], top_k=1))
        1
        """
        activation_fn = old_name(activation_fn, kwargs, "activation_fct", "activation_fn")
        check_execution(batch_size, device, pool, chunk_size)
        refuse_unknown("rank", kwargs, _NO_EFFECT_ON_RANK)
        if top_k is not None:
            positive_int("top_k", top_k)
        if self.num_labels != 1:
            raise ValueError(
                f"rank needs a model with one score per pair, this one has {self.num_labels}:"
                " use predict"
            )
        prompt = self.resolve_prompt(prompt, prompt_name)
        query = check_text(query, None, "query")
        texts = document_list(documents)
        pairs = [(query, text) for text in texts]
        with progress_bar(len(pairs), show_progress_bar, "pair") as bar:
            parts = self._parts(pairs, (device, pool, chunk_size), bar, prompt=prompt)
        scores = self._activated(np.concatenate(parts), activation_fn).tolist()
        order = descending(scores, top_k)
        return [
            {"corpus_id": index, "score": scores[index]}
            | ({"text": texts[index]} if return_documents else {})
            for index in order
        ]

    def is_singular_input(self, inputs: object) -> bool:
        """Return whether `predict` treats this as one pair."""
        return self._listed(inputs)[1]

    def _listed(self, inputs: Any) -> tuple[list[Any], bool]:
        return pair_list(inputs)

    def _prompted(self, texts: Iterable[Any], prompt: str | None) -> Iterable[Any]:
        return [self.pipeline.prompted_pair(pair, prompt) for pair in texts]

    def compute(self, pairs: list[Pair], *, prompt: str | None, bar: Any = None) -> Float32:
        """Return the logits of checked pairs, float32 (n, num_labels), computed in this process."""
        shape = (len(pairs), self.num_labels)
        return self.pipeline.matrix(self._prompted(pairs, prompt), shape, bar=bar)

    def _activated(self, logits: Float32, activation_fn: object) -> Float32:
        """The scores after the activation: float32 (n, num_labels), or (n,) for one label or no pair."""
        function = activation_function(
            self.activation_fn if activation_fn is None else activation_fn
        )
        if not len(logits):
            return np.empty(0, np.float32)
        scores = np.asarray(function(logits), dtype=np.float32)
        if scores.shape != logits.shape:
            raise ValueError(
                f"activation_fn must keep the shape {logits.shape}, got {scores.shape}"
            )
        return scores[:, 0] if self.num_labels == 1 else scores

    def _exported_output(self) -> dict[str, Any]:
        function = self.activation_fn
        kernel = function.kernel if isinstance(function, TorchActivation) else None
        if kernel is None:
            raise ValueError(f"activation_fn {function!r} has no kernel, so it cannot be exported")
        return {"activation": kernel}

    def _settings_files(self) -> dict[str, Any]:
        function = self.activation_fn
        if not isinstance(function, TorchActivation):
            raise TypeError(f"only activations of torch.nn can be saved, got {function!r}")
        fields = {"model_type": "CrossEncoder", "activation_fn": function.torch_class}
        files = settings_files(self, fields)
        if self._score_tokens and "modules.json" in files:
            causal = {"transformer_task": "text-generation", "module_output_name": "causal_logits"}
            files["sentence_bert_config.json"] |= causal
            files["modules.json"][1]["type"] = _LOGIT_SCORE
            true, false = (*self._score_tokens, None)[:2]
            score = {"true_token_id": true, "false_token_id": false}
            files["1_LogitScore/config.json"] = score
        return files
