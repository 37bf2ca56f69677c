# SPDX-License-Identifier: Apache-2.0
"""The parts of an encoder that can be in int8: the word embeddings and each layer's matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from simdformer import nn
from simdformer.checkpoint.int8_matrix import Float32, Int8Matrix
from simdformer.nn.parameters import Stored, StoredTable, shape_of

Places = Mapping[str, tuple[Any, str]]


class EncoderPart(NamedTuple):
    """Parameters with the same inputs. They are quantized, kept in float32 and saved together.

    name: of the parameter, or of several joined ones. parameters: their rows are stacked in this order.
    """

    name: str
    parameters: tuple[str, ...]

    def below(self, stem: str) -> EncoderPart:
        """The same part with its names in the encoder instead of the stage."""
        return EncoderPart(
            f"{stem}.{self.name}", tuple(f"{stem}.{name}" for name in self.parameters)
        )

    def places(
        self, owners: Places, compute_type: str, read: Callable[[], Float32 | Int8Matrix]
    ) -> dict[str, Stored]:
        """The places for its parameters. owners: of all parameters, as places() returns them. read: returns
        all rows."""
        begin = 0
        result: dict[str, Stored] = {}
        for name in self.parameters:
            owner, own = owners[name]
            shape = shape_of(owner.place(own))
            rows = slice(begin, begin + shape[0])
            begin = rows.stop
            if isinstance(owner, nn.Embedding):  # a table is never multiplied
                result[name] = StoredTable(shape, read)
            else:
                result[name] = Stored(shape, partial(_rows, read, rows), compute_type)
        return result

    def put_int8(self, owners: Places, matrix: Int8Matrix) -> None:
        """Put its parameters in int8."""
        put(owners, self.places(owners, "int8", lambda: matrix))


def put(owners: Places, places: Mapping[str, Any]) -> None:
    """Put each place where its parameter is."""
    for name, place in places.items():
        owner, own = owners[name]
        owner.put(own, place)


def stages(encoder: nn.TextEncoder) -> dict[str, nn.Module]:
    """The embeddings and each layer by name, in the order they run. A layer may run several times."""
    return {
        "embeddings": encoder.embeddings,
        **{f"layers.{i}": layer for i, layer in enumerate(encoder.layers)},
    }


def own_parts(stage: nn.Module) -> list[EncoderPart]:
    """The parts of one stage, with their names in it."""
    if isinstance(stage, nn.TextEmbeddings):
        names = ["word_embeddings.weight"]
        if stage.projection is not None:
            names.append("projection.weight")
        return [EncoderPart(name, (name,)) for name in names]
    names = ["self_attn.in_proj_weight", "self_attn.out_proj.weight"]
    if stage.experts is not None:
        each = range(stage.experts.num_experts)
        names += [f"experts.{linear}.{i}.weight" for linear in ("linear1", "linear2") for i in each]
        return [EncoderPart(name, (name,)) for name in names]
    parts = [EncoderPart(name, (name,)) for name in (*names, "linear1.weight", "linear2.weight")]
    if hasattr(stage, "linear_gate"):
        parts[2] = EncoderPart("gate_up_proj.weight", ("linear_gate.weight", "linear1.weight"))
    return parts


def first_names(named: Mapping[str, nn.Module]) -> dict[int, str]:
    """The first name of each stage, by the stage's id."""
    firsts: dict[int, str] = {}
    for name, stage in named.items():
        firsts.setdefault(id(stage), name)
    return firsts


def encoder_parts(encoder: nn.TextEncoder) -> list[EncoderPart]:
    """The parts of all stages."""
    named = stages(encoder)
    firsts = first_names(named).values()
    return [part.below(name) for name in firsts for part in own_parts(named[name])]


def _rows(read: Callable[[], Float32 | Int8Matrix], rows: slice) -> Float32 | Int8Matrix:
    value = read()
    return value.rows(rows) if isinstance(value, Int8Matrix) else value[rows]
