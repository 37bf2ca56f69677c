"""CrossEncoder on causal language models: a score is a logit after the last token, or the difference
between two."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from simdformer import CrossEncoder, quantize_model
from simdformer.cli import main
from tests.oracle import rotary as oracle_rotary
from tests.support import assert_same_bits, normal
from tests.support.model_fixtures import CLOSE, PAIRS
from tests.support.tiny_models import TINY
from tests.support.tiny_rotary import GEMMA, LLAMA, QWEN3
from tests.support.tiny_tokenizers import byte_level_json

PLAIN = {"modules.json": None, "sentence_bert_config.json": None, "1_Pooling/config.json": None}
TYPES = "sentence_transformers"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": f"{TYPES}.base.modules.transformer.Transformer"},
    {
        "idx": 1,
        "name": "1",
        "path": "1_LogitScore",
        "type": f"{TYPES}.cross_encoder.modules.logit_score.LogitScore",
    },
]
TASK = {"transformer_task": "text-generation", "module_output_name": "causal_logits"}
TOKENS = (30, 7)
WEIGHTS = "model-int8.safetensors"


def with_yes_and_no():
    """A byte-level tokenizer with the tokens "yes" and "no"."""
    tokenizer = Tokenizer.from_str(json.dumps(byte_level_json()))
    tokenizer.add_tokens(["yes", "no"])
    return json.loads(tokenizer.to_str())


JUDGE = replace(QWEN3, tokenizer=with_yes_and_no)


def head_of(architecture):
    """The matrix that maps hidden states to logits."""
    rows = architecture.sized(TINY).vocab_size
    return normal(np.random.default_rng(5), rows, TINY.hidden_size, scale=0.5)


def write(folder, architecture, *, tied=False, score=None, files=None, **config):
    """A causal language model; with LogitScore if there is a `score`."""
    weights = {
        architecture.prefix + name: tensor
        for name, tensor in architecture.renamed(architecture.weights()).items()
    }
    if not tied:
        weights["lm_head.weight"] = head_of(architecture)
    fields = architecture.fields(
        architectures=["Qwen3ForCausalLM"], tie_word_embeddings=tied, **config
    )
    contents = PLAIN | {"config.json": fields}
    if score is not None:
        contents |= {
            "modules.json": MODULES,
            "sentence_bert_config.json": TASK,
            "1_LogitScore/config.json": score,
            "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
        }
    return architecture.write(folder, weights=weights, files=contents | (files or {}))


def score_of(tokens):
    return dict(zip(("true_token_id", "false_token_id"), tokens, strict=False))


def difference(head, tokens):
    """The vector that multiplies the last hidden state."""
    return head[tokens[0]] - (head[tokens[1]] if len(tokens) > 1 else 0)


def logits(folder, pairs=PAIRS, **options):
    return CrossEncoder(folder, activation_fn="torch.nn.Identity", **options).predict(pairs)


@pytest.mark.parametrize("tokens", [TOKENS, TOKENS[:1]], ids=["two", "one"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", [QWEN3, LLAMA, GEMMA], ids=lambda a: a.model_type)
def test_a_score_is_what_the_head_gives_for_the_tokens(tmp_path, architecture, tied, tokens):
    folder = write(tmp_path / "m", architecture, tied=tied, score=score_of(tokens))
    last = np.array([states[-1] for states in architecture.states_of_pairs(PAIRS)])
    head = architecture.weights()["words.weight"] if tied else head_of(architecture)
    np.testing.assert_allclose(
        logits(folder), last @ difference(head.astype(float), tokens), **CLOSE
    )


def test_without_modules_the_tokens_are_yes_and_no(tmp_path):
    tokenizer = Tokenizer.from_str(json.dumps(with_yes_and_no()))
    tokens = tuple(map(tokenizer.token_to_id, ("yes", "no")))
    saved = write(tmp_path / "saved", JUDGE, score=score_of(tokens))
    assert_same_bits(logits(write(tmp_path / "plain", JUDGE)), logits(saved))


def test_one_score_goes_through_a_sigmoid(tmp_path):
    model = CrossEncoder(write(tmp_path / "m", JUDGE))
    assert model.num_labels == 1
    raw = model.predict(PAIRS, activation_fn="torch.nn.Identity").astype(float)
    np.testing.assert_allclose(model.predict(PAIRS), 1 / (1 + np.exp(-raw)), **CLOSE)


def test_the_activation_of_the_folder_applies(tmp_path):
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"}
    files = {"config_sentence_transformers.json": settings}
    folder = write(tmp_path / "m", QWEN3, score=score_of(TOKENS), files=files)
    assert_same_bits(CrossEncoder(folder).predict(PAIRS), logits(folder))


def test_a_score_does_not_depend_on_the_batch_or_the_threads(tmp_path):
    folder = write(tmp_path / "m", JUDGE)
    expected = logits(folder, num_threads=1)
    assert_same_bits(logits(folder, num_threads=2, max_batch_tokens=20), expected)
    model = CrossEncoder(folder, activation_fn="torch.nn.Identity")
    assert_same_bits(np.stack([model.predict(pair) for pair in PAIRS]), expected)


# Templates

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} => {% endif %}"
)


def expected_of_texts(texts):
    tokenizer = Tokenizer.from_str(json.dumps(with_yes_and_no()))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    weights, definition, head = JUDGE.weights(), JUDGE.definition(), head_of(JUDGE).astype(float)
    ids = [np.array(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    last = [oracle_rotary.encoder(each, weights, definition)[-1] for each in ids]
    return np.array(last) @ (head[-2] - head[-1])


def with_template(**more):
    """Settings of a folder whose texts become messages."""
    entry = {"method": "forward", "method_output_name": "logits"}
    modalities = {"text": entry, "message": {**entry, "format": "flat"}}
    settings = {**TASK, "modality_config": modalities, **more}
    return {"chat_template.jinja": TEMPLATE, "sentence_bert_config.json": settings}


def test_a_pair_goes_through_the_chat_template(tmp_path):
    pytest.importorskip("jinja2")
    options = {"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}}
    vocabulary = JUDGE.sized(TINY).vocab_size
    score = score_of((vocabulary - 2, vocabulary - 1))
    folder = write(tmp_path / "m", JUDGE, score=score, files=with_template(**options))
    rendered = [f"[system] judge[query] {a}[document] {b} => " for a, b in PAIRS]
    model = CrossEncoder(folder, activation_fn="torch.nn.Identity")
    found = model.predict(PAIRS, prompt="judge")
    np.testing.assert_allclose(found, expected_of_texts(rendered), **CLOSE)


def test_the_end_of_the_template_is_kept_when_a_pair_is_truncated(tmp_path):
    pytest.importorskip("jinja2")
    options = {"processing_kwargs": {"chat_template": {"add_generation_prompt": True}}}
    score = score_of(TOKENS)
    folder = write(tmp_path / "m", JUDGE, score=score, files=with_template(**options))
    model = CrossEncoder(folder, max_length=30)
    pair = ("a" * 9, "b" * 90)
    with pytest.warns(UserWarning, match="longer than max_seq_length=30"):
        model.predict(pair)
    ids = model.pipeline.tokenizer([model.pipeline.prompted_pair(pair, None)])
    tokenizer = Tokenizer.from_str(json.dumps(with_yes_and_no()))
    tokenizer.no_padding()
    end = tokenizer.encode(" => ", add_special_tokens=False).ids
    assert ids.input_ids[0][-len(end) :] == end
    assert len(ids.input_ids[0]) == 30


# What is refused


@pytest.mark.parametrize(
    ("score", "match"),
    [
        ({}, "LogitScore/config.json: true_token_id is missing"),
        ({"true_token_id": -1}, r"LogitScore/config.json: true_token_id must be an int in 0\.\."),
        ({"true_token_id": 10**6}, "config.json has vocab_size=.*, which token id 1000000 exceeds"),
        ({"true_token_id": 1, "false_token_id": "no"}, "false_token_id must be an int in 0"),
        ({"true_token_id": 1, "top": 3}, "LogitScore/config.json: 'top': not supported; known: "),
        (
            {"true_token_id": 1, "module_input_name": "logits"},
            "LogitScore/config.json: unknown module_input_name 'logits'; known: 'causal_logits'",
        ),
    ],
    ids=str,
)
def test_an_invalid_logit_score_is_refused(tmp_path, score, match):
    with pytest.raises(ValueError, match=match):
        CrossEncoder(write(tmp_path / "m", QWEN3, score=score))


def test_a_model_with_a_limit_of_logits_is_refused(tmp_path):
    folder = write(tmp_path / "m", JUDGE, final_logit_softcapping=30.0)
    with pytest.raises(ValueError, match=r"config\.json: unknown final_logit_softcapping 30\.0"):
        CrossEncoder(folder)


def test_the_error_names_a_missing_head(tmp_path):
    folder = write(tmp_path / "m", JUDGE, tied=True)
    fields = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(
        ValueError, match=r"tensor 'lm_head\.weight' is missing from the checkpoint"
    ):
        CrossEncoder(folder)


def test_a_tokenizer_without_yes_and_no_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs the tokens 'yes' and 'no'"):
        CrossEncoder(write(tmp_path / "m", QWEN3))


def test_an_embedding_model_with_a_logit_score_is_refused(tmp_path):
    files = {"config_sentence_transformers.json": {"model_type": "SentenceTransformer"}}
    folder = write(tmp_path / "m", QWEN3, score=score_of(TOKENS), files=files)
    with pytest.raises(ValueError, match="not Transformer -> LogitScore"):
        CrossEncoder(folder)


# Compute types, folders, the command line


def test_bfloat16_and_int8_scores_are_near_those_of_float32(tmp_path):
    folder = write(tmp_path / "m", JUDGE)
    exact = logits(folder)
    for compute_type, bound in (("bfloat16", 0.05), ("int8", 0.2)):
        scores = logits(folder, compute_type=compute_type)
        assert 0 < np.abs(scores - exact).max() < bound * np.ptp(exact)


@pytest.mark.parametrize("tied", [False, True])
def test_a_quantized_folder_keeps_only_the_score(tmp_path, tied):
    source = write(tmp_path / "source", QWEN3, tied=tied, score=score_of(TOKENS))
    quantize_model(source, tmp_path / "saved")
    expected = logits(source, compute_type="int8")
    assert_same_bits(logits(tmp_path / "saved"), expected)
    shapes = {
        name: tensor.shape for name, tensor in load_file(tmp_path / "saved" / WEIGHTS).items()
    }
    assert shapes["score.weight"] == (1, TINY.hidden_size)
    assert "lm_head.weight" not in shapes


def test_quantization_reads_pairs_through_the_template_and_keeps_it(tmp_path):
    pytest.importorskip("jinja2")
    source = write(tmp_path / "source", QWEN3, score=score_of(TOKENS), files=with_template())
    quantize_model(source, tmp_path / "saved", texts=PAIRS)
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == TEMPLATE
    found, exact = logits(tmp_path / "saved"), logits(source)
    assert np.abs(found - exact).max() < 0.2 * np.ptp(exact)


def test_a_folder_quantized_for_embeddings_has_no_score(tmp_path):
    folder = write(tmp_path / "m", JUDGE)
    quantize_model(folder, tmp_path / "q")
    with pytest.raises(ValueError, match="is quantized and has no classification head"):
        CrossEncoder(tmp_path / "q")


@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["pairs", "template"])
def test_a_saved_model_gives_the_same_scores(tmp_path, template):
    folder = write(tmp_path / "m", JUDGE, files={"chat_template.jinja": template})
    if template is not None:
        pytest.importorskip("jinja2")
    model = CrossEncoder(folder)
    model.save_pretrained(tmp_path / "saved")
    saved = CrossEncoder(tmp_path / "saved")
    assert_same_bits(saved.predict(PAIRS), model.predict(PAIRS))
    listed = json.loads((tmp_path / "saved" / "modules.json").read_text())
    assert [module["type"] for module in listed][1] == MODULES[1]["type"]


def test_info_names_the_module(tmp_path, capsys):
    folder = write(tmp_path / "m", QWEN3, score=score_of(TOKENS))
    assert main(["info", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["model"]
    assert shown["class"] == "CrossEncoder"
    assert shown["head"] == "LogitScore"
    assert shown["num_labels"] == 1


def test_the_server_ranks_through_the_template(tmp_path):
    for package in ("jinja2", "starlette", "httpx"):
        pytest.importorskip(package)
    from simdformer.server import create_app
    from tests.support.server_client import ask

    folder = write(tmp_path / "m", QWEN3, score=score_of(TOKENS), files=with_template())
    model = CrossEncoder(folder)
    documents = [document for _, document in PAIRS]
    body = {"query": "a cab", "documents": documents}
    answer = ask(create_app(reranker=model), "/v1/rerank", body).json()
    assert answer["results"] == [
        {"index": hit["corpus_id"], "relevance_score": hit["score"]}
        for hit in model.rank("a cab", documents)
    ]
