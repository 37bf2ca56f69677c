# SPDX-License-Identifier: Apache-2.0
"""DeBERTa v2 and v3 (He et al., 2021, arXiv:2006.03654, arXiv:2111.09543): BERT's post-norm layers. A score
is the sum of content-to-content, content-to-position and position-to-content terms.

The tensor names are those of transformers' DebertaV2Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import bert
from simdformer.models.config_fields import flag, one_of, positive_float, positive_int
from simdformer.models.names import Names
from simdformer.models.post_norm import PostNormConfig

_LAYER = bert.NAMES.layer._replace(
    qkv=None,
    query=bert.NAMES.layer.query._replace(tensor="attention.self.query_proj"),
    key=bert.NAMES.layer.key._replace(tensor="attention.self.key_proj"),
    value=bert.NAMES.layer.value._replace(tensor="attention.self.value_proj"),
    position_projections={
        "pos_key_proj": "attention.self.pos_key_proj",
        "pos_query_proj": "attention.self.pos_query_proj",
    },
)
NAMES: Names = bert.NAMES._replace(
    layer=_LAYER,
    relative="encoder.rel_embeddings",
    relative_norm="encoder.LayerNorm",
    prefixes=("deberta.",),
    # Buffers, a table that only some models use, the poolers and the heads.
    ignored=(
        "embeddings.position_ids",
        "embeddings.position_embeddings.",
        "pooler.",
        "cls.",
        "classifier.",
        "lm_predictions.",
        "mask_predictions.",
        "qa_outputs.",
    ),
)


_TERMS = ("c2p", "p2c")


def names(config: Mapping[str, Any]) -> Names:
    """The names of the parameters in a checkpoint. Without relative terms there is no table of distances."""
    return NAMES if _reads_distances(config) else NAMES._replace(relative="")


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    one_of(config, "conv_kernel_size", [0, None], 0)  # size of a convolution at layer 0
    one_of(config, "embedding_size", [config.get("hidden_size"), None], None)
    # A table of all distances is made.
    positive_int(config, "max_position_embeddings", largest=2**24)
    deberta = PostNormConfig.from_dict(
        config,
        eps=positive_float(config, "layer_norm_eps", 1e-7),
        type_vocab_size=1 if config.get("type_vocab_size", 0) != 0 else None,
    )
    one_of(config, "attention_head_size", [deberta.hidden_size // deberta.num_heads, None], None)
    shared = _position(config, deberta) if flag(config, "share_att_key", False) else None
    return deberta.encoder(
        position=lambda: shared or _position(config, deberta),
        with_positions=flag(config, "position_biased_input", True),
        terms=1 + len(_terms(config)),
    )


def _terms(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The relative terms of a score. Their number changes the scale of scores even if they are not
    computed."""
    given = config.get("pos_att_type") or ()
    listed = given.lower().split("|") if isinstance(given, str) else given
    if not isinstance(listed, (list, tuple)):
        raise ValueError(  # noqa: TRY004  (the file is wrong, not the call)
            f"config.json: pos_att_type must be a list of strings, got {given!r}"
        )
    return tuple(term for term in _TERMS if term in [str(name).strip() for name in listed])


def _reads_distances(config: Mapping[str, Any]) -> bool:
    return flag(config, "relative_attention", False) and bool(_terms(config))


def _position(
    config: Mapping[str, Any], deberta: PostNormConfig
) -> nn.DisentangledRelativePosition | None:
    """The relative positions of a layer: distances up to max_relative_positions, grouped in position_buckets
    if that is above 0."""
    if not _reads_distances(config):
        return None
    size, norms = deberta.hidden_size, str(config.get("norm_rel_ebd", "none")).lower()
    return nn.DisentangledRelativePosition(
        size,
        deberta.num_heads,
        max_relative_positions=_above_0(config, "max_relative_positions") or deberta.max_positions,
        position_buckets=_above_0(config, "position_buckets"),
        pos_att_type=_terms(config),
        share_att_key=flag(config, "share_att_key", False),
        norm=nn.LayerNorm(size, eps=deberta.eps) if "layer_norm" in norms.split("|") else None,
        max_positions=deberta.max_positions,
    )


def _above_0(config: Mapping[str, Any], name: str) -> int:
    """A size; 0 for values below 1, which mean that there is none."""
    value = config.get(name, -1)
    return 0 if value in range(-1, 1) else positive_int(config, name)
