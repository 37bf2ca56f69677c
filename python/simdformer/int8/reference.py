# SPDX-License-Identifier: Apache-2.0
"""The float32 encoder, from which int8 is made and with which it is compared. It runs one layer at a time:
the layer's numbers are read before, and freed after."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from simdformer import nn
from simdformer._core import Embeddings, Linear, PooledStack, TransformerStack
from simdformer.checkpoint.int8_matrix import Float32
from simdformer.int8.parts import first_names, own_parts, stages
from simdformer.int8.sample import Sample
from simdformer.nn.parameters import in_type, value_of
from simdformer.text.protocols import PooledModel

Pool: TypeAlias = Callable[[TransformerStack], PooledModel]


class Packed(NamedTuple):
    """The packed form of a part, and the rows that it read, (tokens, in_features)."""

    linears: tuple[Linear, ...]
    inputs: Float32


class Reference:
    """encoder: its parameters are read whenever they are needed, and it is not packed. pool: makes the
    vectors that are compared."""

    def __init__(self, encoder: nn.TextEncoder, pool: Pool) -> None:
        self.encoder = encoder
        self._pool = pool
        self._owners = encoder.places()
        self._stages = stages(encoder)
        self._firsts = first_names(self._stages)

    def anew(self, name: str) -> Any:
        """A new place for a parameter in float32, which reads the numbers again."""
        owner, own = self._owners[name]
        return in_type(owner.place(own), "float32")

    def read(self, name: str) -> Float32:
        """The numbers of a parameter."""
        value: Float32 = value_of(self.anew(name))
        return np.ascontiguousarray(value)

    def stage(self, name: str) -> nn.Module:
        """A copy of the embeddings or of a layer in float32."""
        stage, stem = copy_of(self._stages[name]), self._firsts[id(self._stages[name])]
        for own_name, (owner, own) in stage.places().items():
            given = self._owners.get(f"{stem}.{own_name}")
            if given is not None and owner is not given[0]:  # positions are shared, not copied
                owner.put(own, self.anew(f"{stem}.{own_name}"))
        return stage

    def vectors(self, states: Float32, tokens: Sample) -> Float32:
        """The vectors of sequences, from the output of the last layer: (sequences, dim)."""
        norm = self.encoder.norm
        # The rows serve as a table of embeddings, and each token looks up its own row.
        rows = TransformerStack([], None if norm is None else norm.native(), Embeddings(states))
        ids = np.arange(len(states), dtype=np.int32)
        return self._pool(rows).encode(ids, tokens.cu_seqlens)

    def encode(self, tokens: Sample) -> Float32:
        """The vectors of sequences."""
        states: Any = None
        for name in self._stages:
            states = run(self.stage(name), states, tokens)
        return self.vectors(states, tokens)


def copy_of(stage: nn.Module) -> nn.Module:
    """A copy with its own places. Its position is shared, because other layers use the same one."""
    shared = stage.self_attn.position if hasattr(stage, "self_attn") else None
    return copy.deepcopy(stage, {id(shared): shared})


def run(stage: nn.Module, states: Float32 | None, tokens: Sample, num_threads: int = 0) -> Float32:
    """The output of a stage for packed rows of sequences; for the embeddings, of their ids."""
    if isinstance(stage, nn.TextEmbeddings):
        stack = TransformerStack([], None, stage.native())
        return stack.encode(*tokens, num_threads=num_threads)
    out: Float32 = stage(states, cu_seqlens=tokens.cu_seqlens, num_threads=num_threads)
    return out


def packed_parts(stage: nn.Module) -> dict[str, tuple[Linear, ...]]:
    """The packed form of each part of a stage. A table of embeddings has none."""
    packed = {(id(owner), own): linears for owner, own, linears in stage.packed_matrices()}
    owners = stage.places()
    firsts = {part.name: owners[part.parameters[0]] for part in own_parts(stage)}
    places = {name: (id(owner), own) for name, (owner, own) in firsts.items()}
    return {name: packed[place] for name, place in places.items() if place in packed}


def run_recorded(
    stage: nn.Module, states: Float32 | None, tokens: Sample
) -> tuple[Float32, dict[str, Packed]]:
    """The output of a stage in float32, and the inputs of each of its parts."""
    packed = packed_parts(stage)
    for first, *_ in packed.values():
        first.record_inputs()
    out = run(stage, states, tokens, num_threads=1)
    return out, {
        name: Packed(linears, linears[0].take_inputs()) for name, linears in packed.items()
    }


def mean_pooled(stack: TransformerStack) -> PooledStack:
    """The default way to make vectors of sequences."""
    return PooledStack(stack, ["mean"])
