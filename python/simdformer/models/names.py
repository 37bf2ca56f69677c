# SPDX-License-Identifier: Apache-2.0
"""The names of an encoder's tensors in a checkpoint, and of its sizes in config.json. An architecture
declares with these classes where the parameters of its nn.TextEncoder are stored."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from simdformer.checkpoint.adapted import Adapter


class Part(NamedTuple):
    """A matrix of a layer: a whole tensor, or one of several matrices of one shape that are stacked in it.

    share: (index, number of matrices).
    """

    tensor: str
    share: tuple[int, int] = (0, 1)


class ExpertNames(NamedTuple):
    """The names of the tensors of a mixture of experts, relative to the layer's own name.

    up, down: of shape (experts * inner size, hidden size). Each expert's part of down is transposed.
    """

    router: str
    up: str
    down: str
    bias: str


class LayerNames(NamedTuple):
    """The names of a layer's tensors in a checkpoint, relative to the layer's own name.

    gate: of gated feed-forwards.
    head_norms: the norms of each head's queries and keys, if any.
    output_norms: the norms of the output of attention, or of attention and feed-forward, if any.
    position_projections: projections of a table of distances, by their names in the layer's position.
    experts: of layers with a mixture of experts.
    qkv: the joint name of query, key and value in int8 folders; None if they have separate names.
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
    experts: ExpertNames | None = None
    qkv: str | None = None


class FieldNames(NamedTuple):
    """The names of sizes in config.json. A product of sizes has a name of its own here."""

    hidden_size: str = "hidden_size"
    inner_size: str = "intermediate_size"
    num_layers: str = "num_hidden_layers"
    num_heads: str = "num_attention_heads"
    activation: str = "hidden_act"
    query_size: str = "hidden_size"
    key_size: str = "hidden_size"
    embedding_size: str = "hidden_size"


class Names(NamedTuple):
    """The names of an encoder's tensors in a checkpoint.

    layers: layer i is layers.i; or a tuple of the names of all layers.
    word, position, token_type, norm, projection: of the embeddings. last_norm: after the layers.
    relative, relative_norm: the table of distances common to all layers, and its norm.
    prefixes: prefixes of all names in checkpoints of task models.
    ignored: prefixes of names that embeddings do not need.
    norm_offset: added to the weights of RMSNorms.
    adapter: for a checkpoint with adapters.
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
