"""Jina's models, published with their own code, compared with definitions of that code in float64. The code
itself is never run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from simdformer import CrossEncoder, SentenceTransformer, quantize_model
from tests import oracle
from tests.oracle import rotary as oracle_rotary
from tests.support import assert_same_bits, normal
from tests.support.model_fixtures import CLOSE, PAIRS
from tests.support.tiny_jina import FLASH, JINA, JINA_BERT, LEARNED, NORMED_JINA_BERT
from tests.support.tiny_models import BY_NAME, TEXTS, TINY, WIDE

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")
each = pytest.mark.parametrize("kind", JINA)


@each
def test_vectors_follow_the_definition(tmp_path, kind):
    model = SentenceTransformer(JINA[kind].write(tmp_path / "m"))
    np.testing.assert_allclose(model.encode(TEXTS), JINA[kind].pooled(TEXTS), **CLOSE)
    for text in TEXTS[:2]:
        found = model.encode(text, output_value="token_embeddings")
        np.testing.assert_allclose(found, JINA[kind].states(text), **CLOSE)


@each
def test_all_positions_are_used_and_no_more(tmp_path, kind):
    model = SentenceTransformer(JINA[kind].write(tmp_path / "m"))
    model.max_seq_length = None
    assert model.max_seq_length == TINY.max_positions
    expected = JINA[kind].pooled(TEXTS[2:3], limit=TINY.max_positions)
    np.testing.assert_allclose(model.encode(TEXTS[2:3]), expected, **CLOSE)


@pytest.mark.parametrize(("compute_type", "least"), [("bfloat16", 0.9995), ("int8", 0.999)])
@each
def test_rounded_weights_are_close(tmp_path, kind, compute_type, least):
    folder = JINA[kind].write(tmp_path / "m", WIDE)
    exact = SentenceTransformer(folder).encode(TEXTS, normalize_embeddings=True)
    model = SentenceTransformer(folder, compute_type=compute_type)
    cosines = (model.encode(TEXTS, normalize_embeddings=True) * exact).sum(axis=1)
    assert least <= cosines.min() < 1 - 1e-9
    assert_same_bits(model.encode(TEXTS[0]), model.encode(TEXTS)[0])


@each
def test_a_saved_int8_model_is_that_of_loading_as_int8(tmp_path, kind):
    folder = JINA[kind].write(tmp_path / "m", WIDE)
    quantize_model(folder, tmp_path / "saved")
    expected = SentenceTransformer(folder, compute_type="int8").encode(TEXTS)
    assert_same_bits(SentenceTransformer(tmp_path / "saved").encode(TEXTS), expected)


@each
def test_changing_positions_or_gates_changes_the_result(tmp_path, kind):
    """Changes the order of tokens, and swaps the halves of the gate's matrix."""
    architecture = JINA[kind]
    weights = architecture.renamed(architecture.weights())
    model = SentenceTransformer(architecture.write(tmp_path / "m"))
    assert np.abs(model.encode("a cab") - model.encode("cab a")).max() > 1e-3
    for name in [name for name in weights if "gated_layer" in name]:
        weights[name] = np.roll(weights[name], len(weights[name]) // 2, axis=0)
    if kind != "flash":
        other = SentenceTransformer(architecture.write(tmp_path / "other", weights=weights))
        assert np.abs(model.encode(TEXTS[:2]) - other.encode(TEXTS[:2])).max() > 1e-3


@pytest.mark.parametrize("architecture", [JINA_BERT, NORMED_JINA_BERT], ids=["plain", "normed"])
def test_its_classification_head_follows_the_definition(tmp_path, architecture):
    rng, d = np.random.default_rng(3), TINY.hidden_size
    head = {
        "bert.pooler.dense.weight": normal(rng, d, d, scale=d**-0.5),
        "bert.pooler.dense.bias": normal(rng, d),
        "classifier.weight": normal(rng, 1, d, scale=d**-0.5),
        "classifier.bias": normal(rng, 1),
    }
    encoder = architecture.weights()
    weights = {f"bert.{name}": w for name, w in architecture.renamed(encoder).items()}
    config = architecture.fields(
        architectures=["JinaBertForSequenceClassification"], id2label={"0": "LABEL_0"}
    )
    files = {"config.json": config, "modules.json": None}
    folder = architecture.write(tmp_path / "m", weights=weights | head, files=files)
    tokenizer = Tokenizer.from_str(json.dumps(architecture.tokenizer()))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    expected = []
    for pair in PAIRS:
        encoding = tokenizer.encode(*pair)
        # All tokens of the oracle have type 0, so the embedding of type 1 is added to extra words.
        typed = dict(encoder)
        words, types = encoder["words.weight"], encoder["token_types.weight"]
        typed["words.weight"] = np.concatenate([words, words + types[1] - types[0]])
        ids = np.array(encoding.ids) + len(words) * np.array(encoding.type_ids)
        states = oracle_rotary.encoder(ids, typed, architecture.definition())
        pooled = oracle.linear(
            states[:1], head["bert.pooler.dense.weight"], head["bert.pooler.dense.bias"]
        )
        logits = oracle.linear(np.tanh(pooled), head["classifier.weight"], head["classifier.bias"])
        expected.append(logits[0, 0])
    found = CrossEncoder(folder, activation_fn="torch.nn.Identity").predict(PAIRS)
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_flash_with_learned_positions_is_a_roberta(tmp_path):
    """As in jina-reranker-v2: the tensors of one model with the names of the other."""
    roberta = BY_NAME["xlm-roberta"]
    ours = LEARNED.renamed(roberta.weights())
    fields = roberta.fields(auto_map=FLASH.config["auto_map"])
    folder = roberta.write(tmp_path / "m", weights=ours, files={"config.json": fields})
    expected = SentenceTransformer(roberta.write(tmp_path / "roberta")).encode(TEXTS)
    assert_same_bits(SentenceTransformer(folder).encode(TEXTS), expected)


@pytest.mark.parametrize(
    ("kind", "field", "value", "match"),
    [
        ("geglu", "position_embedding_type", "absolute", "unknown position_embedding_type 'absol"),
        ("geglu", "feed_forward_type", "original", "unknown feed_forward_type 'original'"),
        ("geglu", "is_decoder", True, "unknown is_decoder True; known: False"),
        ("geglu", "auto_map", {}, "unknown position_embedding_type 'alibi'"),
        ("geglu", "auto_map", NORMED_JINA_BERT.config["auto_map"], "up_gated_layer.* is missing"),
        ("flash", "position_embedding_type", "alibi", "unknown position_embedding_type 'alibi'"),
        ("flash", "hidden_act", "relu", "unknown hidden_act 'relu'; known: 'gelu'"),
        ("flash", "rotary_emb_interleaved", True, "unknown rotary_emb_interleaved True"),
    ],
)
def test_an_invalid_field_is_refused_by_name(tmp_path, kind, field, value, match):
    files = {"config.json": JINA[kind].fields(**{field: value})}
    folder = JINA[kind].write(tmp_path / "m", files=files)
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(folder)
