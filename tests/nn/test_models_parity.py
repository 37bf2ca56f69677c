"""simdformer.nn compared with transformers' models with random weights: relative positions, windows, QK-norm,
learned scales. Each is built from modules of nn and loads the other's state_dict."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import nn
from tests.support import normal

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

E, H, D, F = 24, 4, 6, 40
TOLERANCE = 2e-5  # theirs is float32 too, with another order of sums


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_state(module):
    """A module's parameters as arrays, all random."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return {k: v.numpy() for k, v in module.eval().state_dict().items()}


def assert_close(actual, expected):
    expected = expected.detach().numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


def linear(state, ours, w, theirs):
    for part in ("weight", "bias"):
        if f"{theirs}.{part}" in w:
            state[f"{ours}.{part}"] = w[f"{theirs}.{part}"]


def joined(w, *names):
    return np.concatenate([w[name] for name in names])


def bert_layer(w, prefix):
    """The common part of DeBERTa's and BERT's layers: all but queries, keys and values."""
    state = {}
    for ours, theirs in (
        ("self_attn.out_proj", "attention.output.dense"),
        ("norm1", "attention.output.LayerNorm"),
        ("linear1", "intermediate.dense"),
        ("linear2", "output.dense"),
        ("norm2", "output.LayerNorm"),
    ):
        linear(state, ours, w, f"{prefix}.{theirs}")
    return state


def ragged_mask(lengths):
    return np.arange(max(lengths)) >= np.array(lengths)[:, None]


def encode(stack, x, padding):
    out = stack(x, src_key_padding_mask=padding)
    return out[~padding]


def deberta_config(kind, **options):
    return getattr(transformers, kind)(
        vocab_size=10, hidden_size=E, num_hidden_layers=2, num_attention_heads=H,
        intermediate_size=F, hidden_act="gelu", relative_attention=True, max_position_embeddings=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-7, **options,
    )  # fmt: skip


def deberta_stack(**position):
    layer = nn.TransformerEncoderLayer(
        E, H, F, activation="gelu", batch_first=True, layer_norm_eps=1e-7,
        position=nn.DisentangledRelativePosition(E, H, **position),
    )  # fmt: skip
    return nn.TransformerEncoder(layer, 2)


@pytest.mark.parametrize("buckets", [-1, 8])
@pytest.mark.parametrize("terms", [["c2p"], ["p2c"], ["c2p", "p2c"]])
@pytest.mark.parametrize("shared", [True, False])
def test_deberta_v2(rng, buckets, terms, shared):
    from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder

    config = deberta_config(
        "DebertaV2Config", pos_att_type=terms, share_att_key=shared, position_buckets=buckets,
        max_relative_positions=48, norm_rel_ebd="layer_norm",
    )  # fmt: skip
    theirs = DebertaV2Encoder(config)
    w = random_state(theirs)
    ours = deberta_stack(
        pos_att_type=terms, share_att_key=shared, position_buckets=buckets,
        max_relative_positions=48,
    )  # fmt: skip
    state = {}
    for i in range(2):
        own = f"layer.{i}.attention.self"
        layer = bert_layer(w, f"layer.{i}")
        for part in ("weight", "bias"):
            names = [f"{own}.{n}_proj.{part}" for n in ("query", "key", "value")]
            layer[f"self_attn.in_proj_{part}"] = joined(w, *names)
        layer["self_attn.position.weight"] = theirs.get_rel_embedding().detach().numpy()
        for name in ("pos_key_proj", "pos_query_proj"):
            linear(layer, f"self_attn.position.{name}", w, f"{own}.{name}")
        state |= {f"layers.{i}.{k}": v for k, v in layer.items()}
    ours.load_state_dict(state)
    x, padding = normal(rng, 2, 50, E), ragged_mask((50, 17))
    with torch.no_grad():
        out = theirs(torch.tensor(x), torch.tensor(~padding).long()).last_hidden_state
    assert_close(encode(ours, x, padding), out[torch.tensor(~padding)])


@pytest.mark.parametrize("terms", [["c2p"], ["p2c"], ["c2p", "p2c"]])
def test_deberta(rng, terms):
    from transformers.models.deberta.modeling_deberta import DebertaEncoder

    config = deberta_config("DebertaConfig", pos_att_type=terms, max_relative_positions=48)
    theirs = DebertaEncoder(config)
    w = random_state(theirs)
    ours = deberta_stack(pos_att_type=terms, share_att_key=False, max_relative_positions=48)
    state = {}
    for i in range(2):
        own = f"layer.{i}.attention.self"
        layer = bert_layer(w, f"layer.{i}")
        qkv = w[f"{own}.in_proj.weight"].reshape(H, 3, D, E)  # joined for each head
        layer["self_attn.in_proj_weight"] = qkv.swapaxes(0, 1).reshape(3 * E, E)
        zeros = np.zeros(E, np.float32)
        layer["self_attn.in_proj_bias"] = np.concatenate(
            [w[f"{own}.q_bias"], zeros, w[f"{own}.v_bias"]]
        )
        layer["self_attn.position.weight"] = w["rel_embeddings.weight"]
        if "c2p" in terms:
            layer["self_attn.position.pos_key_proj.weight"] = w[f"{own}.pos_proj.weight"]
            layer["self_attn.position.pos_key_proj.bias"] = zeros
        if "p2c" in terms:
            linear(layer, "self_attn.position.pos_query_proj", w, f"{own}.pos_q_proj")
        state |= {f"layers.{i}.{k}": v for k, v in layer.items()}
    ours.load_state_dict(state)
    x, padding = normal(rng, 2, 30, E), ragged_mask((30, 17))
    with torch.no_grad():
        out = theirs(torch.tensor(x), torch.tensor(~padding).long()).last_hidden_state
    assert_close(encode(ours, x, padding), out[torch.tensor(~padding)])


@pytest.mark.parametrize("lengths", [(1, 1), (33, 33), (40, 13)])
def test_xlnet(rng, lengths):
    config = transformers.XLNetConfig(
        vocab_size=10, d_model=E, n_layer=2, n_head=H, d_inner=F, ff_activation="gelu",
        attn_type="bi", dropout=0.0, layer_norm_eps=1e-12,
    )  # fmt: skip
    theirs = transformers.XLNetModel(config)
    w = random_state(theirs)
    layer = nn.TransformerEncoderLayer(
        E, H, F, activation="gelu", batch_first=True, layer_norm_eps=1e-12,
        position=nn.TransformerXLRelativePosition(E, H),
    )  # fmt: skip
    ours = nn.TransformerEncoder(layer, 2)
    state = {}
    for i in range(2):
        attention, ours_at = f"layer.{i}.rel_attn", f"layers.{i}.self_attn"
        state[f"{ours_at}.in_proj_weight"] = np.concatenate(
            [w[f"{attention}.{n}"].reshape(E, E).T for n in "qkv"]
        )
        state[f"{ours_at}.in_proj_bias"] = np.zeros(3 * E, np.float32)
        state[f"{ours_at}.out_proj.weight"] = w[f"{attention}.o"].reshape(E, E)
        state[f"{ours_at}.out_proj.bias"] = np.zeros(E, np.float32)
        state[f"{ours_at}.position.content_bias"] = w[f"{attention}.r_w_bias"]
        state[f"{ours_at}.position.position_bias"] = w[f"{attention}.r_r_bias"]
        state[f"{ours_at}.position.projection.weight"] = w[f"{attention}.r"].reshape(E, E).T
        for name, theirs_at in (
            ("norm1", "rel_attn.layer_norm"), ("norm2", "ff.layer_norm"),
            ("linear1", "ff.layer_1"), ("linear2", "ff.layer_2"),
        ):  # fmt: skip
            linear(state, f"layers.{i}.{name}", w, f"layer.{i}.{theirs_at}")
    ours.load_state_dict(state)
    x, padding = normal(rng, 2, max(lengths), E), ragged_mask(lengths)
    with torch.no_grad():
        out = theirs(
            inputs_embeds=torch.tensor(x), attention_mask=torch.tensor(~padding).float()
        ).last_hidden_state
    assert_close(encode(ours, x, padding), out[torch.tensor(~padding)])


@pytest.mark.parametrize("length", [1, 5, 90])
def test_wav2vec2_bert_has_shaws_keys(rng, length):
    from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention

    config = transformers.Wav2Vec2BertConfig(
        hidden_size=E, num_attention_heads=H, position_embeddings_type="relative_key",
        left_max_position_embeddings=16, right_max_position_embeddings=3, attention_dropout=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    theirs = Wav2Vec2BertSelfAttention(config)
    w = random_state(theirs)
    position = nn.ShawRelativePosition(D, 16, 3, values=False)
    ours = nn.MultiheadAttention(E, H, batch_first=True, position=position)
    state = {
        f"in_proj_{part}": joined(w, *[f"linear_{n}.{part}" for n in "qkv"])
        for part in ("weight", "bias")
    }
    linear(state, "out_proj", w, "linear_out")
    state["position.keys"] = w["distance_embedding.weight"]
    ours.load_state_dict(state)
    x = normal(rng, 2, length, E)
    with torch.no_grad():
        out, weights = theirs(torch.tensor(x))
    got, got_weights = ours(x, x, x, average_attn_weights=False)
    assert_close(got, out)
    assert_close(got_weights, weights)


class PassOn(torch.nn.Module):
    """Replaces a model's embeddings: the input is their output."""

    def forward(self, input_ids=None, inputs_embeds=None):  # noqa: ARG002
        return inputs_embeds


def test_modernbert_alternates_global_and_local_attention(rng):
    config = transformers.ModernBertConfig(
        vocab_size=10, hidden_size=E, num_hidden_layers=5, num_attention_heads=H,
        intermediate_size=F, global_attn_every_n_layers=3, local_attention=8, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
        attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.ModernBertModel(config)
    theirs.embeddings = PassOn()
    w = random_state(theirs)
    options = {
        "batch_first": True, "norm_first": True, "activation": "geglu", "bias": False,
        "layer_norm_eps": config.norm_eps,
    }  # fmt: skip
    everywhere, near = (
        nn.TransformerEncoderLayer(
            E, H, F, position=nn.RotaryEmbedding(D, base=base), window_size=size, **options
        )
        for base, size in ((160000.0, (-1, -1)), (10000.0, (4, 4)))
    )
    norm = nn.LayerNorm(E, eps=config.norm_eps, bias=False)
    ours = nn.TransformerEncoder([everywhere, near, near], 5, norm)
    ours.layers[0].norm1 = nn.Identity()
    state = {"norm.weight": w["final_norm.weight"]}
    for i in range(5):
        at = f"layers.{i}"
        state[f"{at}.self_attn.in_proj_weight"] = w[f"{at}.attn.Wqkv.weight"]
        state[f"{at}.self_attn.out_proj.weight"] = w[f"{at}.attn.Wo.weight"]
        gate, value = np.split(w[f"{at}.mlp.Wi.weight"], 2)
        state[f"{at}.linear_gate.weight"], state[f"{at}.linear1.weight"] = gate, value
        state[f"{at}.linear2.weight"] = w[f"{at}.mlp.Wo.weight"]
        state[f"{at}.norm2.weight"] = w[f"{at}.mlp_norm.weight"]
        if i > 0:
            state[f"{at}.norm1.weight"] = w[f"{at}.attn_norm.weight"]
    ours.load_state_dict(state)
    x, padding = normal(rng, 2, 40, E), ragged_mask((40, 21))
    with torch.no_grad():
        out = theirs(
            inputs_embeds=torch.tensor(x), attention_mask=torch.tensor(~padding).long()
        ).last_hidden_state
    assert_close(encode(ours, x, padding), out[torch.tensor(~padding)])


def test_qwen3_normalizes_queries_and_keys(rng):
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding

    config = transformers.Qwen3Config(
        hidden_size=E, num_attention_heads=H, num_key_value_heads=2, head_dim=D,
        rms_norm_eps=1e-6, attn_implementation="eager",
    )  # fmt: skip
    theirs = Qwen3Attention(config, 0)
    w = random_state(theirs)
    ours = nn.MultiheadAttention(
        E, H, bias=False, batch_first=True, num_kv_heads=2, qk_norm=nn.RMSNorm(D, eps=1e-6),
        position=nn.RotaryEmbedding(D),
    )  # fmt: skip
    ours.load_state_dict(
        {
            "in_proj_weight": joined(w, *[f"{n}_proj.weight" for n in "qkv"]),
            "out_proj.weight": w["o_proj.weight"],
            "q_norm.weight": w["q_norm.weight"],
            "k_norm.weight": w["k_norm.weight"],
        }
    )
    x = normal(rng, 2, 17, E)
    tensor = torch.tensor(x)
    tables = Qwen3RotaryEmbedding(config)(tensor, torch.arange(17)[None])
    mask = torch.triu(torch.full((17, 17), -torch.inf), 1)[None, None]
    with torch.no_grad():
        out = theirs(tensor, position_embeddings=tables, attention_mask=mask)[0]
    assert_close(ours(x, x, x, attn_mask=~np.tri(17, dtype=bool))[0], out)


def test_swin_v2_has_cosine_scores_with_a_learned_scale(rng):
    from transformers.models.swinv2.modeling_swinv2 import Swinv2SelfAttention

    config = transformers.Swinv2Config(qkv_bias=True, attention_probs_dropout_prob=0.0)
    theirs = Swinv2SelfAttention(config, E, H, window_size=(4, 4))
    random_state(theirs)
    with torch.no_grad():
        theirs.logit_scale.copy_(torch.tensor([1.0, 2.0, 3.0, 9.0]).reshape(H, 1, 1))
    w = {k: v.numpy() for k, v in theirs.state_dict().items()}
    ours = nn.MultiheadAttention(E, H, batch_first=True, score="cosine", logit_scale=True)
    state = {
        "in_proj_weight": joined(w, *[f"{n}.weight" for n in ("query", "key", "value")]),
        "in_proj_bias": np.concatenate([w["query.bias"], np.zeros(E, np.float32), w["value.bias"]]),
        "out_proj.weight": np.eye(E),
        "out_proj.bias": np.zeros(E),
        "logit_scale": w["logit_scale"].reshape(H),
    }
    ours.load_state_dict(state)
    x = normal(rng, 1, 16, E)
    with torch.no_grad():
        table = theirs.continuous_position_bias_mlp(theirs.relative_coords_table).view(-1, H)
        bias = table[theirs.relative_position_index.view(-1)].view(16, 16, H).permute(2, 0, 1)
        bias = 16 * torch.sigmoid(bias)
        out = theirs(torch.tensor(x))[0]
    assert_close(ours(x, x, x, attn_mask=bias.contiguous().numpy())[0], out)
