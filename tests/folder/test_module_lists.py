"""modules.json: modules in any order are applied one after another."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from safetensors.numpy import save_file

from simdformer import CrossEncoder, SentenceTransformer, quantize_model
from simdformer.folder.activation import TorchActivation
from tests import oracle
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    CLOSE,
    OLD_TYPES,
    PAIRS,
    TEXTS,
    config_json,
    expected_states,
    letter_ids,
    modules_json,
    pooled,
    tokenizer_json,
    write_dense,
    write_files,
    write_model,
)

MORE = ("LayerNorm", "Dropout", "WeightedLayerPooling", "StaticEmbedding", "Router")
TYPES = OLD_TYPES | {kind: f"sentence_transformers.models.{kind}" for kind in MORE}
rng = np.random.default_rng(3)


def model_of(folder, *kinds, files=None):
    kinds = ("Transformer", *kinds)
    return write_model(folder, kinds=kinds, types=TYPES, files=files)


def write_layer_norm(folder, size):
    weight, bias = rng.standard_normal((2, size)).astype(np.float32)
    write_files(folder, {"config.json": {"dimension": size}})
    save_file({"norm.weight": weight, "norm.bias": bias}, folder / "model.safetensors")
    return lambda x: oracle.layer_norm(x, weight, bias, 1e-5)


def dense(folder, n, m, activation="torch.nn.Tanh", **options):
    weight, bias = write_dense(folder, n, m, activation_function=activation, **options)
    return lambda x: oracle.linear(x, weight, bias)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "m"


def test_normalize_may_come_before_a_dense_layer(folder):
    model_of(folder, "Pooling", "Normalize", "Dense", "Dense")
    first, second = dense(folder / "3_Dense", 20, 8), dense(folder / "4_Dense", 8, 5, seed=2)
    expected = np.tanh(second(np.tanh(first(oracle.l2_normalize(pooled(TEXTS))))))
    model = SentenceTransformer(folder)
    np.testing.assert_allclose(model.encode(TEXTS), expected, **CLOSE)
    assert model.get_embedding_dimension() == 5


def test_layer_norm_and_dropout_may_be_anywhere_after_pooling(folder):
    model_of(folder, "Pooling", "Dropout", "LayerNorm", "Normalize")
    write_files(folder, {"2_Dropout/config.json": {"dropout": 0.5}})
    norm = write_layer_norm(folder / "3_LayerNorm", 20)
    expected = oracle.l2_normalize(norm(pooled(TEXTS)))
    np.testing.assert_allclose(SentenceTransformer(folder).encode(TEXTS), expected, **CLOSE)


def test_modules_on_token_vectors_run_before_pooling(folder):
    files = {
        "3_Pooling/config.json": {"embedding_dimension": 8, "pooling_mode": ["mean", "lasttoken"]},
        "1_Normalize/config.json": {"module_input_name": "token_embeddings"},
    }
    model_of(folder, "Normalize", "Dense", "Pooling", files=files)
    layer = dense(folder / "2_Dense", 20, 8, module_input_name="token_embeddings")
    model = SentenceTransformer(folder)
    rows = [np.tanh(layer(oracle.l2_normalize(expected_states(text)))) for text in TEXTS]
    expected = [np.concatenate([row.mean(0), row[-1]]) for row in rows]
    np.testing.assert_allclose(model.encode(TEXTS), expected, **CLOSE)
    for ours, row in zip(model.encode(TEXTS, output_value="token_embeddings"), rows, strict=True):
        np.testing.assert_allclose(ours, row, **CLOSE)


@pytest.mark.parametrize("states", [True, False])
def test_weighted_layers_are_used_only_if_the_transformer_returns_them(folder, states):
    files = {
        "config.json": config_json(output_hidden_states=states),
        "1_WeightedLayerPooling/config.json": {
            "word_embedding_dimension": 20,
            "layer_start": 1,
            "num_hidden_layers": 2,
        },
        "2_Pooling/config.json": {"embedding_dimension": 20},
    }
    model_of(folder, "WeightedLayerPooling", "Pooling", files=files)
    weights = np.array([1, 3], np.float32)
    save_file({"layer_weights": weights}, folder / "1_WeightedLayerPooling" / "model.safetensors")
    model = SentenceTransformer(folder)
    plain = SentenceTransformer(write_model(folder.parent / "plain"))
    layers = [
        f["all_layer_embeddings"]
        for f in plain.encode(TEXTS, output_value=None, output_hidden_states=True)
    ]
    expected = [((a + 3 * b) / 4 if states else b).mean(0) for _, a, b in layers]
    np.testing.assert_allclose(model.encode(TEXTS), expected, **CLOSE)


@pytest.mark.parametrize("kinds", [("Pooling", "Normalize", "Dense"), ("Dense", "Pooling")])
def test_a_text_has_the_same_bits_in_any_batch(folder, kinds):
    files = {"2_Pooling/config.json": {"embedding_dimension": 8}}
    model_of(folder, *kinds, files=files)
    name = "sentence_embedding" if kinds[-1] == "Dense" else "token_embeddings"
    dense(
        folder / f"{1 + kinds.index('Dense')}_Dense", 20, 8, "torch.nn.Mish", module_input_name=name
    )
    model = SentenceTransformer(folder)
    together = model.encode(TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        assert_same_bits(model.encode(text), row)


def test_a_dense_layer_may_project_its_residual(folder):
    model_of(folder, "Pooling", "Dense")
    layer = dense(folder / "2_Dense", 20, 8, use_residual=True)
    path = folder / "2_Dense" / "model.safetensors"
    residual = rng.standard_normal((8, 20)).astype(np.float32)
    weight, bias = write_dense(folder / "2_Dense", 20, 8, use_residual=True)
    save_file({"linear.weight": weight, "linear.bias": bias, "residual.weight": residual}, path)
    rows = pooled(TEXTS)
    expected = np.tanh(layer(rows)) + oracle.linear(rows, residual, None)
    np.testing.assert_allclose(SentenceTransformer(folder).encode(TEXTS), expected, **CLOSE)


def test_an_activation_of_another_package_is_replaced_by_the_default_with_a_warning(folder):
    model_of(folder, "Pooling", "Dense")
    layer = dense(folder / "2_Dense", 20, 8, "their_code.Swish2")
    with pytest.warns(UserWarning, match=r"their_code\.Swish2' is not torch's .* Tanh instead"):
        model = SentenceTransformer(folder)
    np.testing.assert_allclose(model.encode(TEXTS), np.tanh(layer(pooled(TEXTS))), **CLOSE)


def test_an_unknown_key_of_a_dense_layer_is_ignored_with_a_warning(folder):
    model_of(folder, "Pooling", "Dense")
    dense(folder / "2_Dense", 20, 8, quantile=3)
    with pytest.warns(UserWarning, match="2_Dense/config.json: 'quantile': unknown, ignored"):
        SentenceTransformer(folder)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("1_Pooling/config.json", {"embedding_dimension": 20, "pooling_quantile": 3}),
        ("2_LayerNorm/config.json", {"dimension": 20, "eps": 1e-3}),
    ],
)
def test_a_key_that_the_reference_refuses_is_refused(folder, file, config):
    model_of(folder, "Pooling", "LayerNorm")
    write_layer_norm(folder / "2_LayerNorm", 20)
    write_files(folder, {file: config})
    with pytest.raises(ValueError, match=rf"{file}: '{list(config)[1]}': not supported; known"):
        SentenceTransformer(folder)


# StaticEmbedding

TABLE = rng.standard_normal((61, 6)).astype(np.float32)


def write_static(folder, tensors, kinds=("StaticEmbedding",)):
    definition = tokenizer_json()
    definition["truncation"] = definition["padding"] = None
    write_files(folder, {"modules.json": modules_json(kinds, TYPES), "tokenizer.json": definition})
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_static_embedding_is_the_mean_of_its_tokens_rows(folder):
    model = SentenceTransformer(write_static(folder, {"embedding.weight": TABLE}))
    texts = [*TEXTS, "abc " * 500]
    expected = [TABLE[letter_ids(text)[1:-1]].mean(0) if text else np.zeros(6) for text in texts]
    np.testing.assert_allclose(model.encode(texts), expected, **CLOSE)
    assert_same_bits(model.encode(texts[0]), model.encode(texts)[0])


def test_a_static_embedding_of_model2vec_has_mapped_and_weighted_rows(folder):
    mapping, weights = rng.integers(0, 30, 61), rng.random(61).astype(np.float32)
    tensors = {"embeddings": TABLE[:30], "mapping": mapping, "weights": weights}
    kinds = ("StaticEmbedding", "Normalize")
    model = SentenceTransformer(write_static(folder, tensors, kinds))
    rows = TABLE[mapping] * weights[:, None]
    expected = oracle.l2_normalize([rows[letter_ids(text)[1:-1]].mean(0) for text in TEXTS[:2]])
    np.testing.assert_allclose(model.encode(TEXTS[:2]), expected, **CLOSE)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"x": TABLE}, "no tensor 'embedding.weight' or 'embeddings'"),
        ({"embedding.weight": TABLE[0]}, r"must be a table, its shape is \(6,\)"),
        (
            {"embeddings": TABLE, "mapping": np.array([61])},
            "must hold rows of 'embeddings', 0 to 60",
        ),
        ({"embeddings": TABLE, "weights": TABLE[0]}, r"'weights' in .* has shape \(6,\)"),
    ],
)
def test_a_damaged_static_embedding_is_refused(folder, tensors, match):
    with pytest.raises(ValueError, match=match):
        SentenceTransformer(write_static(folder, tensors))


def test_a_static_embedding_is_not_packed_in_int8(folder):
    write_static(folder, {"embedding.weight": TABLE})
    with pytest.raises(ValueError, match="StaticEmbedding, without linear layers"):
        SentenceTransformer(folder, compute_type="int8")


# Routers


def write_router(folder, structure, parameters, behind=()):
    """A Router with routes to a static embedding (s) and to a Transformer with pooling (t, p)."""
    types = {"s": "StaticEmbedding", "t": "Transformer", "p": "Pooling"}
    write_files(
        folder,
        {
            "modules.json": modules_json(("Router", *behind), TYPES),
            "router_config.json": {
                "types": {name: TYPES[kind] for name, kind in types.items()},
                "structure": structure,
                "parameters": parameters,
            },
            "p/config.json": {"embedding_dimension": 20},
        },
    )
    table = rng.standard_normal((61, 20)).astype(np.float32)
    write_static(folder / "s", {"embedding.weight": table})
    write_model(folder / "t")
    static, bert = (SentenceTransformer(folder / name).encode(TEXTS) for name in "st")
    return static, bert


ROUTES = {"query": ["s"], "document": ["t", "p"]}


def test_a_router_selects_modules_by_task(folder):
    static, bert = write_router(folder, ROUTES, {"default_route": "document"}, ("Normalize",))
    model = SentenceTransformer(folder)
    for got, expected in (
        (model.encode_query(TEXTS), static),
        (model.encode_document(TEXTS), bert),
        (model.encode(TEXTS, task="query"), static),
        (model.encode(TEXTS), bert),
    ):
        unit = np.where(expected.any(1, keepdims=True), oracle.l2_normalize(expected + 1e-30), 0)
        np.testing.assert_allclose(got, unit, **CLOSE)


def test_a_task_without_a_route_is_refused_with_the_known_ones(folder):
    write_router(folder, ROUTES, {})
    with pytest.raises(ValueError, match="no route for task='x'; known: 'query', 'document'"):
        SentenceTransformer(folder).encode("a", task="x")


def test_a_router_without_a_default_needs_a_task(folder):
    static, _ = write_router(folder, ROUTES, {"allow_empty_key": False})
    model = SentenceTransformer(folder)
    assert_same_bits(model.encode_query(TEXTS), static)
    with pytest.raises(ValueError, match="no route for task=None"):
        model.encode("a")


def test_a_model_with_tasks_is_not_served(folder):
    served = pytest.importorskip("simdformer.server.served")
    write_router(folder, ROUTES, {})
    with pytest.raises(ValueError, match=r"reads texts of different tasks .* cannot be served"):
        served.Embedder(SentenceTransformer(folder))


def test_a_router_runs_its_transformers_in_the_compute_type(folder):
    static, _ = write_router(folder, ROUTES, {})
    int8 = SentenceTransformer(folder, compute_type="int8")
    assert int8.compute_type == "int8"
    assert_same_bits(int8.encode_query(TEXTS), static)
    alone = SentenceTransformer(folder / "t", compute_type="int8")
    assert_same_bits(int8.encode_document(TEXTS), alone.encode(TEXTS))
    with pytest.raises(ValueError, match="models with a Router cannot be quantized"):
        quantize_model(folder, folder.parent / "saved")


def test_mappings_of_a_router_have_precedence_over_the_names_of_its_routes(folder):
    mappings = {"('query', None)": "b", "('query', 'text')": "a", "(None, None)": "b"}
    static, bert = write_router(folder, {"a": ["s"], "b": ["t", "p"]}, {"route_mappings": mappings})
    model = SentenceTransformer(folder)
    assert_same_bits(model.encode_query(TEXTS), static)
    assert_same_bits(model.encode_document(TEXTS), bert)


def test_a_router_may_come_after_pooling(folder):
    write_model(folder, kinds=("Transformer", "Pooling", "Router"), types=TYPES)
    structure = {"query": ["d"], "doc": ["n"]}
    types = {"d": TYPES["Dense"], "n": TYPES["Normalize"]}
    config = {"types": types, "structure": structure, "parameters": {"allow_empty_key": True}}
    write_files(folder, {"2_Router/config.json": config})  # the form in which Asym was saved
    layer = dense(folder / "2_Router" / "d", 20, 4)
    model = SentenceTransformer(folder)
    np.testing.assert_allclose(model.encode_query("ab"), np.tanh(layer(pooled(["ab"])))[0], **CLOSE)
    unit = oracle.l2_normalize(pooled(["ab"]))[0]
    np.testing.assert_allclose(model.encode("ab", task="doc"), unit, **CLOSE)


@pytest.mark.parametrize(
    ("structure", "parameters", "match"),
    [
        ({}, {}, "default_route must be one of"),
        ({"a": ["x"]}, {}, r"structure\['a'\] must list some of types"),
        (ROUTES, {"default_route": "x"}, "default_route must be one of query, document, got 'x'"),
        (
            ROUTES,
            {"route_mappings": {"print(1)": "query"}},
            "route_mappings must have keys such as",
        ),
        (ROUTES, {"route_mappings": {"(None, None)": "x"}}, "must be one of query, document"),
        (ROUTES, {"router": 3}, "'router': not supported"),
    ],
)
def test_an_invalid_router_is_refused(folder, structure, parameters, match):
    write_router(folder, structure, parameters)
    with pytest.raises(ValueError, match=rf"router_config.json: .*{match}"):
        SentenceTransformer(folder)


# A cross-encoder of modules


def test_a_cross_encoder_may_be_modules_that_end_in_scores(folder):
    files = {
        "1_Pooling/config.json": {"embedding_dimension": 20, "pooling_mode": "cls"},
        "config_sentence_transformers.json": {
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.linear.Identity",
        },
    }
    model_of(folder, "Pooling", "LayerNorm", "Dense", files=files)
    norm = write_layer_norm(folder / "2_LayerNorm", 20)
    scores = dense(folder / "3_Dense", 20, 1, "torch.nn.Identity", module_output_name="scores")
    model = CrossEncoder(folder)
    states = [output.last_hidden_state[:1] for output in model.outputs(PAIRS)]
    expected = [scores(norm(state.astype(np.float64)))[0, 0] for state in states]
    np.testing.assert_allclose(model.predict(PAIRS), expected, **CLOSE)
    assert model.num_labels == 1


# Unused tensors, and numbers that overflow


def test_unused_tensors_are_ignored_with_a_warning(folder):
    files = {"config.json": config_json(num_hidden_layers=1)}
    write_model(folder, files=files)
    with pytest.warns(UserWarning, match="16 tensors do not belong to the model in config.json"):
        SentenceTransformer(folder)


@pytest.mark.parametrize("texts", ["zz", ["ab", "zz"], ["ab"] * 1100 + ["zz"]])
def test_a_vector_that_is_not_finite_is_an_error_that_names_the_text(folder, texts):
    model = SentenceTransformer(write_model(folder))
    words = model.encoder.embeddings.word_embeddings
    table = words.weight.copy()
    table[letter_ids("z")[1]] = 3e38
    words.weight = table
    index = 0 if isinstance(texts, str) else len(texts) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=rf"texts\[{index}\] is NaN or infinite"):
            model.encode(texts)


def test_every_activation_with_a_name_is_a_function_of_rows():
    x = rng.standard_normal((3, 8)).astype(np.float32) * 4
    from simdformer.folder.activation import NAMES

    for name in NAMES:
        y = TorchActivation(name)(x)
        assert y.dtype == np.float32, name
        assert_same_bits(TorchActivation(name)(x[:1])[0], y[0])
