"""Small models of every architecture with random weights: folders as transformers saves them, each with
a tokenizer of its family, and the oracle's vectors of texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import oracle
from model_fixtures import LETTERS, config_json, tokenizer_json, write_model
from oracle_positions import roberta_position_ids, t5_bias
from tiny_bert import Config, random_weights

TINY = Config()
WIDE = Config(hidden_size=160, num_heads=5, intermediate_size=320)
# The third is cut by a limit, the fifth one token without the special ones, the last spells <pad>.
TEXTS = [
    "a cab",
    "deed",
    "the quick brown fox jumps over the lazy dog " * 9,
    "",
    "z",
    "fed <pad> bed <pad> <pad> ebb",
]

# From the tensors of BERT to those of the architecture.
DISTILBERT_NAMES = (
    ("encoder.layer", "transformer.layer"),
    ("attention.self.query", "attention.q_lin"),
    ("attention.self.key", "attention.k_lin"),
    ("attention.self.value", "attention.v_lin"),
    ("attention.output.dense", "attention.out_lin"),
    ("attention.output.LayerNorm", "sa_layer_norm"),
    ("intermediate.dense", "ffn.lin1"),
    ("output.dense", "ffn.lin2"),
    ("output.LayerNorm", "output_layer_norm"),
)
MPNET_NAMES = (
    ("attention.self.query", "attention.attn.q"),
    ("attention.self.key", "attention.attn.k"),
    ("attention.self.value", "attention.attn.v"),
    ("attention.output.dense", "attention.attn.o"),
    ("attention.output.LayerNorm", "attention.LayerNorm"),
)
RELATIVE_BIAS = "encoder.relative_attention_bias.weight"


def wordpiece_json():
    """MPNet's: BERT's letters, RoBERTa's special tokens."""
    definition = tokenizer_json()
    special = {"[CLS]": "<s>", "[PAD]": "<pad>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    # <s>, <pad> and </s> are 0, 1 and 2, as in every model of this family.
    ids = {"<s>": 0, "<pad>": 1, "</s>": 2, "[UNK]": 3, "<mask>": 4}
    vocabulary = {special.get(token, token): i for token, i in definition["model"]["vocab"].items()}
    tokenizer = Tokenizer(models.WordPiece({**vocabulary, **ids}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return roberta_special(tokenizer, list(ids))


def byte_level_json():
    """RoBERTa's: bytes, and a few merges of them."""
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("e", "d")]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokens += sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return roberta_special(tokenizer, tokens[:5])


def unigram_json(special=("<s>", "<pad>", "</s>", "<unk>", "<mask>")):
    """XLM-RoBERTa's and CamemBERT's: SentencePiece's pieces."""
    pieces = [*LETTERS, *(f"\u2581{letter}" for letter in LETTERS), "\u2581", "\u2581the", "ed"]
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(piece, -3.0 / len(piece)) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    return roberta_special(tokenizer, list(special))


def camembert_json():
    return unigram_json(("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<s>", "</s>", "<mask>"))


def roberta_special(tokenizer, special):
    """<s> and </s> around a text; a truncation and a padding that are not ours."""
    tokenizer.add_special_tokens(special)
    first, last = (tokenizer.token_to_id(token) for token in ("<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=9)
    return json.loads(tokenizer.to_str())


def bert_config(config):
    return config_json(config)


def roberta_config(config):
    return config_json(config, pad_token_id=1, bos_token_id=0, eos_token_id=2)


def mpnet_config(config):
    fields = roberta_config(config) | {"relative_attention_num_buckets": 32}
    return {name: value for name, value in fields.items() if name != "type_vocab_size"}


def distilbert_config(config):
    return {
        "model_type": "distilbert",
        "activation": config.activation,
        "dim": config.hidden_size,
        "hidden_dim": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "n_heads": config.num_heads,
        "n_layers": config.num_layers,
        "pad_token_id": 0,
        "sinusoidal_pos_embds": False,
        "vocab_size": config.vocab_size,
    }


@dataclass(frozen=True)
class Architecture:
    """What distinguishes one from BERT. prefix: of its task models' tensors."""

    model_type: str
    prefix: str
    heads: tuple[str, ...]
    config: Callable
    tokenizer: Callable
    num_token_types: int = 0
    padding_idx: int | None = None
    eps: float = 1e-12
    names: tuple[tuple[str, str], ...] = ()
    relative: bool = False

    @property
    def max_positions(self):
        """The longest text that a tiny model has positions for."""
        return TINY.max_positions - (0 if self.padding_idx is None else self.padding_idx + 1)

    @property
    def pad_token(self):
        return "[PAD]" if self.padding_idx is None else "<pad>"

    def sized(self, config):
        """The config with the vocabulary of the tokenizer, and the norms' epsilon."""
        vocabulary = Tokenizer.from_str(json.dumps(self.tokenizer())).get_vocab_size()
        return replace(config, vocab_size=vocabulary, eps=self.eps)

    def fields(self, config=TINY, **changes):
        """config.json."""
        types = {"type_vocab_size": self.num_token_types} if self.num_token_types else {}
        fields = self.config(self.sized(config)) | types
        return {**fields, "model_type": self.model_type, **changes}

    def weights(self, config=TINY):
        """By BERT's names, as the oracle reads them; the relative bias by its own."""
        weights = random_weights(self.sized(config))
        types = "embeddings.token_type_embeddings.weight"
        weights[types] = weights[types][: self.num_token_types]
        if self.num_token_types == 0:
            del weights[types]
        if self.relative:
            table = np.random.default_rng(2).standard_normal((32, config.num_heads))
            weights[RELATIVE_BIAS] = table.astype(np.float32)
        return weights

    def renamed(self, weights):
        """By the architecture's own names."""
        renamed = {}
        for name, tensor in weights.items():
            own = name
            for old, new in self.names:
                own = own.replace(old, new)
            renamed[own] = tensor
        return renamed

    def write(self, folder, config=TINY, *, weights=None, files=None, **options):
        """A folder of at most 100 tokens a text, with mean pooling."""
        pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
        contents = {
            "config.json": self.fields(config),
            "tokenizer.json": self.tokenizer(),
            "tokenizer_config.json": {"model_max_length": 512, "pad_token": self.pad_token},
            "1_Pooling/config.json": pooling,
        }
        weights = self.renamed(self.weights(config)) if weights is None else weights
        return write_model(folder, weights=weights, files=contents | (files or {}), **options)

    def ids(self, text, limit=100):
        """As the tokenizers library itself gives them."""
        tokenizer = Tokenizer.from_str(json.dumps(self.tokenizer()))
        tokenizer.no_padding()
        tokenizer.enable_truncation(limit)
        return np.array(tokenizer.encode(text).ids)

    def states(self, text, config=TINY, limit=100):
        """The oracle's token vectors of one text: float64 (tokens, hidden_size)."""
        ids, weights = self.ids(text, limit), self.weights(config)
        cu_seqlens, padding_idx = np.array([0, len(ids)]), self.padding_idx
        positions = None
        if padding_idx is not None:
            positions = roberta_position_ids(ids, cu_seqlens, padding_idx)
        table = weights.get(RELATIVE_BIAS)
        return oracle.bert(
            ids,
            weights,
            cu_seqlens,
            config.num_layers,
            config.num_heads,
            eps=self.eps,
            positions=positions,
            bias=None if table is None else lambda length: t5_bias(table, length),
        )

    def pooled(self, texts, **options):
        """Means of the states: float64 (texts, hidden_size)."""
        return np.array([self.states(text, **options).mean(axis=0) for text in texts])


ROBERTA = Architecture(
    "roberta", "roberta.", ("lm_head.bias", "classifier.dense.weight"), roberta_config,
    byte_level_json, num_token_types=1, padding_idx=1, eps=1e-5,
)  # fmt: skip
ARCHITECTURES = [
    Architecture(
        "bert", "bert.", ("cls.predictions.bias", "pooler.dense.weight"), bert_config,
        tokenizer_json, num_token_types=2,
    ),
    ROBERTA,
    replace(ROBERTA, model_type="xlm-roberta", tokenizer=unigram_json),
    replace(ROBERTA, model_type="camembert", tokenizer=camembert_json, num_token_types=2),
    Architecture(
        "distilbert", "distilbert.", ("vocab_transform.bias", "pre_classifier.weight"),
        distilbert_config, tokenizer_json, names=DISTILBERT_NAMES,
    ),
    Architecture(
        "mpnet", "mpnet.", ("lm_head.bias", "pooler.dense.weight"), mpnet_config, wordpiece_json,
        padding_idx=1, eps=1e-5, names=MPNET_NAMES, relative=True,
    ),
]  # fmt: skip
BY_NAME = {architecture.model_type: architecture for architecture in ARCHITECTURES}
