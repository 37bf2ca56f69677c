# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint calls the tensors of an encoder, and config.json its sizes: the words in which an
architecture says where the parameters of its nn.TextEncoder lie."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from simdformer.checkpoint.adapted import Adapter


class Part(NamedTuple):
    """A matrix of a layer: a tensor, or of those of one shape that it holds below one another the one
    that `share` names, as (index, count)."""

    tensor: str
    share: tuple[int, int] = (0, 1)


class LayerNames(NamedTuple):
    """What a checkpoint calls the tensors of a layer, below the layer's own name.

    gate: of gated feed-forwards. head_norms: of each head's queries and keys, if there are any.
    output_norms: of what attention, or attention and feed-forward put out, if there are any.
    position_projections: by what a layer's position calls them, of tables of distances.
    qkv: the one name that int8 folders have for query, key and value; None if each has its own.
    """

    query: Part
    key: Part
    value: Part
    output: Part
    up: Part
    down: Part
    attention_norm: str
    feed_forward_norm: str
    gate: Part | None = None
    head_norms: tuple[str, str] | None = None
    output_norms: tuple[str, ...] = ()
    position_projections: Mapping[str, str] = MappingProxyType({})
    qkv: str | None = None


class FieldNames(NamedTuple):
    """What config.json calls the sizes that tensors have; products have names of their own."""

    hidden_size: str = "hidden_size"
    inner_size: str = "intermediate_size"
    num_layers: str = "num_hidden_layers"
    num_heads: str = "num_attention_heads"
    activation: str = "hidden_act"
    query_size: str = "hidden_size"
    key_size: str = "hidden_size"
    embedding_size: str = "hidden_size"


class Names(NamedTuple):
    """What a checkpoint calls the tensors of an encoder.

    layers: layer i is layers.i, or the i-th of several names. word, position, token_type, norm, projection: of the embeddings. last_norm: behind
    the layers. relative, relative_norm: the table of distances of all layers, and the norm it passes through.
    prefixes: what a task model puts before all names. ignored: beginnings of names of parts that embeddings
    do not use. norm_offset: what is added to the weights of RMSNorms. adapter: of a checkpoint that has
    some.
    """

    layers: str | tuple[str, ...]
    layer: LayerNames
    word: str
    ignored: tuple[str, ...]
    prefixes: tuple[str, ...]
    position: str = ""
    token_type: str = ""
    norm: str = ""
    projection: str = ""
    last_norm: str = ""
    relative: str = ""
    relative_norm: str = ""
    norm_offset: float = 0.0
    adapter: Adapter | None = None
    fields: FieldNames = FieldNames()
