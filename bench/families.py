"""Every architecture compared with transformers: random models of one size, the same token ids.

    python bench/families.py [--only NAMES] [--rounds N] [--texts N] [--threads N] [--output STEM]

Models have 6 layers of 384 features and 12 heads, and one tokenizer, so that only the architecture differs.
"padded" is encode of texts of mixed lengths: sentence-transformers sorts them by length and pads batches of 32.
"equal" is the forward pass of batches of texts with equal lengths, which need no padding. In each round both
libraries run in turn; a ratio is the median of the rounds' ratios. transformers uses its attention "sdpa" where it
supports that. Results replace those of the same architectures in OUTPUT.json, and OUTPUT.md is made of it. Needs
the group parity.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, processors, trainers

import machine
import report
from texts import SEED, make_sets, standard_library_docstrings

VOCABULARY, LONGEST = 4000, 256
EQUAL = ((64, 16), (16, 64), (4, 256))  # texts and tokens of a batch
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 320,
    "pad_token_id": 0,
}
IDS = {"bos_token_id": 2, "eos_token_id": 3}
GATED = {**SIZES, **IDS, "intermediate_size": 1024}
DECODER = {**GATED, "num_key_value_heads": 4, "head_dim": 32}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SIZES),
    "electra": ("Electra", {**SIZES, "embedding_size": 384}),
    "ernie": ("Ernie", SIZES),
    "albert": ("Albert", {**SIZES, **IDS, "embedding_size": 128}),
    "roberta": ("Roberta", {**SIZES, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {**SIZES, "type_vocab_size": 1}),
    "camembert": ("Camembert", {**SIZES, "type_vocab_size": 1}),
    "distilbert": (
        "DistilBert",
        {**SIZES, "dim": 384, "n_layers": 6, "n_heads": 12, "hidden_dim": 1536},
    ),
    "mpnet": ("MPNet", SIZES),
    "deberta-v2": (
        "DebertaV2",
        {
            **SIZES,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 256,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
    ),
    "modernbert": ("ModernBert", {**GATED, "cls_token_id": 2, "sep_token_id": 3}),
    "nomic_bert": ("NomicBert", {**SIZES, "intermediate_size": 1024}),
    "gte": ("Gte", {**SIZES, "intermediate_size": 1024}),
    "jina_embeddings_v3": ("JinaEmbeddingsV3", SIZES),
    "eurobert": ("EuroBert", {**GATED, "num_key_value_heads": 4}),
    "qwen3": ("Qwen3", DECODER),
    "qwen2": ("Qwen2", DECODER),
    "llama": ("Llama", DECODER),
    "mistral": ("Mistral", DECODER),
    "gemma": ("Gemma", DECODER),
    "gemma3_text": ("Gemma3Text", {**DECODER, "query_pre_attn_scalar": 32}),
    "t5": (
        "T5",
        {
            "vocab_size": VOCABULARY,
            "d_model": 384,
            "d_kv": 32,
            "d_ff": 1024,
            "num_layers": 6,
            "num_heads": 12,
            "feed_forward_proj": "gated-gelu",
            "pad_token_id": 0,
        },
    ),
}

Call = Callable[[], object]


def train_tokenizer(docstrings: list[str]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(docstrings[:2000], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def save_model(name: str, tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """A model of one architecture with random weights, and its tokenizer."""
    import torch
    import transformers

    stem, fields = FAMILIES[name]
    torch.manual_seed(SEED)
    config = getattr(transformers, f"{stem}Config")(**fields)
    kind = "T5EncoderModel" if name == "t5" else f"{stem}Model"
    getattr(transformers, kind)(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def save_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """As transformers saves a tokenizer of the generic class."""
    import transformers

    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(roles, SPECIAL, strict=True)),
    ).save_pretrained(folder)


def reference(folder: Path) -> Any:
    """sentence-transformers' model of a folder, with the attention "sdpa" if it supports that."""
    from sentence_transformers import SentenceTransformer

    options = {"device": "cpu", "local_files_only": True}
    try:
        kwargs = {"attn_implementation": "sdpa"}
        return SentenceTransformer(str(folder), model_kwargs=kwargs, **options)
    except ValueError:
        return SentenceTransformer(str(folder), **options)


def ratio(ours: Call, theirs: Call, rounds: int) -> tuple[float, list[float]]:
    """Their time divided by ours: the median, and that of each round. Also our seconds per call."""
    times: list[tuple[float, float]] = []
    for index in range(rounds + 1):
        pair = []
        for call in (ours, theirs):
            start = time.perf_counter()
            call()
            pair.append(time.perf_counter() - start)
        if index > 0:  # the first round warms up
            times.append((pair[0], pair[1]))
    ratios = [theirs / ours for ours, theirs in times]
    return statistics.median(ratios), ratios


def equal_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids (texts, tokens) and cu_seqlens."""
    rng = np.random.default_rng(SEED)
    return [
        (
            rng.integers(len(SPECIAL), VOCABULARY, shape).astype(np.int32),
            np.arange(0, shape[0] * shape[1] + 1, shape[1], dtype=np.int32),
        )
        for shape in EQUAL
    ]


def measure(folder: Path, texts: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ratios of a model, and the largest difference of unit vectors."""
    import torch

    from simdformer import SentenceTransformer

    model, peer = SentenceTransformer(str(folder)), reference(folder)
    inner = peer[0].auto_model
    batches = equal_batches()
    tensors = [torch.from_numpy(ids.astype(np.int64)) for ids, _ in batches]

    def run_ours() -> None:
        for ids, cu_seqlens in batches:
            model.encoder(ids.reshape(-1), cu_seqlens)

    def run_theirs() -> None:
        with torch.inference_mode():
            for ids in tensors:
                inner(input_ids=ids)

    options = {"normalize_embeddings": True}
    difference = np.abs(model.encode(texts, **options) - peer.encode(texts, **options)).max()
    padded, padded_rounds = ratio(
        lambda: model.encode(texts), lambda: peer.encode(texts, batch_size=32), arguments.rounds
    )
    equal, equal_rounds = ratio(run_ours, run_theirs, arguments.rounds)
    return {
        "attention": inner.config._attn_implementation,
        "padded": padded,
        "padded_rounds": padded_rounds,
        "equal": equal,
        "equal_rounds": equal_rounds,
        "largest_difference": float(difference),
    }


def to_markdown(result: dict[str, Any]) -> str:
    header = ["architecture", "padded", "equal", "attention of transformers"]
    order = sorted(result["families"].items(), key=lambda item: item[1]["padded"])
    rows = [
        [name, report.figure(r["padded"]), report.figure(r["equal"]), r["attention"]]
        for name, r in order
    ]
    settings = result["settings"]
    title = (
        f"{result['machine']['cpu']}, {settings['threads']} threads: time of transformers divided by "
        f"that of simdformer, medians of {settings['rounds']} interleaved rounds, slowest first. "
        f"padded: {settings['texts']} texts of mixed lengths; equal: batches of equal lengths.\n"
    )
    return f"{title}\n{report.markdown_table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(FAMILIES), help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=machine.results("families"))
    arguments = parser.parse_args()
    machine.limit_to(arguments.threads)
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(arguments.threads)
    docstrings = standard_library_docstrings()
    tokenizer = train_tokenizer(docstrings)
    mixed = make_sets(docstrings, tokenizer, LONGEST, ("mixed",))["mixed"]
    texts = list(mixed.first(arguments.texts).texts)
    path = arguments.output.with_suffix(".json")
    known = json.loads(path.read_text())["families"] if path.exists() else {}
    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            save_model(name, tokenizer, Path(folder))
            known[name] = measure(Path(folder), texts, arguments)
        print(name, {k: v for k, v in known[name].items() if "rounds" not in k}, flush=True)
    settings = {"threads": arguments.threads, "rounds": arguments.rounds, "texts": len(texts)}
    described = machine.describe(("torch", "transformers", "sentence-transformers"))
    result = {"machine": described, "settings": settings, "families": known}
    report.write_text(path, json.dumps(result, indent=2) + "\n")
    report.write_text(arguments.output.with_suffix(".md"), to_markdown(result))


if __name__ == "__main__":
    main()
