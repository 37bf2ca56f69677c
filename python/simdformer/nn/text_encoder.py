# SPDX-License-Identifier: Apache-2.0
"""Encoders of token ids: embeddings, layers and a final norm. Model folders are loaded as these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.nn.cache import DecoderCache, check_cache
from simdformer.nn.compute_types import Sample, sample_ids, sample_offsets
from simdformer.nn.containers import ModuleList
from simdformer.nn.encoder import TransformerEncoderLayer
from simdformer.nn.module import Float32, Module
from simdformer.nn.text_embeddings import TextEmbeddings, source


class TextEncoder(Module):
    """Token ids through embeddings, layers and a last norm, in one native call.

    Parameters
    ----------
    embeddings
        A TextEmbeddings.
    layers
        TransformerEncoderLayers. They may differ from each other and may share a position.
    norm
        A norm after the last layer, or None.

    Examples
    --------
    >>> from simdformer import nn
    >>> layers = [nn.TransformerEncoderLayer(8, 2, batch_first=True) for _ in range(2)]
    >>> encoder = nn.TextEncoder(nn.TextEmbeddings(10, 8, max_positions=16), layers)
    >>> encoder([1, 2, 3, 4, 5], [0, 3, 5]).shape
    (5, 8)
    """

    def __init__(
        self,
        embeddings: TextEmbeddings,
        layers: Sequence[TransformerEncoderLayer],
        norm: Module | None = None,
    ) -> None:
        super().__init__()
        for layer in layers:
            if not isinstance(layer, TransformerEncoderLayer):
                raise TypeError(
                    f"TextEncoder takes TransformerEncoderLayers, got {type(layer).__name__}"
                )
            if layer.d_model != embeddings.hidden_size:
                raise ValueError(
                    f"layers must have d_model {embeddings.hidden_size}, the embeddings' features,"
                    f" got {layer.d_model}"
                )
        self.embeddings = embeddings
        self.layers = ModuleList(list(layers))
        self.norm = norm

    @property
    def max_positions(self) -> int:
        """Length of the longest sequence that is accepted; 0 for no limit."""
        limits = [self.embeddings.max_positions, *(x.self_attn.max_positions for x in self.layers)]
        return min((limit for limit in limits if limit is not None), default=0)

    @property
    def hidden_size(self) -> int:
        """Features of a token's row."""
        return int(self.embeddings.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self.embeddings.word_embeddings.num_embeddings)

    @property
    def num_token_types(self) -> int:
        """Number of token types; 0 if the embeddings have no table of them."""
        return int(self.embeddings.num_token_types)

    def _pack(self) -> _core.TransformerStack:
        return _core.TransformerStack(
            [layer.native() for layer in self.layers],
            None if self.norm is None else self.norm.native(),
            self.embeddings.native(),
        )

    def sample(self) -> Sample:
        """The default sample for quantization."""
        cu_seqlens = sample_offsets(self.max_positions)
        return Sample((sample_ids(self.vocab_size, int(cu_seqlens[-1])), cu_seqlens), {})

    def forward(
        self,
        input_ids: Any,
        cu_seqlens: Any,
        token_type_ids: Any = None,
        *,
        cache: DecoderCache | None = None,
        num_threads: int = 0,
    ) -> Float32:
        """Compute the hidden states of packed sequences.

        Parameters
        ----------
        input_ids
            Integers (total,).
        cu_seqlens
            Integers (batch + 1,), offsets of the sequences.
        token_type_ids
            Integers (total,). None means 0 for all tokens.
        cache
            Keys and values of the tokens before these. Theirs are added; attention is causal.
        num_threads
            Number of threads; 0 for the default.

        Returns
        -------
        float32 (total, hidden_size)
            The hidden states.

        Raises
        ------
        IndexError, ValueError
            If an id is out of range, or a sequence is longer than max_positions.
        """
        ids, cu = source(input_ids, cu_seqlens)
        return self._run(
            (ids, cu),
            (len(ids), self.hidden_size),
            cache,
            token_type_ids=token_type_ids,
            num_threads=num_threads,
        )

    def logits(
        self,
        lm_head: _core.Linear,
        input_ids: Any,
        cu_seqlens: Any,
        *,
        cache: DecoderCache,
        last_only: bool = False,
        num_threads: int = 0,
    ) -> Float32:
        """Compute a head's output for each token or each sequence, in the same native call.

        Parameters
        ----------
        lm_head
            The packed head.
        input_ids, cu_seqlens, cache, num_threads
            See `forward`.
        last_only
            Return the output for the last token of each sequence only.

        Returns
        -------
        float32 (total, features) or (batch, features)
            The output of lm_head.
        """
        ids, cu = source(input_ids, cu_seqlens)
        rows = len(cu) - 1 if last_only else len(ids)
        return self._run(
            (ids, cu),
            (rows, lm_head.out_features),
            cache,
            lm_head=lm_head,
            last_only=last_only,
            num_threads=num_threads,
        )

    def _run(
        self,
        source: tuple[NDArray[Any], NDArray[Any]],
        shape: tuple[int, int],
        cache: DecoderCache | None,
        **options: Any,
    ) -> Float32:
        """Make one native call. shape: of its output."""
        input_ids, cu = source
        check_cache(cache)
        longest = int(np.diff(cu).max(initial=0))
        if cache is not None:
            longest += cache.max_length
            options.update(masks=_core.Masks(causal=True), self_cache=cache.self_cache)
        positions = [layer.self_attn.positions(longest) for layer in self.layers]
        if any(given is not None for given in positions):
            options["positions"] = positions
        out = np.empty(shape, np.float32)
        self.native().forward(input_ids, cu, out, **options)
        return out
