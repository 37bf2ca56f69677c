# SPDX-License-Identifier: Apache-2.0
"""CrossEncoder: pairs of texts in, scores out, with sentence-transformers' names and meanings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simdformer.folder.activation import activation_function, activation_kernel
from simdformer.folder.loading import COMPUTE_TYPES, load_cross_encoder
from simdformer.folder.modules import read_activation
from simdformer.folder.resolve import resolve_model
from simdformer.functional import softmax
from simdformer.functional.arrays import positive_int
from simdformer.text.inputs import (
    check_execution,
    check_known,
    checked_budget,
    document_list,
    merge_prompts,
    old_name,
    pair_list,
    refuse_unknown,
)
from simdformer.text.model import TextModel, convert, progress_bar
from simdformer.text.model_output import MAX_BYTES, Layers, LayersAndHeads, OutputRequest
from simdformer.text.pipeline import Array, Float32, TextPipeline
from simdformer.text.tokenizer import Pair, check_text

# What older releases of sentence-transformers took, and newer ones ignore.
_NO_EFFECT = frozenset({"num_workers"})
_NO_EFFECT_ON_RANK = _NO_EFFECT | {"apply_softmax", "convert_to_numpy", "convert_to_tensor"}


class CrossEncoder(TextModel):
    """A model that reads two texts together and scores them: a drop-in for sentence-transformers'
    class, on CPUs. It ranks documents for a query more precisely than embeddings, and more slowly.

    The same pair gives bit-identical scores alone, in any batch, and with any number of threads.
    Any number of Python threads may use one model at once.

    Attributes:
      encoder: the nn.TextEncoder that was loaded, such as encoder.layers[3].self_attn.
      name_or_path: what it was loaded by.
      pipeline: its tokenizer, native model and token budget; what `predict` and the server run.
      num_labels: how many scores a pair has.
      activation_fn: what the scores go through unless the call says otherwise.
      compute_type: what the linear layers run in.
      part_types: by name, the compute type of each part that was quantised or kept from it.
      prompts: dict from prompt name to the text put before the first text of each pair.
      default_prompt_name: the prompt that applies if a call names none.
      num_tokens: how many tokens have been read since loading.
      truncated_texts: how many pairs were longer than max_seq_length since loading. The first
        call that meets one warns; no other does.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str],
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
    ) -> None:
        """Load a model with a classification head (transformers' *ForSequenceClassification).

        model_name_or_path: a folder, or a name such as "cross-encoder/ms-marco-MiniLM-L6-v2"; it is
          looked for as a folder, in the Hugging Face cache, then on the hub.
        compute_type, num_threads, max_batch_tokens: as SentenceTransformer's. The head is float32
          in any case.
        num_labels: None, or the number of scores that the model must have.
        max_length: the longest pair in tokens; None for what the model says.
        activation_fn: what the scores go through; None for what the model says, else a sigmoid for
          one score and nothing for several. A name or a module of torch.nn (GELU, Identity, ReLU,
          SiLU, Sigmoid, Tanh), or a function of a float32 array (n, num_labels).
        prompts, default_prompt_name: override what the model says.
        cache_folder, revision, local_files_only, token: where to look; see resolve_model.
        device: None or "cpu".

        Errors: FileNotFoundError if there is no such model (it says where it was looked for);
        ValueError naming the file, field or tensor if its folder is damaged or not supported, or
        has no classification head.
        """
        check_known("compute_type", compute_type, COMPUTE_TYPES)
        budget = checked_budget(max_batch_tokens, num_threads, device)
        given = None if activation_fn is None else activation_function(activation_fn)
        folder = resolve_model(
            model_name_or_path,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            organisation="cross-encoder",
        )
        loaded = load_cross_encoder(folder, compute_type)
        super().__init__(
            model_name_or_path,
            TextPipeline(
                loaded.tokenizer,
                loaded.encoder,
                loaded.pool,
                budget,
                padding=loaded.pad_token_id,  # of a causal model: what stands before does not see it
            ),
            compute_type=loaded.compute_type,
            part_types=loaded.part_types,
            prompts=merge_prompts(prompts, loaded.defaults.prompts),
            default_prompt_name=default_prompt_name or loaded.defaults.default_prompt_name,
        )
        self.encoder = loaded.encoder
        self.num_labels = loaded.num_labels
        if num_labels not in (None, self.num_labels):
            raise ValueError(f"num_labels={num_labels!r}, but {folder} has {self.num_labels}")
        if max_length is not None:
            self.max_length = max_length
        # A saved activation is read only if it counts: an unknown one can be overridden.
        self.activation_fn = given or activation_kernel(
            read_activation(loaded.config, loaded.defaults, self.num_labels)
        )

    def __repr__(self) -> str:
        return (
            f"CrossEncoder({self.name_or_path!r}, num_labels={self.num_labels},"
            f" max_seq_length={self.max_seq_length})"
        )

    @property
    def max_length(self) -> int:
        """The older name of `max_seq_length`."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        self.pipeline.limit_length("max_length", value)

    def predict(
        self,
        inputs: Sequence[str] | Sequence[Sequence[str]] | NDArray[Any] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: object = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        pool: None = None,
        chunk_size: None = None,
        **kwargs: Any,
    ) -> Any:
        """Score pairs of texts.

        inputs: a pair of str, or a list, tuple or array of n pairs. (`sentences=` is its older name.)
        prompt: put before the first text of each pair; else the prompt called prompt_name, or
          default_prompt_name.
        batch_size: accepted and checked; the token budget of the constructor decides.
        show_progress_bar: None shows one if the logger "simdformer" is at INFO or DEBUG.
        activation_fn: see the constructor. None for the attribute.
        apply_softmax: of several scores of a pair, after the activation.
        convert_to_numpy: False returns a list of n scores. convert_to_tensor: a torch.Tensor.
        device, pool, chunk_size: None (or "cpu"); there is one process and one device here.

        Returns: float32 (n, num_labels); (n,) if num_labels is 1; for a single pair (num_labels,), or
        a scalar; (0,) for no pairs.

        Errors: TypeError naming the index of what is not a pair or not a str; ValueError for a text
        that holds a lone surrogate, and for unknown names and values, listing the known ones.
        """
        inputs = old_name(inputs, kwargs)
        activation_fn = old_name(activation_fn, kwargs, "activation_fct", "activation_fn")
        check_execution(batch_size, device, pool, chunk_size)
        refuse_unknown("predict", kwargs, _NO_EFFECT)
        prompt = self.resolve_prompt(prompt, prompt_name)
        pairs, single = pair_list(inputs)
        scores = self._scores(pairs, prompt, show_progress_bar, activation_fn)
        if apply_softmax and scores.ndim > 1:
            scores = softmax(scores)
        result = convert(scores, convert_to_numpy, convert_to_tensor)
        return result[0] if single else result

    def outputs(
        self,
        inputs: Sequence[str] | Sequence[Sequence[str]] | NDArray[Any],
        *,
        output_attentions: LayersAndHeads = False,
        output_hidden_states: bool = False,
        output_head_outputs: Layers = False,
        head_mask: ArrayLike | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        max_bytes: int | None = MAX_BYTES,
    ) -> Any:
        """What the model computes on its way to the scores, as SentenceTransformer.outputs.

        inputs, prompt_name, prompt: as for `predict`.

        Returns: a ModelOutput for a single pair, else a list of them. Their logits have the bits of
        `predict` with activation_fn="torch.nn.Identity".
        """
        request = OutputRequest.of(
            self.pipeline.encoder,
            output_attentions,
            output_hidden_states,
            output_head_outputs,
            head_mask,
        )
        prompt = self.resolve_prompt(prompt, prompt_name)
        pairs, single = pair_list(inputs)
        outputs = self.pipeline.outputs(_prompted(pairs, prompt), request, max_bytes, logits=True)
        return outputs[0] if single else outputs

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
        device: object = None,
        pool: None = None,
        chunk_size: None = None,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Order documents by their scores for a query.

        top_k: how many to return; None for all. return_documents: add their texts.
        The other arguments as for `predict`.

        Returns: dicts with "corpus_id" (the index in documents), "score" and, if asked for, "text",
        by falling score; of equal ones the earlier document comes first.

        Errors: TypeError naming the index of a document that is not a str; ValueError for a model of
        several scores a pair, and as for `predict`.
        """
        activation_fn = old_name(activation_fn, kwargs, "activation_fct", "activation_fn")
        check_execution(batch_size, device, pool, chunk_size)
        refuse_unknown("rank", kwargs, _NO_EFFECT_ON_RANK)
        if top_k is not None:
            positive_int("top_k", top_k)
        if self.num_labels != 1:
            raise ValueError(
                f"rank needs a model with one score a pair, this one has {self.num_labels}:"
                " use predict"
            )
        prompt = self.resolve_prompt(prompt, prompt_name)
        query = check_text(query, None, "query")
        texts = document_list(documents)
        pairs = [(query, text) for text in texts]
        scores = self._scores(pairs, prompt, show_progress_bar, activation_fn).tolist()
        # sorted is stable: of equal scores the earlier stays first.
        order = sorted(range(len(texts)), key=lambda index: -scores[index])[:top_k]
        return [
            {"corpus_id": index, "score": scores[index]}
            | ({"text": texts[index]} if return_documents else {})
            for index in order
        ]

    def tokenize(
        self, inputs: Sequence[Sequence[str]], prompt: str | None = None
    ) -> dict[str, Array]:
        """The model's view of pairs: as SentenceTransformer.tokenize, of texts."""
        pairs, _ = pair_list(inputs)
        return self.pipeline.padded_tokens(_prompted(pairs, prompt))

    preprocess = tokenize

    def _scores(
        self,
        pairs: list[Pair],
        prompt: str | None,
        show_progress_bar: bool | None,
        activation_fn: object,
    ) -> Float32:
        """float32 (n, num_labels), or (n,) if there is one label or no pair."""
        function = activation_function(
            self.activation_fn if activation_fn is None else activation_fn
        )
        if not pairs:
            return np.empty(0, np.float32)
        bar = progress_bar(len(pairs), show_progress_bar, "pair")
        try:
            shape = (len(pairs), self.num_labels)
            logits = self.pipeline.matrix(_prompted(pairs, prompt), shape, bar=bar)
        finally:
            if bar is not None:
                bar.close()
        scores = np.asarray(function(logits), dtype=np.float32)
        if scores.shape != shape:
            raise ValueError(f"activation_fn must keep the shape {shape}, got {scores.shape}")
        return scores[:, 0] if self.num_labels == 1 else scores


def _prompted(pairs: list[Pair], prompt: str | None) -> list[Pair]:
    return [(prompt + first, second) for first, second in pairs] if prompt else pairs
