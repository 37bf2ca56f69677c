"""Runs sentence-transformers' own tests of inference with our classes, and counts the results.

    python tools/reference_tests.py CHECKOUT [PYTEST ARGUMENT ...]

CHECKOUT: a checkout of its repository, at or near the installed release. Nothing is downloaded: the models of the
tests are made here, with random weights, in a separate cache. Needs the group ecosystem. Tests that need the real
weights, training, adapters, the hub or a GPU cannot pass.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FILES = (
    "base/test_model.py",
    "cross_encoder/test_model.py",
    "cross_encoder/test_multi_process.py",
    "sentence_transformer/evaluation",
    "sentence_transformer/test_compute_embeddings.py",
    "sentence_transformer/test_model.py",
    "sentence_transformer/test_multi_process.py",
    "util/test_quantization.py",
    "util/test_retrieval.py",
    "util/test_similarity.py",
)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
PROGRAM = (
    "import sys, pytest, simdformer; simdformer.as_sentence_transformers();"
    " sys.exit(pytest.main(sys.argv[1:]))"
)
TINY = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 30522,
}
TYPE = "sentence_transformers.models."
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def snapshot(cache: Path, name: str) -> Path:
    """The folder of a model in a Hugging Face cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return folder


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def tokenizer_files(folder: Path) -> None:
    from simdformer.folder.resolve import resolve_model

    for name in TOKENIZER:
        source = resolve_model("all-MiniLM-L6-v2") / name
        if source.is_file():
            shutil.copyfile(source, folder / name)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(folder / "tokenizer_config.json", {**config, "model_max_length": 512})


def embedding_model(cache: Path, name: str) -> None:
    from transformers import BertConfig, BertModel

    folder = snapshot(cache, name)
    model = BertModel(BertConfig(**TINY))
    model.embeddings.word_embeddings.weight.data *= 50  # texts with the same words are similar
    model.save_pretrained(folder)
    tokenizer_files(folder)
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": f"{TYPE}Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{TYPE}Pooling"},
        ],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 512})
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 128, "pooling_mode_mean_tokens": True},
    )


def cross_encoder(cache: Path, name: str, num_labels: int, **fields: object) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    folder = snapshot(cache, name)
    config = BertConfig(**TINY, num_labels=num_labels)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer_files(folder)
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**saved, **fields})


def write_models(cache: Path) -> None:
    """Write the models that the tests use."""
    import torch

    torch.manual_seed(0)
    embedding_model(cache, "sentence-transformers-testing/stsb-bert-tiny-safetensors")
    testing = "cross-encoder-testing/reranker-bert-tiny-gooaq-bce"
    for name in (testing, f"{testing}-STv54"):
        cross_encoder(cache, name, 1)
    cross_encoder(cache, "cross-encoder/nli-MiniLM2-L6-H768", 3)
    tanh = "torch.nn.modules.activation.Tanh"
    cross_encoder(cache, f"{testing}-tanh-v3", 1, sbert_ce_default_activation_function=tanh)
    cross_encoder(cache, f"{testing}-tanh-v4", 1, sentence_transformers={"activation_fn": tanh})
    tokenizer_files(snapshot(cache, "google-bert/bert-base-uncased"))


def main(checkout: str, *arguments: str) -> int:
    tests = Path(checkout).resolve()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        write_models(cache)
        environment = os.environ | {
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        files = [str(tests / "tests" / name) for name in FILES]
        options = [
            "-p",
            "no:cacheprovider",
            "-q",
            "--tb=line",
            "-W",
            "default",
            "-m",
            "not custom",
            *arguments,
        ]
        command = [sys.executable, "-c", PROGRAM, *options, *files]
        return subprocess.run(command, cwd=tests, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
