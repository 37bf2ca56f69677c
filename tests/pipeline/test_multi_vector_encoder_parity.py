"""MultiVectorEncoder compared with sentence-transformers' class, on models with random weights in every
folder format. Needs the extra [parity]."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from simdformer import MultiVectorEncoder
from simdformer.util.late_interaction import HierarchicalTokenPooling
from tests.support.parity_models import KINDS, randomize, tokenizer_of
from tests.support.parity_texts import parity_texts

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

BOUND = 2e-6
ENCODERS = ["bert", "xlm-roberta", "modernbert"]
EXPANSIONS = [
    None,
    {"strategy": "fixed", "length": 24},
    {"strategy": "fixed", "length": 24, "attend": True},
    {"strategy": "min", "length": 24, "token": "[UNK]"},
]


@pytest.fixture(scope="module")
def texts():
    ordered = [text for text in sorted(parity_texts(), key=len) if text.strip()]
    return [*ordered[:: len(ordered) // 12], *ordered[-1:]]


@pytest.fixture(scope="module")
def st():
    pytest.importorskip("torch")
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, st, texts):  # noqa: ARG001
    """A function from a kind to the folder of its encoder, as saved by transformers."""
    transformers = pytest.importorskip("transformers")
    made = {}

    def make(name):
        if name not in made:
            kind = KINDS[name]
            config = getattr(transformers, f"{kind.stem}Config")(**kind.fields)
            model = getattr(transformers, f"{kind.stem}Model")(config)
            randomize(model)
            made[name] = tmp_path_factory.mktemp("encoder")
            model.save_pretrained(made[name])
            tokenizer = tokenizer_of(transformers, kind, texts)
            if tokenizer.mask_token is None:
                tokenizer.add_special_tokens({"mask_token": kind.special[-1]})
            tokenizer.save_pretrained(made[name])
        return made[name]

    return make


@pytest.fixture(scope="module")
def saved(encoder, st, tmp_path_factory):
    """A function from a kind and options to a folder saved by sentence-transformers."""
    import torch
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize

    def save(name, *further, expansion=None, **options):
        torch.manual_seed(3)
        length = KINDS[name].longest
        transformer = Transformer(
            str(encoder(name)), document_length=min(150, length), query_expansion=expansion
        )
        transformer.max_seq_length = length
        tokens = "token_embeddings"
        width = transformer.get_embedding_dimension()
        dense = Dense(
            width, 40, bias=False, activation_function=torch.nn.Identity(), module_input_name=tokens
        )
        mask = MultiVectorMask(**{"skiplist_words": list(".,;[]()"), **options})
        modules = [transformer, dense, mask, Normalize(module_input_name=tokens), *further]
        model = st.MultiVectorEncoder(
            modules=modules, device="cpu", prompts={"query": "ask: ", "document": "read: "}
        )
        folder = tmp_path_factory.mktemp("saved")
        model.save_pretrained(str(folder))
        return folder

    return save


def assert_same(ours, theirs, texts):
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension()
    for method in ("encode_query", "encode_document", "encode"):
        a = getattr(ours, method)(texts)
        b = getattr(theirs, method)(texts, convert_to_numpy=True)
        for row, wanted in zip(a, b, strict=True):
            assert row.shape == wanted.shape
            assert np.abs(row - wanted).max(initial=0) <= BOUND


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("expansion", EXPANSIONS, ids=str)
def test_vectors_are_the_same(saved, st, texts, name, expansion):
    if expansion and expansion.get("token") and name != "bert":
        expansion = {**expansion, "token": None}
    folder = saved(name, expansion=expansion)
    theirs = st.MultiVectorEncoder(str(folder), device="cpu")
    assert_same(MultiVectorEncoder(folder), theirs, texts)


def test_masks_are_the_same(saved, st, texts):
    folder = saved(
        "bert", skiplist_tasks=["query", "document"], keep_only_token_ids=list(range(300))
    )
    theirs = st.MultiVectorEncoder(str(folder), device="cpu")
    assert_same(MultiVectorEncoder(folder), theirs, texts)


def test_token_pooling_is_the_same(saved, st, texts):
    pytest.importorskip("scipy")
    from sentence_transformers.multi_vector_encoder.modules import (
        HierarchicalTokenPooling as Reference,
    )

    folder = saved("bert", Reference(pool_factor=2))
    ours, theirs = MultiVectorEncoder(folder), st.MultiVectorEncoder(str(folder), device="cpu")
    assert_same(ours, theirs, texts)
    options = {"pool_factor": 1.5, "num_protected_tokens": 0, "tasks": ["query"]}
    a = ours.encode_query(texts, token_pooling=HierarchicalTokenPooling(**options))
    b = theirs.encode_query(texts, token_pooling=Reference(**options), convert_to_numpy=True)
    for row, wanted in zip(a, b, strict=True):
        np.testing.assert_allclose(row, wanted, rtol=0, atol=BOUND)


@pytest.mark.parametrize("name", ["maxsim", "meanmaxsim"])
def test_similarities_are_the_same(saved, st, texts, name):
    folder = saved("bert")
    ours = MultiVectorEncoder(folder, similarity_fn_name=name)
    theirs = st.MultiVectorEncoder(str(folder), device="cpu", similarity_fn_name=name)
    queries, documents = ours.encode_query(texts), ours.encode_document(texts)
    assert theirs.similarity_fn_name == ours.similarity_fn_name
    wanted = theirs.similarity(queries, documents).numpy()
    np.testing.assert_allclose(ours.similarity(queries, documents), wanted, rtol=1e-5, atol=1e-5)
    wanted = theirs.similarity_pairwise(queries, documents).numpy()
    found = ours.similarity_pairwise(queries, documents)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"attend_to_mask_tokens": True, "query_maxlen": 20, "doc_maxlen": 60}]
)
def test_a_folder_in_the_original_colbert_format_is_the_same(
    encoder, st, texts, tmp_path, settings
):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(encoder("bert"), tmp_path, dirs_exist_ok=True)
    tensors = {f"bert.{k}": v for k, v in load_file(tmp_path / "model.safetensors").items()}
    rng = np.random.default_rng(5)
    tensors["linear.weight"] = rng.standard_normal((32, 96)).astype(np.float32) / 10
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["HF_ColBERT"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    vocabulary = list(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"])
    markers = {"query_token_id": vocabulary[100], "doc_token_id": vocabulary[101]}
    (tmp_path / "artifact.metadata").write_text(json.dumps({**markers, **settings}))
    theirs = st.MultiVectorEncoder(str(tmp_path), device="cpu")
    ours = MultiVectorEncoder(tmp_path)
    assert ours.prompts == theirs.prompts
    assert_same(ours, theirs, texts)


@pytest.mark.parametrize(
    "further", [{}, {"do_query_expansion": False, "skiplist_words": ["the", "a"]}]
)
def test_a_folder_of_pylate_is_the_same(saved, st, texts, tmp_path, further):
    shutil.copytree(saved("bert"), tmp_path, dirs_exist_ok=True)
    modules = json.loads((tmp_path / "modules.json").read_text())[:2]
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    dense = tmp_path / modules[1]["path"] / "config.json"
    fields = json.loads(dense.read_text())
    known = ("in_features", "out_features", "bias", "activation_function")
    dense.write_text(json.dumps({name: fields[name] for name in known}))
    settings = {
        "model_type": "ColBERT",
        "prompts": {},
        "query_prefix": "[UNK] ",
        "document_prefix": "[D] ",
        "query_length": 30,
        "document_length": 80,
        "attend_to_expansion_tokens": False,
        **further,
    }
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 200}))
    theirs = st.MultiVectorEncoder(str(tmp_path), device="cpu")
    ours = MultiVectorEncoder(tmp_path)
    assert_same(ours, theirs, texts)
