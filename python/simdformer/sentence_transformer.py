# SPDX-License-Identifier: Apache-2.0
"""SentenceTransformer: text in, vectors out, with sentence-transformers' names and meanings."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from simdformer.drop_in.arguments import LoadRequest, load_request
from simdformer.drop_in.embedding_model import EmbeddingModel, join
from simdformer.drop_in.model_card import model_card
from simdformer.drop_in.module_list import read_module_list
from simdformer.drop_in.text_model import progress_bar
from simdformer.folder.loading import LoadedModel, load_model
from simdformer.text.inputs import (
    check_arguments,
    checked_truncate_dim,
    document_prompt,
    merge_prompts,
    old_name,
    pop_hidden_states,
)
from simdformer.text.pipeline import Float32
from simdformer.util import similarity
from simdformer.util.embedding_precision import (
    check_precision,
    quantize_embeddings,
)
from simdformer.util.similarity import SIMILARITIES


class SentenceTransformer(EmbeddingModel):
    """A sentence embedding model: a drop-in for sentence-transformers' class, on CPUs.

    The same text gives bit-identical vectors alone, in any batch, and with any number of threads.
    Any number of Python threads may use one model at once.

    Parameters
    ----------
    model_name_or_path : str or path
        A folder, or a name such as "all-MiniLM-L6-v2"; it is looked for as a folder, in installed
        packages, in the Hugging Face cache, then on the hub.
    compute_type : str
        The arithmetic of the linear layers: "float32"; "bfloat16", which rounds their weights to half
        the memory and is faster with AMX; or "int8", which is faster from AVX2 on, most with VNNI
        or AMX, and takes a quarter (docs/quantization.md: how near the vectors come).
        "default" is what the folder declares: int8 if quantize_model made it, else float32. "auto" is
        int8 where that is faster on this CPU, else float32.
    num_threads : int or None
        Threads of a call; None for as many as this process may use (see show_config).
    max_batch_tokens : int
        Tokens in one forward pass, which bounds its memory. A longer single text is a pass of its own.
    prompts, default_prompt_name, truncate_dim, similarity_fn_name
        Override what the model says.
    cache_folder, revision, local_files_only, token
        Where to look; see resolve_model.
    device : None or "cpu"
        The only device here.
    **further
        sentence-transformers' further arguments. model_kwargs: `dtype` (float32, bfloat16, "auto")
        chooses the compute type; how attention is computed has no effect. config_kwargs and
        processor_kwargs (older: tokenizer_kwargs): fields in the place of config.json's and
        tokenizer_config.json's. trust_remote_code: no code of a folder is ever run; what is not built
        in stays refused. backend: "torch". model_card_data: kept. use_auth_token: as token.

    Attributes
    ----------
    encoder : nn.TextEncoder
        What was loaded, such as encoder.layers[3].self_attn.
    name_or_path : str
        What it was loaded by.
    pipeline : TextPipeline
        Its tokenizer, native model and token budget; what `encode` and the server run.
    compute_type, part_types
        What the linear layers run in; by name, that of each part that was quantised or kept from it.
    pooling_modes : tuple of str
        How a text's tokens become one vector, such as ("mean",); several concatenate.
    num_dense_layers : int
        Dense layers behind the pooling.
    prompts, default_prompt_name
        The text put before each input, by name; the one that applies if a call names none.
    truncate_dim : int or None
        How many leading dimensions `encode` keeps; None for all.
    num_tokens, truncated_texts : int
        How many tokens have been embedded since loading, and how many texts were longer than
        max_seq_length. The first call that meets one warns; no other does.

    Raises
    ------
    FileNotFoundError
        There is no such model; it says where it was looked for.
    ValueError
        An argument cannot be had here, or the folder is damaged or not supported: it names the argument,
        or the file, field or tensor.

    Examples
    --------
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> model.encode(["A cat.", "A dog."]).shape
    (2, 384)
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
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
        **further: Any,
    ) -> None:
        """Load a model: see the class."""
        source = {
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
            "token": token,
        }
        running = {
            "compute_type": compute_type,
            "num_threads": num_threads,
            "max_batch_tokens": max_batch_tokens,
            "device": device,
        }
        loaded = self._load(load_request(model_name_or_path, source, running, further))
        defaults = loaded.defaults
        self.model_card_data = model_card(further)
        self.prompts = merge_prompts(prompts, defaults.prompts, always=("query", "document"))
        self.default_prompt_name = default_prompt_name or defaults.default_prompt_name
        self.resolve_prompt()
        self.truncate_dim = checked_truncate_dim(truncate_dim, defaults.truncate_dim)
        saved = defaults.similarity_fn_name  # another kind of model's ("maxsim") is passed over
        self.similarity_fn_name = similarity_fn_name or (
            saved if saved in SIMILARITIES else "cosine"
        )

    def _load(self, request: LoadRequest) -> LoadedModel:
        request = request.found()
        loaded = load_model(request.folder, request.compute_type, request.overrides)
        self._adopt(request, loaded, include_prompt=loaded.include_prompt)
        modules = read_module_list(request.folder) or [("Transformer", ""), ("Pooling", "")]
        self.module_names = tuple(name for name, _ in modules)
        self.pooling_modes, self.num_dense_layers = loaded.pooling_modes, loaded.num_dense_layers
        return loaded

    def __repr__(self) -> str:
        return (
            f"SentenceTransformer({self.name_or_path!r}, dim={self.get_embedding_dimension()},"
            f" max_seq_length={self.max_seq_length})"
        )

    # --- encoding ---

    def encode(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embed texts.

        inputs: a str, or a list, tuple, array or column of n str. (`sentences=` is its older name.)
        prompt: put before each text; else the prompt called prompt_name, or default_prompt_name.
        batch_size: accepted and checked; the token budget of the constructor decides.
        show_progress_bar: None shows one if the logger "simdformer" is at INFO or DEBUG.
        output_value: "sentence_embedding", "token_embeddings" (what pooling would see), or None for a dict
          a text (text/model_output.features); output_hidden_states=True adds all layers' to it.
        precision: see quantize_embeddings, which is applied last; None for "float32".
        truncate_dim: keep the leading dimensions only. normalize_embeddings: L2-normalise them then.
        task: "query", "document" or another that the model tells apart, by routes or lengths.
        convert_to_numpy: False returns a list of n arrays. convert_to_tensor: a torch.Tensor.
        device: None or "cpu"; a list of them embeds in as many processes, as `pool` does, in chunks of
          chunk_size (see start_multi_process_pool).
        Returns: float32 (n, dim); (dim,) for a str; (0,) for no texts. Else a list of n arrays float32
        (tokens, hidden_size), or of n dicts. Precisions change dtype, and binary ones the width.
        Errors: TypeError naming the index of an input that is not a str; ValueError for one that holds a
        lone surrogate, and for unknown names and values, listing the known ones.
        """
        inputs = old_name(inputs, kwargs)
        precision = check_precision(precision, output_value)
        arguments = {
            "output_value": output_value,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": checked_truncate_dim(truncate_dim, self.truncate_dim),
            "hidden_states": pop_hidden_states(kwargs, output_value),
            "task": kwargs.get("task"),
        }
        check_arguments(batch_size, output_value, device, pool, chunk_size, kwargs)
        arguments["prompt"] = self.resolve_prompt(prompt, prompt_name)
        texts, single = self._listed(inputs)
        with progress_bar(len(texts), show_progress_bar, "text") as bar:
            found = join(self._parts(texts, (device, pool, chunk_size), bar, **arguments))
        if output_value == "sentence_embedding":
            if precision != "float32" and texts:
                found = quantize_embeddings(found, precision)
            found = self._converted(found, convert_to_numpy, convert_to_tensor)
        else:
            if precision != "float32" and texts:
                found = quantize_embeddings(found, precision)
            found = self._given(found)
        return found[0] if single else found

    def encode_query(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Embed queries: `encode` with the prompt "query", unless the call names another."""
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        return self._call_with_task("query", inputs, (prompt_name, prompt), (args, kwargs))

    def encode_document(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Embed documents: `encode` with the first of the prompts "document", "passage" and
        "corpus" that the model has, unless the call names another."""
        if prompt_name is None and prompt is None:
            prompt_name = document_prompt(self.prompts)
        return self._call_with_task("document", inputs, (prompt_name, prompt), (args, kwargs))

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
        rows = self.pipeline.rows(
            self._prompted(texts, prompt), self.pipeline.pooling_start(prompt)
        )
        return _finished(rows, truncate_dim, normalize_embeddings)


def _finished(
    parts: Generator[Float32, None, None], truncate_dim: int | None, normalize_embeddings: bool
) -> Iterator[Float32]:
    """What comes after the modules, in sentence-transformers' order: slice, then normalize."""
    with closing(parts):
        for part in parts:
            rows = part[:, :truncate_dim]
            yield similarity.normalize_embeddings(rows) if normalize_embeddings else rows
