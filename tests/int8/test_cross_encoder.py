"""quantize_model for cross-encoders: the head stays in float32, and CrossEncoder gives the bits of quantizing
when loading."""

from __future__ import annotations

import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simdformer import CrossEncoder, SentenceTransformer, quantize_model
from simdformer.cli import main
from simdformer.folder.cross_encoder_folder import CrossEncoderFolder
from simdformer.folder.loading import load_cross_encoder
from simdformer.int8.sample import Sample
from simdformer.models.classification import HEADS
from simdformer.text.batching import pack
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    PAIRS,
    classifier_weights,
    config_json,
    modules_json,
    write_cross_encoder,
    write_model,
)
from tests.support.tiny_models import ARCHITECTURES, WIDE

WEIGHTS = "model-int8.safetensors"
HEAD = (
    "bert.pooler.dense.weight",
    "bert.pooler.dense.bias",
    "classifier.weight",
    "classifier.bias",
)
PLAIN = {"modules.json": None, "sentence_bert_config.json": None, "1_Pooling/config.json": None}


def predict(folder, **options):
    return CrossEncoder(folder, **options).predict(PAIRS)


@pytest.fixture
def source(tmp_path):
    return write_cross_encoder(tmp_path / "source", 3)


@pytest.fixture
def saved(source, tmp_path):
    quantize_model(source, tmp_path / "saved")
    return tmp_path / "saved"


def write_wide(folder, architecture):
    """A wide model with three labels and outliers in its first layer, as saved by transformers."""
    classes = class_of(architecture)
    weights = architecture.weights(WIDE)
    weights[architecture.first_norm][[3, 7, 11]] = 25
    tensors = {architecture.prefix + n: t for n, t in architecture.renamed(weights).items()}
    tensors |= head_weights(HEADS[classes], WIDE.hidden_size, 3)
    labels = {str(i): f"LABEL_{i}" for i in range(3)}
    config = architecture.fields(WIDE, architectures=[classes], id2label=labels)
    return architecture.write(folder, WIDE, weights=tensors, files={"config.json": config} | PLAIN)


def head_weights(head, d, labels):
    """The tensors of a head if config.json has no fields for its biases."""
    rng = np.random.default_rng(3)
    layers = [(head.dense, d, head.bias is True)] if head.dense else []
    layers.append((head.classifier, labels, head.classifier_bias))
    tensors = {}
    for name, rows, bias in layers:
        tensors[f"{name}.weight"] = rng.standard_normal((rows, d)) * d**-0.5
        if bias:
            tensors[f"{name}.bias"] = rng.standard_normal(rows)
    if head.norm:
        tensors[f"{head.norm}.weight"] = 1 + rng.standard_normal(d) * 0.1
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def class_of(architecture):
    """The name of the head's class, which writes the architecture without a hyphen; None if there is none."""
    stem = re.sub("[-_]", "", architecture.model_type)
    return next((name for name in HEADS if name.lower().startswith(f"{stem}for")), None)


WITH_A_HEAD = [architecture for architecture in ARCHITECTURES if class_of(architecture)]


# Saved files


def test_every_known_head_is_tested():
    jina = {"JinaBertForSequenceClassification"}  # tests/models/test_jina.py
    assert {class_of(architecture) for architecture in WITH_A_HEAD} == set(HEADS) - jina


@pytest.mark.parametrize("architecture", WITH_A_HEAD, ids=lambda a: a.model_type)
def test_a_saved_model_has_the_bits_of_quantizing_at_load(tmp_path, architecture):
    source = write_wide(tmp_path / "source", architecture)
    quantize_model(source, tmp_path / "saved")
    scores = predict(tmp_path / "saved")
    assert_same_bits(scores, predict(source, compute_type="int8"))
    assert (scores != predict(source)).any()


def test_a_model_with_modules_of_its_own_is_saved_with_them(tmp_path):
    settings = {"prompts": {"web": "x "}, "default_prompt_name": "web"}
    files = {
        "modules.json": modules_json(["Transformer"]),
        "config_sentence_transformers.json": settings,
    }
    source = write_cross_encoder(tmp_path / "source", files=files)
    quantize_model(source, tmp_path / "saved")
    model = CrossEncoder(tmp_path / "saved")
    assert model.prompts == {"web": "x "}
    assert_same_bits(model.predict(PAIRS), predict(source, compute_type="int8"))


def test_the_head_is_saved_as_it_is(source, saved):
    before, after = load_file(source / "model.safetensors"), load_file(saved / WEIGHTS)
    for name in HEAD:
        assert_same_bits(after[name], before[name])


def test_a_saved_model_is_int8_by_itself_and_needs_no_other_weights(source, saved):
    before = predict(saved)
    (source / "model.safetensors").unlink()
    model = CrossEncoder(saved)
    assert model.compute_type == "int8"
    assert set(model.part_types.values()) == {"int8"}
    assert_same_bits(model.predict(PAIRS), before)


def test_min_cosine_1_keeps_every_part(source, tmp_path):
    quantize_model(source, tmp_path / "kept", min_cosine=1)
    assert set(CrossEncoder(tmp_path / "kept").part_types.values()) == {"float32"}
    assert_same_bits(predict(tmp_path / "kept"), predict(source))


def test_the_loss_is_measured_on_the_input_of_the_classifier(tmp_path):
    """A head with the same input for all texts: no loss, although the encoder has one."""
    weights = classifier_weights()
    weights["bert.pooler.dense.weight"][:] = 0
    source = write_cross_encoder(tmp_path / "source", weights=weights)
    report = quantize_model(source, tmp_path / "saved", min_cosine=0)
    assert report.min_cosine == pytest.approx(1, abs=1e-7)
    assert min(part.error for part in report.parts) > 1e-4


def test_texts_calibrate(source, saved, tmp_path):
    report = quantize_model(source, tmp_path / "texts", texts=["a cab", "the quick brown fox", ""])
    assert report.texts == 3
    assert (predict(tmp_path / "texts") != predict(saved)).any()


def test_pairs_calibrate_and_measure_as_the_model_reads_them(source, tmp_path):
    """With the token types of the model's own tokenizer."""
    report = quantize_model(source, tmp_path / "pairs", texts=PAIRS)
    exact, found = load_cross_encoder(source), load_cross_encoder(tmp_path / "pairs")
    model = CrossEncoderFolder(source)
    with model.checkpoint() as checkpoint:
        features = model.measure(checkpoint)
    tokens = exact.tokenizer(PAIRS)
    batch = pack(tokens.input_ids, tokens.type_ids)
    a, b = (features(loaded.encoder.native()).encode(*batch) for loaded in (exact, found))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert report.texts == len(PAIRS)
    assert 1 - report.min_cosine == pytest.approx(1 - cosines.min(), abs=5e-7)
    assert 1 - report.mean_cosine > 5e-6


def test_a_sample_keeps_each_tokens_type_when_it_is_cut():
    lengths, ids = [3, 4, 2, 5], np.arange(14, dtype=np.int32)
    cu_seqlens = np.cumsum([0, *lengths]).astype(np.int32)
    pieces = list(Sample(ids, cu_seqlens, ids + 100).pieces(7))
    assert [np.diff(piece.cu_seqlens).tolist() for piece in pieces] == [[3, 4], [2, 5]]
    assert np.concatenate([piece.input_ids for piece in pieces]).tolist() == ids.tolist()
    for piece in pieces:
        assert piece.token_type_ids.tolist() == (piece.input_ids + 100).tolist()


def test_sentence_transformer_still_averages_the_tokens_of_a_saved_model(source, saved):
    exact = SentenceTransformer(source, compute_type="int8").encode(["a cab"])
    assert_same_bits(SentenceTransformer(saved).encode(["a cab"]), exact)


def test_an_embedding_model_made_of_a_classifier_is_saved_without_the_head(tmp_path):
    config = config_json(architectures=["BertForSequenceClassification"])
    files = {"config.json": config}
    source = write_model(tmp_path / "source", weights=classifier_weights(), files=files)
    quantize_model(source, tmp_path / "saved")
    assert not load_file(tmp_path / "saved" / WEIGHTS).keys() & set(HEAD)
    vectors = SentenceTransformer(source, compute_type="int8").encode(["a cab"])
    assert_same_bits(SentenceTransformer(tmp_path / "saved").encode(["a cab"]), vectors)


# What is refused


def test_a_saved_model_without_a_head_says_what_to_do(saved):
    """As older versions of quantize_model saved it."""
    tensors = load_file(saved / WEIGHTS)
    save_file({name: tensors[name] for name in tensors if name not in HEAD}, saved / WEIGHTS)
    match = r"saved is quantized and has no classification head: quantize .* again"
    with pytest.raises(ValueError, match=match):
        CrossEncoder(saved)


@pytest.mark.parametrize("name", HEAD)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "is missing from the checkpoint"),
        (lambda t: t[:0], "has shape"),
        (lambda t: t.astype(np.int8), "has dtype I8"),
        (lambda t: t * np.float32(np.nan), "NaN or infinite"),
    ],
)
def test_a_damaged_head_is_refused_by_file_and_name(saved, name, change, message):
    tensors = load_file(saved / WEIGHTS)
    tensor = tensors.pop(name)
    if change:
        tensors[name] = np.ascontiguousarray(change(tensor))
    save_file(tensors, saved / WEIGHTS)
    with pytest.raises(ValueError, match=message) as error:
        CrossEncoder(saved)
    assert f"'{name}'" in str(error.value)
    assert WEIGHTS in str(error.value)


def test_a_model_that_lacks_its_head_is_not_quantized(tmp_path):
    weights = classifier_weights()
    del weights["classifier.weight"]
    source = write_cross_encoder(tmp_path / "source", weights=weights)
    with pytest.raises(ValueError, match=r"tensor 'classifier\.weight' is missing"):
        quantize_model(source, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_pairs_are_for_cross_encoders(tmp_path):
    source = write_model(tmp_path / "source")
    with pytest.raises(
        ValueError, match=r"texts contains pairs, but .*source is not a cross-encoder"
    ):
        quantize_model(source, tmp_path / "saved", texts=PAIRS)


def test_an_input_that_is_not_a_pair_is_named_by_its_index(source, tmp_path):
    with pytest.raises(TypeError, match=r"texts\[5\] must be a pair of str, got str"):
        quantize_model(source, tmp_path / "saved", texts=[*PAIRS, "ab"])


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16"])
def test_other_compute_types_of_a_saved_model_are_refused(saved, compute_type):
    match = rf"compute_type='{compute_type}', but .*saved is quantized"
    with pytest.raises(ValueError, match=match):
        CrossEncoder(saved, compute_type=compute_type)


# The commands


def test_the_commands_output_can_be_described_and_used_to_rank(tmp_path, capsys):
    source, saved = write_cross_encoder(tmp_path / "source"), str(tmp_path / "saved")
    (tmp_path / "texts.txt").write_text("a cab\ndeed\n")
    assert main(["quantize", str(source), "-o", saved, "--texts", str(tmp_path / "texts.txt")]) == 0
    assert "cosine to float32 over 2 texts" in capsys.readouterr().out
    assert main(["info", saved]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["class", "CrossEncoder"] in lines
    assert ["compute_type", "int8"] in lines
    assert main(["rerank", "a", "--in", str(tmp_path / "texts.txt"), "--model", saved]) == 0
    assert "deed" in capsys.readouterr().out
