# SPDX-License-Identifier: Apache-2.0
"""Maps each parameter of a module to tensors of a checkpoint. Shapes are checked at once; numbers are read
when the parameters are packed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from simdformer import nn
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.adapted import AdaptedCheckpoint
from simdformer.checkpoint.int8_matrix import Float32
from simdformer.checkpoint.weights import CheckpointMatrix, Weights
from simdformer.models.names import FieldNames, LayerNames, Names, Part
from simdformer.nn.parameters import Stored, shape_of

# The table of word embeddings. Stored in int8, it is dequantized when it is loaded.
WORDS = "embeddings.word_embeddings.weight"

# The number of rows of a table of relative distances, in the two kinds of models.
_BUCKETS, _SPAN = "relative_attention_num_buckets", "2 * position_buckets or max_relative_positions"


class Assigned(NamedTuple):
    """Where the parameters of a module are in a checkpoint.

    matrices: for each matrix and the word embeddings, the stored matrices that are stacked to make it.
    unread: tensors that belong to no parameter.
    """

    places: Mapping[str, Stored]
    matrices: Mapping[str, Sequence[CheckpointMatrix]]
    unread: tuple[str, ...] = ()

    def without(self, parameters: Collection[str]) -> Assigned:
        """A copy without some of the parameters."""
        places = {name: p for name, p in self.places.items() if name not in parameters}
        matrices = {name: m for name, m in self.matrices.items() if name not in parameters}
        return Assigned(places, matrices, self.unread)


def assign(encoder: nn.TextEncoder, names: Names, checkpoint: Checkpoint) -> Assigned:
    """Find each parameter's numbers in the checkpoint; nothing is read yet.

    Errors: ValueError naming a tensor that is missing or has another shape.
    """
    if names.adapter is not None:
        checkpoint = AdaptedCheckpoint(checkpoint, names.adapter)
    assignment = _Assignment(encoder, names, checkpoint)
    assignment.embeddings()
    for index, layer in enumerate(encoder.layers):
        assignment.layer(index, layer)
    if encoder.norm is not None:
        assignment.vectors("norm", encoder.norm, names.last_norm, names.fields.hidden_size)
    unread = assignment.weights.unread(names.ignored)
    again = assignment.places.keys() - encoder.places().keys()  # layers and positions may be shared
    return Assigned(assignment.places, assignment.matrices, tuple(unread)).without(again)


def cut_layers(encoder: nn.TextEncoder, hidden_state: int) -> list[str]:
    """Remove the layers after the given hidden state. Hidden state 0 is the embeddings' output; the final
    norm belongs to the last hidden state. Returns the names of the removed parameters.

    Errors: ValueError if the model has fewer hidden states.
    """
    count = len(encoder.layers)
    if not -count - 1 <= hidden_state <= count:
        raise ValueError(f"there are {count + 1} hidden states, none with index {hidden_state}")
    kept = hidden_state % (count + 1)
    before = set(encoder.places())
    if kept < count:
        encoder.layers = nn.ModuleList(list(encoder.layers)[:kept])
        encoder.norm = None
    return sorted(before - set(encoder.places()))


class _Assignment:
    """Collects the parameters of one module."""

    def __init__(self, encoder: nn.TextEncoder, names: Names, checkpoint: Checkpoint) -> None:
        sizes = _sizes(encoder, names.fields)
        self.weights = Weights(checkpoint, sizes, _prefixes(names, checkpoint))
        self.places: dict[str, Stored] = {}
        self.matrices: dict[str, list[CheckpointMatrix]] = {}
        self._encoder = encoder
        self._names = names

    def embeddings(self) -> None:
        """Assign the embedding tables and their norm."""
        names, size = self._names, self._names.fields.embedding_size
        embeddings = self._encoder.embeddings
        self._matrix(WORDS, [self.weights.matrix(names.word, "vocab_size", size)])
        if embeddings.word_scale != 1:
            self.places[WORDS] = _changed(self.places[WORDS], np.multiply, embeddings.word_scale)
        if embeddings.position_embeddings is not None:
            fields = ("max_position_embeddings", size)
            name = "embeddings.position_embeddings.weight"
            self._tensor(name, f"{names.position}.weight", *fields)
        if embeddings.token_type_embeddings is not None:
            fields = ("type_vocab_size", size)
            name = "embeddings.token_type_embeddings.weight"
            self._tensor(name, f"{names.token_type}.weight", *fields)
        if embeddings.norm is not None:
            self.vectors("embeddings.norm", embeddings.norm, names.norm, size)
        if embeddings.projection is not None:
            own, rows = "embeddings.projection", names.fields.hidden_size
            self._matrix(f"{own}.weight", [self.weights.matrix(names.projection, rows, size)])
            self._tensor(f"{own}.bias", f"{names.projection}.bias", rows)

    def layer(self, index: int, layer: nn.TransformerEncoderLayer) -> None:
        """Assign the parameters of one layer."""
        names, fields = self._names.layer, self._names.fields
        layers, own = self._names.layers, f"layers.{index}"
        stem = f"{layers}.{index}" if isinstance(layers, str) else layers[index]
        attention, size = layer.self_attn, fields.hidden_size
        self._attention(own, stem, attention)
        if layer.experts is not None:
            self._experts(f"{own}.experts", stem, layer.experts)
        for module, part, field in (
            ("linear1", names.up, fields.inner_size),
            ("linear_gate", names.gate, fields.inner_size),
            ("linear2", names.down, size),
        ):
            if part is not None and layer.experts is None:
                columns = fields.inner_size if module == "linear2" else size
                has_bias = getattr(layer, module).has("bias")
                self._linear(f"{own}.{module}", stem, part, field, columns, bias=has_bias)
        self.vectors(f"{own}.norm1", layer.norm1, f"{stem}.{names.attention_norm}", size)
        self.vectors(f"{own}.norm2", layer.norm2, f"{stem}.{names.feed_forward_norm}", size)
        for module, name in zip(("q_norm", "k_norm"), names.head_norms or (), strict=False):
            norm = getattr(attention, module)
            together = norm.normalized_shape != (attention.head_dim,)
            field = fields.query_size if together else "head_dim"
            self.vectors(f"{own}.self_attn.{module}", norm, f"{stem}.{name}", field)
        for i, name in enumerate(names.output_norms, start=1):
            norm = getattr(layer, f"output_norm{i}")
            self.vectors(f"{own}.output_norm{i}", norm, f"{stem}.{name}", size)
        if self._names.relative:
            self._position(f"{own}.self_attn.position", stem, attention.position)

    def _experts(self, own: str, stem: str, experts: nn.MixtureOfExperts) -> None:
        """Assign a router and its experts, which are stacked in two tensors."""
        names, fields = self._names.layer.experts, self._names.fields
        assert names is not None
        hidden, inner = self.weights.shape((fields.hidden_size, fields.inner_size))
        stacked = ("num_experts", fields.inner_size, fields.hidden_size)
        shape = (experts.num_experts * inner, hidden)
        for module, name in (("linear1", names.up), ("linear2", names.down)):
            full = self.weights.checked(f"{stem}.{name}", stacked, shape)
            for i in range(experts.num_experts):
                rows = range(i * inner, (i + 1) * inner)
                read = partial(self.weights.checkpoint.read_rows, full, rows)
                place = Stored((inner, hidden), read)
                if module == "linear2":
                    place = Stored((hidden, inner), partial(_transposed, read))
                self.places[f"{own}.{module}.{i}.weight"] = place
        self._tensor(
            f"{own}.router.weight", f"{stem}.{names.router}.weight", stacked[0], stacked[2]
        )
        self._tensor(f"{own}.bias", f"{stem}.{names.bias}", stacked[2])

    def _position(self, own: str, stem: str, position: Any) -> None:
        """Assign a table of relative distances, its norm and its projections."""
        names, size = self._names, self._names.fields.hidden_size
        self._tensor(f"{own}.weight", f"{names.relative}.weight", *_table_fields(names, position))
        if getattr(position, "norm", None) is not None:
            self.vectors(f"{own}.norm", position.norm, names.relative_norm, size)
        for module, name in names.layer.position_projections.items():
            if hasattr(position, module):
                self._tensor(f"{own}.{module}.weight", f"{stem}.{name}.weight", size, size)
                self._tensor(f"{own}.{module}.bias", f"{stem}.{name}.bias", size)

    def _attention(self, own: str, stem: str, attention: nn.MultiheadAttention) -> None:
        names, fields = self._names.layer, self._names.fields
        hidden, name = fields.hidden_size, f"{own}.self_attn"
        parts = (
            ("query", names.query, fields.query_size),
            ("key", names.key, fields.key_size),
            ("value", names.value, fields.key_size),
        )
        self._matrix(f"{name}.in_proj_weight", self._projections(stem, parts, hidden))
        if attention.has("in_proj_bias"):
            reads = [self._share(f"{stem}.{p.tensor}.bias", rows, p.share) for _, p, rows in parts]
            rows = attention.heads.query_dim + 2 * attention.heads.key_dim
            place = Stored((rows,), lambda: np.concatenate([read() for read in reads]))
            self.places[f"{name}.in_proj_bias"] = place
        out = attention.out_proj.has("bias")
        self._linear(f"{name}.out_proj", stem, names.output, hidden, fields.query_size, bias=out)

    def _projections(
        self, stem: str, parts: Sequence[tuple[str, Part, str]], columns: str
    ) -> list[CheckpointMatrix]:
        """The stored matrices of queries, keys and values."""
        if self._names.layer.qkv is not None:
            tensors = [f"{stem}.{part.tensor}" for _, part, _ in parts]
            name = f"{stem}.{self._names.layer.qkv}"
            return [self.weights.matrix(name, parts[0][2], columns, parts=tensors)]
        return [self._part(stem, field, part, rows, columns) for field, part, rows in parts]

    def _part(self, stem: str, field: str, part: Part, rows: str, columns: str) -> CheckpointMatrix:
        full = f"{stem}.{part.tensor}"
        name = full if part.share == (0, 1) else f"{full}.{field}"
        return self.weights.matrix(name, rows, columns, parts=(full,), share=part.share)

    def _linear(
        self, name: str, stem: str, part: Part, rows: str, columns: str, *, bias: bool
    ) -> None:
        field = next(f for f in LayerNames._fields if getattr(self._names.layer, f) is part)
        self._matrix(f"{name}.weight", [self._part(stem, field, part, rows, columns)])
        if bias:
            read = self._share(f"{stem}.{part.tensor}.bias", rows, part.share)
            self.places[f"{name}.bias"] = Stored(self.weights.shape((rows,)), read)

    def vectors(self, own: str, norm: nn.Module, name: str, field: str) -> None:
        """Assign the weight of a norm, and its bias if it has one."""
        for vector in ("weight", "bias"):
            if norm.has(vector):
                self._tensor(f"{own}.{vector}", f"{name}.{vector}", field)
        offset = self._names.norm_offset
        if offset and isinstance(norm, nn.RMSNorm):
            place = self.places[f"{own}.weight"]
            self.places[f"{own}.weight"] = _changed(place, np.add, offset)

    def _matrix(self, own: str, parts: list[CheckpointMatrix]) -> None:
        self.matrices[own] = parts
        shapes = [part.shape for part in parts]
        shape = (sum(rows for rows, _ in shapes), shapes[0][1])
        self.places[own] = Stored(shape, partial(_below, parts))

    def _tensor(self, own: str, name: str, *fields: str) -> None:
        shape = self.weights.shape(fields)
        full = self.weights.checked(name, fields, shape)
        self.places[own] = Stored(shape, partial(self.weights.checkpoint.read, full))

    def _share(self, name: str, field: str, share: tuple[int, int]) -> partial[Float32]:
        """A vector, checked now and read later."""
        (size,) = self.weights.shape((field,))
        self.weights.checked(name, (field,), (share[1] * size,))
        return partial(self.weights.share, name, field, share)


def _prefixes(names: Names, checkpoint: Checkpoint) -> Sequence[str]:
    """The prefixes that names may have. A model saved as part of another one also has "model." in front."""
    known = ("", *names.prefixes)
    word = f"{names.word}.weight"
    inner = [f"model.{p}" for p in known if f"model.{p}{word}" in checkpoint]
    return (
        names.prefixes if any(p + word in checkpoint for p in known) else (*inner, *names.prefixes)
    )


def _changed(place: Stored, function: Any, number: float) -> Stored:
    """A parameter computed from a tensor and a number. The reference computes this at each call."""
    return Stored(place.shape, lambda: function(place.array(), np.float32(number)))


def _transposed(read: Callable[[], Float32]) -> Float32:
    return np.ascontiguousarray(read().T)


def _below(parts: Sequence[CheckpointMatrix]) -> Float32:
    rows = [part.float32() for part in parts]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _sizes(encoder: nn.TextEncoder, fields: FieldNames) -> dict[str, int]:
    """The sizes of tensors, by the names of the fields in config.json."""
    return dict(_named_sizes(encoder, fields))


def _named_sizes(encoder: nn.TextEncoder, fields: FieldNames) -> Iterator[tuple[str, int]]:
    embeddings, layer = encoder.embeddings, encoder.layers[0]
    heads = layer.self_attn.heads
    yield fields.query_size, heads.query_dim
    yield fields.key_size, heads.key_dim
    yield "head_dim", heads.head_dim
    yield fields.embedding_size, embeddings.embedding_dim
    yield fields.hidden_size, encoder.hidden_size
    yield fields.inner_size, layer.linear1.out_features
    yield fields.num_heads, heads.num_heads
    yield "vocab_size", encoder.vocab_size
    yield "type_vocab_size", embeddings.num_token_types
    mixtures = [each.experts for each in encoder.layers if each.experts is not None]
    yield "num_experts", mixtures[0].num_experts if mixtures else 0
    if embeddings.position_embeddings is not None:
        yield "max_position_embeddings", embeddings.position_embeddings.num_embeddings
    position = layer.self_attn.position
    if isinstance(position, nn.RelativePositionBias):
        yield _BUCKETS, position.num_buckets
    elif isinstance(position, nn.DisentangledRelativePosition):
        yield _SPAN, shape_of(position.place("weight"))[0]


def _table_fields(names: Names, position: nn.Module) -> tuple[str, str]:
    """The fields that give the shape of a table of relative distances, which holds biases or embeddings."""
    if isinstance(position, nn.RelativePositionBias):
        return _BUCKETS, names.fields.num_heads
    return _SPAN, names.fields.hidden_size
