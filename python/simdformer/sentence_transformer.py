# SPDX-License-Identifier: Apache-2.0
"""SentenceTransformer: texts in, vectors out, with the names and meanings of sentence-transformers."""

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
from simdformer.folder.token_heads import TokenHeads, collected
from simdformer.text.inputs import (
    check_arguments,
    checked_truncate_dim,
    old_name,
    pop_hidden_states,
    pop_returns,
)
from simdformer.text.pipeline import Float32
from simdformer.util import similarity
from simdformer.util.embedding_precision import (
    check_precision,
    quantize_embeddings,
)


class SentenceTransformer(EmbeddingModel):
    """A sentence embedding model on CPUs, a drop-in for sentence-transformers' class.

    A text gives the same bits alone, in any batch and with any number of threads. Any number of Python
    threads may use one model at the same time.

    Parameters
    ----------
    model_name_or_path : str or path
        A folder, or a name such as "all-MiniLM-L6-v2". A name is looked up as a folder, in installed
        packages, in the Hugging Face cache, then on the hub.
    compute_type : str
        Arithmetic of the linear layers. "float32"; "bfloat16" (half the memory, faster with AMX); "int8"
        (a quarter of the memory, faster from AVX2 on). "default": int8 if quantize_model made the folder,
        else float32. "auto": int8 if it is faster on this CPU, else float32.
    num_threads : int or None
        Threads of a call; None for all that this process may use (see `show_config`).
    max_batch_tokens : int
        Tokens per forward pass, which bounds its memory. A longer single text is a pass of its own.
    prompts, default_prompt_name, truncate_dim, similarity_fn_name
        Override the settings of the model.
    cache_folder, revision, local_files_only, token
        A Hugging Face cache; a branch, tag or commit; do not access the hub; a token for the hub.
    device : None or "cpu"
        The only device.
    **further
        Further arguments of sentence-transformers. `dtype` of model_kwargs (float32, bfloat16, "auto")
        selects the compute type. config_kwargs and processor_kwargs override fields of config.json and
        tokenizer_config.json. With trust_remote_code no code is run either.

    Attributes
    ----------
    encoder : nn.TextEncoder
        The loaded module, such as encoder.layers[3].self_attn.
    name_or_path : str
        The name or folder that was loaded.
    pipeline : TextPipeline
        The tokenizer, the native model and the token budget.
    compute_type, part_types
        Compute type of the linear layers; that of each part by name where they differ.
    pooling_modes : tuple of str
        How token vectors become one vector, such as ("mean",). Several are concatenated.
    num_dense_layers : int
        Dense layers after the pooling.
    prompts, default_prompt_name
        Texts put before each input, by name, and the name used by default.
    truncate_dim : int or None
        Number of leading dimensions that `encode` returns; None for all.
    num_tokens, truncated_texts : int
        Tokens embedded, and texts longer than max_seq_length, since loading. The first call with such a
        text warns.

    Raises
    ------
    FileNotFoundError
        If there is no such model. The message lists where it was looked up.
    ValueError
        If an argument, a file, a field or a tensor is not valid or not supported. The message names it.

    Examples
    --------
    >>> from simdformer import SentenceTransformer
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
        """Load a model; see the class."""
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
        self.truncate_dim = checked_truncate_dim(truncate_dim, defaults.truncate_dim)
        saved = defaults.similarity_fn_name
        self.similarity_fn_name = self._saved_similarity(similarity_fn_name, saved)

    def _load(self, request: LoadRequest) -> LoadedModel:
        request = request.found()
        loaded = load_model(request.folder, request.compute_type, request.overrides)
        self._adopt(request, loaded, include_prompt=loaded.include_prompt)
        modules = read_module_list(request.folder) or [("Transformer", ""), ("Pooling", "")]
        self.module_names = tuple(name for name, _ in modules)
        self._token_heads = TokenHeads(request.folder)
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

        Parameters
        ----------
        inputs
            A str, or a list, tuple, array or column of n str. `sentences` is the older name.
        prompt_name, prompt
            Text put before each input: prompt, else the prompt named prompt_name or default_prompt_name.
        batch_size
            Checked, without effect: max_batch_tokens of the constructor bounds a pass.
        show_progress_bar
            None shows it if the logger "simdformer" is at INFO or DEBUG.
        output_value
            "sentence_embedding", "token_embeddings", or None for a dict per text (output_hidden_states=True
            adds all hidden states).
        precision
            See `quantize_embeddings`, which is applied last.
        convert_to_numpy, convert_to_tensor
            False returns a list of n arrays; True returns a torch.Tensor.
        truncate_dim, normalize_embeddings
            Keep the leading dimensions, then divide by the L2 norm.
        device, pool, chunk_size
            None or "cpu". With a list of devices, or a pool, as many processes embed chunks of chunk_size.
        **kwargs
            task: "query", "document" or another name that the model distinguishes. return_dense,
            return_sparse, return_colbert_vecs: outputs of BAAI/bge-m3, computed in one pass.

        Returns
        -------
        float32 (n, dim), or (dim,) for a str
            The embeddings; (0,) for no texts. With another output_value a list of n arrays (tokens,
            hidden_size) or dicts. precision changes the dtype. With the arguments return_*: a dict with
            "dense_vecs", "lexical_weights" (for each text a dict from token id to weight) and "colbert_vecs"
            (for each text float32 (tokens - 1, dim)), None for those that are not wanted.

        Raises
        ------
        TypeError, ValueError
            If an input is not a str (the message has its index) or has a lone surrogate, or a name or value
            is unknown.

        Examples
        --------
        >>> from simdformer import SentenceTransformer
        >>> SentenceTransformer("all-MiniLM-L6-v2").encode("A cat.", truncate_dim=64).shape
        (64,)
        """
        inputs = old_name(inputs, kwargs)
        precision = check_precision(precision, output_value)
        returns = pop_returns(kwargs, output_value, precision, convert_to_tensor)
        arguments = {
            "output_value": output_value,
            "normalize_embeddings": normalize_embeddings,
            "truncate_dim": checked_truncate_dim(truncate_dim, self.truncate_dim),
            "hidden_states": pop_hidden_states(kwargs, output_value),
            "task": kwargs.get("task"),
            "returns": returns,
        }
        check_arguments(batch_size, output_value, device, pool, chunk_size, kwargs)
        arguments["prompt"] = self.resolve_prompt(prompt, prompt_name)
        texts, single = self._listed(inputs)
        with progress_bar(len(texts), show_progress_bar, "text") as bar:
            found = join(self._parts(texts, (device, pool, chunk_size), bar, **arguments))
        if returns is not None:
            dim = self.get_embedding_dimension()
            return self._given(collected(found, returns, dim, single=single))
        if output_value == "sentence_embedding":
            if precision != "float32" and texts:
                found = quantize_embeddings(found, precision)
            found = self._converted(found, convert_to_numpy, convert_to_tensor)
        else:
            if precision != "float32" and texts:
                found = quantize_embeddings(found, precision)
            found = self._given(found)
        return found[0] if single else found

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Iterator[Float32]:
        """Embed texts from any iterable as they arrive, in bounded memory.

        Parameters
        ----------
        texts
            Iterable of str. It is advanced in the caller's thread, at most some thousands of texts ahead.
        prompt_name, prompt, normalize_embeddings, truncate_dim
            See `encode`.

        Yields
        ------
        float32 (k, dim)
            The vectors of the next k >= 1 texts. Arguments are checked at once, texts when they are read.

        Examples
        --------
        >>> from simdformer import SentenceTransformer
        >>> model = SentenceTransformer("all-MiniLM-L6-v2")
        >>> sum(len(rows) for rows in model.encode_stream(f"text {i}" for i in range(3)))
        3
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
    """The steps after the modules, in sentence-transformers' order: slice, then normalize."""
    with closing(parts):
        for part in parts:
            rows = part[:, :truncate_dim]
            yield similarity.normalize_embeddings(rows) if normalize_embeddings else rows
