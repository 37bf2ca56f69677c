"""Runs nodes of ONNX operators with simdformer.functional: arrays in, the node's outputs out."""

from __future__ import annotations

import numpy as np

import simdformer.functional as F

STAGES = ("scores", "capped", "biased", "softmax")


def run(node, attributes, inputs):
    """The outputs of one node by name. inputs: by name, float32."""
    return OPERATORS[node.op_type](attributes, inputs)


def split_heads(x, heads):
    """(batch, rows, heads * dim) -> (batch, heads, rows, dim), as a view."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def visible(attributes, queries, keys, offset):
    """The keys that remain visible by causality and windows. offset (1 or batch,): the first query's
    position."""
    place = np.arange(queries)[:, None] + np.reshape(offset, (-1, 1, 1, 1))
    distance = np.arange(keys) - place  # (1 or batch, 1, queries, keys)
    left, right = (attributes.get(f"{side}_window_size", -1) for side in ("left", "right"))
    keep = np.ones(distance.shape, bool)
    if attributes.get("is_causal", 0):
        keep &= distance <= 0
    if left >= 0:
        keep &= distance >= -left
    if right >= 0:
        keep &= distance <= right
    return keep


def attention(attributes, inputs):
    q, k, v = (inputs[name] for name in "QKV")
    flat = q.ndim == 3
    if flat:
        q = split_heads(q, attributes["q_num_heads"])
        k, v = (split_heads(x, attributes["kv_num_heads"]) for x in (k, v))
    offset = 0
    if "past_key" in inputs:
        offset = inputs["past_key"].shape[2]
        k = np.concatenate([inputs["past_key"], k], axis=2)
        v = np.concatenate([inputs["past_value"], v], axis=2)
    queries, keys = q.shape[2], k.shape[2]
    mask = inputs.get("attn_mask")
    keep = np.ones((1, 1, 1, keys), bool)
    if "nonpad_kv_seqlen" in inputs:
        lengths = inputs["nonpad_kv_seqlen"].reshape(-1, 1, 1, 1)
        keep = np.arange(keys) < lengths
        offset = lengths - queries
    if mask is not None and mask.shape[-1] < keys:  # a mask may be shorter; missing keys are masked
        missing = [(0, 0)] * (mask.ndim - 1) + [(0, keys - mask.shape[-1])]
        fill = False if mask.dtype == bool else -np.inf
        mask = np.pad(mask, missing, constant_values=fill)
    keep = keep & visible(attributes, queries, keys, offset)
    bias = None
    if mask is not None and mask.dtype == bool:
        keep = keep & mask
    elif mask is not None:
        bias = mask
    out, scores = F.attention(
        q,
        k,
        v,
        scale=attributes.get("scale"),
        attn_mask=keep,
        attn_bias=bias,
        softcap=attributes.get("softcap", 0.0) or None,
        enable_gqa=True,
        return_weights=STAGES[attributes.get("qk_matmul_output_mode", 0)],
    )
    if flat:
        out = out.swapaxes(1, 2).reshape(*out.shape[:1], queries, -1)
    return {"Y": out, "present_key": k, "present_value": v, "qk_matmul_output": scores}


def normalized(attributes, x):
    axis = attributes.get("axis", -1)
    return x.shape[axis if axis >= 0 else x.ndim + axis :], attributes.get("epsilon", 1e-5)


def layer_normalization(attributes, inputs):
    x = inputs["X"]
    shape, eps = normalized(attributes, x)
    wide = x.astype(np.float64).reshape(*x.shape[: x.ndim - len(shape)], -1)
    kept = (*x.shape[: x.ndim - len(shape)], *[1] * len(shape))
    statistics = {
        "Mean": wide.mean(axis=-1).reshape(kept),
        "InvStdDev": (1 / np.sqrt(wide.var(axis=-1) + eps)).reshape(kept),
    }
    return {"Y": F.layer_norm(x, shape, inputs["W"], inputs["B"], eps), **statistics}


def rms_normalization(attributes, inputs):
    shape, eps = normalized(attributes, inputs["X"])
    return {"Y": F.rms_norm(inputs["X"], shape, inputs["W"], eps)}


def rotary_embedding(attributes, inputs):
    x, cos, sin = inputs["input"], inputs["cos_cache"], inputs["sin_cache"]
    flat = x.ndim == 3
    if flat:
        x = split_heads(x, attributes["num_heads"])
    if "position_ids" in inputs:
        cos, sin = (table[inputs["position_ids"]] for table in (cos, sin))
    interleaved = bool(attributes.get("interleaved", 0))
    out = F.apply_rotary_embedding(x, cos, sin, interleaved=interleaved)
    if flat:
        out = out.swapaxes(1, 2).reshape(inputs["input"].shape)
    return {"output": out}


def gelu(attributes, inputs):
    approximate = attributes.get("approximate", b"none").decode()
    return {"y": F.gelu(inputs["x"], approximate=approximate)}


def softmax(attributes, inputs):
    return {"y": F.softmax(inputs["x"], attributes.get("axis", -1))}


OPERATORS = {
    "Attention": attention,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "RotaryEmbedding": rotary_embedding,
    "Gelu": gelu,
    "Softmax": softmax,
}
