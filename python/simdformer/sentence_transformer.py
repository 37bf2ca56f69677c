# SPDX-License-Identifier: Apache-2.0
"""SentenceTransformer: text in, vectors out, with sentence-transformers' names and meanings."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simdformer.folder.loading import COMPUTE_TYPES, load_model
from simdformer.folder.modules import Defaults
from simdformer.folder.resolve import resolve_model
from simdformer.text.inputs import (
    check_arguments,
    check_known,
    checked_budget,
    checked_truncate_dim,
    document_prompt,
    merge_prompts,
    old_name,
    pop_hidden_states,
    text_list,
)
from simdformer.text.model import TextModel, convert, progress_bar
from simdformer.text.model_output import (
    MAX_BYTES,
    Layers,
    LayersAndHeads,
    OutputRequest,
    features,
)
from simdformer.text.pipeline import Array, Float32, TextPipeline
from simdformer.text.tokenizer import check_text
from simdformer.util import similarity
from simdformer.util.embedding_precision import check_precision, quantize_embeddings
from simdformer.util.similarity import SIMILARITIES

R = TypeVar("R")

# Vectors that are normalized at a time.
_ROWS = 4096


class SentenceTransformer(TextModel):
    """A sentence embedding model: a drop-in for sentence-transformers' class, on CPUs.

    The same text gives bit-identical vectors alone, in any batch, and with any number of threads.
    Any number of Python threads may use one model at once.

    Attributes:
      encoder: the nn.TextEncoder that was loaded, such as encoder.layers[3].self_attn.
      name_or_path: what it was loaded by.
      pipeline: its tokenizer, native model and token budget; what `encode` and the server run.
      compute_type: what the linear layers run in.
      part_types: by name, the compute type of each part that was quantised or kept from it.
      pooling_modes: how a text's tokens become one vector, such as ("mean",); several concatenate.
      num_dense_layers: dense layers behind the pooling.
      prompts: dict from prompt name to the text put before each input.
      default_prompt_name: the prompt that applies if a call names none.
      truncate_dim: how many leading dimensions `encode` keeps, or None for all.
      num_tokens: how many tokens have been embedded since loading.
      truncated_texts: how many texts were longer than max_seq_length since loading. The first
        call that meets one warns; no other does.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str],
        *,
        compute_type: str = "default",
        num_threads: int | None = None,
        max_batch_tokens: int = 16384,
        prompts: Mapping[str, str | None] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        similarity_fn_name: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        device: object = None,
    ) -> None:
        """Load a model.

        model_name_or_path: a folder, or a name such as "all-MiniLM-L6-v2"; it is looked for as a
          folder, in installed packages, in the Hugging Face cache, then on the hub.
        compute_type: the arithmetic of the linear layers: "float32"; "bfloat16", which rounds their
          weights to half the memory and is faster with AMX; or "int8", which is faster still where
          the CPU has instructions for it, and takes a quarter.
          docs/quantization.md says how near the vectors come.
          "default" is what the folder declares: int8 if quantize_model made it, else float32.
          "auto" is int8 where the CPU has instructions for it, else float32; the attribute
          compute_type says which.
        num_threads: threads of a call; None for as many as this process may use (see show_config).
        max_batch_tokens: tokens in one forward pass, which bounds its memory. A longer single text
          is a pass of its own.
        prompts, default_prompt_name, truncate_dim, similarity_fn_name: override what the model says.
        cache_folder, revision, local_files_only, token: where to look; see resolve_model.
        device: None or "cpu".

        Errors: FileNotFoundError if there is no such model (it says where it was looked for);
        ValueError naming the file, field or tensor if its folder is damaged or not supported.
        """
        check_known("compute_type", compute_type, COMPUTE_TYPES)
        budget = checked_budget(max_batch_tokens, num_threads, device)
        folder = resolve_model(
            model_name_or_path,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
        )
        loaded = load_model(folder, compute_type)
        super().__init__(
            model_name_or_path,
            TextPipeline(
                loaded.tokenizer,
                loaded.encoder,
                loaded.pool,
                budget,
                include_prompt=loaded.include_prompt,
            ),
            compute_type=loaded.compute_type,
            part_types=loaded.part_types,
            prompts=merge_prompts(prompts, loaded.defaults.prompts, always=("query", "document")),
            default_prompt_name=default_prompt_name or loaded.defaults.default_prompt_name,
        )
        self.encoder = loaded.encoder
        self.pooling_modes = loaded.pooling_modes
        self.num_dense_layers = loaded.num_dense_layers
        self.truncate_dim = checked_truncate_dim(truncate_dim, loaded.defaults.truncate_dim)
        self.similarity_fn_name = similarity_fn_name or _saved_similarity(loaded.defaults)

    def __repr__(self) -> str:
        return (
            f"SentenceTransformer({self.name_or_path!r}, dim={self.get_embedding_dimension()},"
            f" max_seq_length={self.max_seq_length})"
        )

    # --- encoding ---

    def encode(
        self,
        inputs: str | Sequence[str] | NDArray[Any] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: None = None,
        **kwargs: Any,
    ) -> Any:
        """Embed texts.

        inputs: a str, or a list, tuple or array of n str. (`sentences=` is its older name.)
        prompt: put before each text; else the prompt called prompt_name, or default_prompt_name.
        batch_size: accepted and checked; the token budget of the constructor decides.
        show_progress_bar: None shows one if the logger "simdformer" is at INFO or DEBUG.
        output_value: "sentence_embedding", "token_embeddings" (what pooling would see), or None for
          a dict a text. output_hidden_states=True adds all layers' to it; see `outputs` for more.
        precision: see quantize_embeddings, which is applied last.
        normalize_embeddings: divide each vector by its L2 norm, after truncation.
        truncate_dim: keep the leading dimensions only. Vectors of a model that normalizes are
          not unit vectors afterwards, unless normalize_embeddings is set too.
        convert_to_numpy: False returns a list of n arrays. convert_to_tensor: a torch.Tensor.
        device, pool, chunk_size: None (or "cpu"); there is one process and one device here.

        Returns: float32 (n, dim); (dim,) for a str; (0,) for no texts. With "token_embeddings" a
        list of n arrays float32 (tokens, hidden_size), or that array for a str. Other precisions
        change dtype, and binary ones the width. With None a list of n dicts, or one for a str, with
        sentence-transformers' keys and NumPy's arrays, without padding: "input_ids",
        "token_type_ids" (if the model has any) and "attention_mask" int64 (tokens,), "modality",
        "prompt_length" (if there is a prompt), "token_embeddings", "sentence_embedding" (truncated,
        not normalised: as there) and, if asked for, "all_layer_embeddings", a tuple of num_layers + 1
        arrays float32 (tokens, hidden_size).

        Errors: TypeError naming the index of an input that is not a str; ValueError for one that
        holds a lone surrogate, and for unknown names and values, listing the known ones.
        """
        inputs = old_name(inputs, kwargs)
        check_precision(precision)
        hidden_states = pop_hidden_states(kwargs, output_value)
        check_arguments(batch_size, output_value, device, pool, chunk_size, kwargs)
        if output_value is None and precision != "float32":
            raise ValueError(
                f"precision must be 'float32' with output_value=None, got {precision!r}"
            )
        prompt = self.resolve_prompt(prompt, prompt_name)
        single = isinstance(inputs, str)
        texts = [inputs] if isinstance(inputs, str) else text_list(inputs)
        bar = progress_bar(len(texts), show_progress_bar, "text")
        try:
            if output_value is None:
                dicts = self._encode_features(texts, prompt, bar, truncate_dim, hidden_states)
                return dicts[0] if single else dicts
            if output_value == "token_embeddings":
                rows = self.pipeline.token_rows(_prompted(texts, prompt))
                matrices: list[Array] = _joined(rows, bar)
                matrices = _quantize_matrices(matrices, precision)
                return matrices[0] if single else matrices
            embeddings = self._encode_sentences(
                texts, prompt, bar, normalize_embeddings, truncate_dim
            )
        finally:
            if bar is not None:
                bar.close()
        if precision != "float32" and texts:
            embeddings = quantize_embeddings(embeddings, precision)
        result = convert(embeddings, convert_to_numpy, convert_to_tensor)
        return result[0] if single else result

    def encode_query(
        self,
        inputs: str | Sequence[str] | NDArray[Any] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Embed queries: `encode` with the prompt "query", unless the call names another."""
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        return self.encode(inputs, prompt_name, prompt, *args, **kwargs)

    def encode_document(
        self,
        inputs: str | Sequence[str] | NDArray[Any] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Embed documents: `encode` with the first of the prompts "document", "passage" and
        "corpus" that the model has, unless the call names another."""
        if prompt_name is None and prompt is None:
            prompt_name = document_prompt(self.prompts)
        return self.encode(inputs, prompt_name, prompt, *args, **kwargs)

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Iterator[Float32]:
        """Embed texts from any iterable while they arrive, in bounded memory.

        Arguments as for `encode`. `texts` is advanced in the consumer's thread, some thousands of
        texts at most ahead of the vectors. Yields float32 arrays (k, dim) with k >= 1 that hold the
        vectors in order. Arguments are checked at once, texts when they are reached.
        """
        prompt = self.resolve_prompt(prompt, prompt_name)
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise TypeError(f"texts must be an iterable of str, got {type(texts).__name__}")
        truncate_dim = checked_truncate_dim(truncate_dim, self.truncate_dim)
        rows = self.pipeline.rows(_prompted(texts, prompt), self.pipeline.pooling_start(prompt))
        return _finished(rows, truncate_dim, normalize_embeddings)

    def outputs(
        self,
        inputs: str | Sequence[str] | NDArray[Any],
        *,
        output_attentions: LayersAndHeads = False,
        output_hidden_states: bool = False,
        output_head_outputs: Layers = False,
        head_mask: ArrayLike | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        max_bytes: int | None = MAX_BYTES,
    ) -> Any:
        """What the model computes on its way to the vectors, on the path that `encode` takes.

        inputs, prompt_name, prompt: as for `encode`.
        output_attentions: True for the weights of all layers and heads; layers by number (negative
          ones from the end); or a dict from layer to its heads by number, or True for all.
        output_hidden_states: every layer's.
        output_head_outputs: True, or layers by number.
        head_mask: float32 (num_heads,) or (num_layers, num_heads), factors of the heads' outputs
          and weights: 0 switches a head off. None or ones change no bit.
        max_bytes: what the arrays of the call may take together; None for no limit. Attentions
          grow with the square of a text's length.

        Returns: a ModelOutput, or a list of them for a sequence of texts. What is asked for
        changes no bit of the rest; head_mask does, as it should.

        Errors: those of `encode`; ValueError for layers and heads that the model does not have, for
        a head_mask of another shape, and, before they are made, for arrays of more than max_bytes.
        """
        request = OutputRequest.of(
            self.pipeline.encoder,
            output_attentions,
            output_hidden_states,
            output_head_outputs,
            head_mask,
        )
        prompt = self.resolve_prompt(prompt, prompt_name)
        texts = [inputs] if isinstance(inputs, str) else text_list(inputs)
        found = self.pipeline.outputs(
            list(_prompted(texts, prompt)), request, max_bytes, self.pipeline.pooling_start(prompt)
        )
        outputs = [output.with_dim(self.truncate_dim) for output in found]
        return outputs[0] if isinstance(inputs, str) else outputs

    def tokenize(self, texts: Sequence[str], prompt: str | None = None) -> dict[str, Array]:
        """The model's view of texts, as sentence-transformers' `tokenize` and `preprocess` have it.

        Returns: "input_ids", "token_type_ids" and "attention_mask", each int64 (n, longest), padded
        on the right. `encode` uses none of this: it does not pad.
        """
        return self.pipeline.padded_tokens(list(_prompted(texts, prompt)))

    preprocess = tokenize

    # --- similarity ---

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: "cosine", "dot", "euclidean" or "manhattan"."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str) -> None:
        name = str(getattr(name, "value", name))  # sentence-transformers' enum holds the name
        if name not in SIMILARITIES:
            raise ValueError(
                f"unknown similarity_fn_name {name!r}; known: {', '.join(SIMILARITIES)}"
            )
        self._similarity_fn_name = name

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Array:
        """Compare all with all. embeddings1: (n, dim) or (dim,), embeddings2: (m, dim) or (dim,).

        Returns: (n, m), float32 unless the embeddings are float64; distances are negated.
        """
        return SIMILARITIES[self._similarity_fn_name][0](embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Array:
        """Compare embeddings1[i] with embeddings2[i]; both (n, dim) or (dim,). Returns: (n,), ()."""
        return SIMILARITIES[self._similarity_fn_name][1](embeddings1, embeddings2)

    # --- properties of the model ---

    def get_embedding_dimension(self) -> int:
        """The length of the vectors that `encode` returns."""
        full = self.pipeline.width
        return full if self.truncate_dim is None else min(full, self.truncate_dim)

    get_sentence_embedding_dimension = get_embedding_dimension

    def get_max_seq_length(self) -> int:
        """The same as `max_seq_length`."""
        return self.max_seq_length

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Whether pooling takes in the tokens of the prompt (INSTRUCTOR models leave them out)."""
        self.pipeline.include_prompt = include_prompt

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within this context, `encode` keeps `truncate_dim` dimensions (None: all)."""
        before = self.truncate_dim
        self.truncate_dim = checked_truncate_dim(truncate_dim, None)
        try:
            yield
        finally:
            self.truncate_dim = before

    # --- the way of the data ---

    def _encode_sentences(
        self,
        texts: list[str],
        prompt: str | None,
        bar: Any,
        normalize_embeddings: bool,
        truncate_dim: int | None,
    ) -> Array:
        truncate_dim = checked_truncate_dim(truncate_dim, self.truncate_dim)
        if not texts:
            return np.asarray([])
        width = self.pipeline.width
        embeddings = self.pipeline.matrix(
            _prompted(texts, prompt),
            (len(texts), min(width, truncate_dim or width)),
            pooling_start=self.pipeline.pooling_start(prompt),
            bar=bar,
        )
        if normalize_embeddings:  # some rows at a time: their squares need memory too
            for begin in range(0, len(texts), _ROWS):
                rows = embeddings[begin : begin + _ROWS]
                rows[:] = similarity.normalize_embeddings(rows)
        return embeddings

    def _encode_features(
        self,
        texts: list[str],
        prompt: str | None,
        bar: Any,
        truncate_dim: int | None,
        hidden_states: bool,
    ) -> list[dict[str, Any]]:
        pipeline = self.pipeline
        truncate_dim = checked_truncate_dim(truncate_dim, self.truncate_dim)
        request = OutputRequest(pipeline.encoder, hidden_states=hidden_states)
        passes = pipeline.output_passes(
            _prompted(texts, prompt), request, pipeline.pooling_start(prompt)
        )
        prompt_length = pipeline.tokenizer.prompt_length(prompt) if prompt else None
        typed = pipeline.encoder.num_token_types > 1
        return [
            features(output.with_dim(truncate_dim), prompt_length, typed)
            for output in _joined(passes, bar)
        ]


def _joined(passes: Generator[list[R], None, None], bar: Any) -> list[R]:
    """The results of all passes; the bar is told of each."""
    result: list[R] = []
    with closing(passes) as parts:
        for part in parts:
            result.extend(part)
            if bar is not None:
                bar.update(len(part))
    return result


def _saved_similarity(defaults: Defaults) -> str:
    """A saved function that belongs to another kind of model ("maxsim") is passed over."""
    saved = defaults.similarity_fn_name
    return saved if saved in SIMILARITIES else "cosine"


def _finished(
    parts: Generator[Float32, None, None], truncate_dim: int | None, normalize_embeddings: bool
) -> Iterator[Float32]:
    """What comes after the modules, in sentence-transformers' order: slice, then normalize."""
    with closing(parts):
        for part in parts:
            rows = part[:, :truncate_dim]
            yield similarity.normalize_embeddings(rows) if normalize_embeddings else rows


def _quantize_matrices(matrices: list[Array], precision: str) -> list[Array]:
    """All matrices with the same ranges."""
    if precision == "float32" or not matrices:
        return matrices
    ends = np.cumsum([len(matrix) for matrix in matrices])
    return np.split(quantize_embeddings(np.concatenate(matrices), precision), ends[:-1])


def _prompted(texts: Iterable[str], prompt: str | None) -> Iterator[str]:
    """Each text, checked when it is reached, behind the prompt."""
    prefix = prompt or ""
    for index, text in enumerate(texts):
        yield prefix + check_text(text, index)
