"""Model folders as sentence-transformers saves them: tiny BERTs with random weights and a tokenizer
that knows the letters. Every file can be replaced, so that damage is easy to write."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests import oracle
from tests.support.bert_weights import Config, random_weights

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "0", "1", "2", "3"]

TINY = Config()
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
TEXTS = ["a cab", "deed", "", "the quick brown fox jumps over the lazy dog", "z"]

# Two layers of a width of 20 in float32 against float64; the values are of order one.
CLOSE = {"rtol": 0, "atol": 5e-6}
assert len(VOCABULARY) == TINY.vocab_size

OLD_TYPES = {
    kind: f"sentence_transformers.models.{kind}"
    for kind in ("Transformer", "Pooling", "Dense", "Normalize")
}
NEW_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


def tokenizer_json():
    """A WordPiece tokenizer over the letters, saved with a truncation and a padding of its own."""
    vocabulary = {token: i for i, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    return json.loads(tokenizer.to_str())


def config_json(config=TINY, **changes):
    """A config.json as transformers writes it."""
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_act": config.activation,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.eps,
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": config.vocab_size,
        **changes,
    }


def modules_json(kinds, types=OLD_TYPES):
    return [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": types[kind],
        }
        for i, kind in enumerate(kinds)
    ]


def write_files(folder, files):
    """Write name -> content: dicts and lists as JSON, bytes and str as they are, None not at all."""
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content) if isinstance(content, (dict, list)) else content
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))


def write_model(
    folder, *, weights=None, kinds=("Transformer", "Pooling"), types=OLD_TYPES, files=None
):
    """A model folder: mean pooling, at most 100 tokens a text. `files` adds to or replaces its
    files, by path."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(random_weights() if weights is None else weights, folder / "model.safetensors")
    pooling = {"word_embedding_dimension": TINY.hidden_size, "pooling_mode_mean_tokens": True}
    contents = {
        "config.json": config_json(),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": {"model_max_length": 512, "pad_token": "[PAD]"},
        "sentence_bert_config.json": {"max_seq_length": 100, "do_lower_case": False},
        "modules.json": modules_json(kinds, types),
        "1_Pooling/config.json": pooling,
    }
    write_files(folder, contents | (files or {}))
    return folder


def write_dense(folder, in_features, out_features, *, seed=1, bias=True, **changes):
    """A Dense module. Returns its weight and bias."""
    rng = np.random.default_rng(seed)
    tensors = {
        "linear.weight": rng.standard_normal((out_features, in_features)).astype(np.float32),
        "linear.bias": rng.standard_normal(out_features).astype(np.float32),
    }
    if not bias:
        del tensors["linear.bias"]
    config = {
        "in_features": in_features,
        "out_features": out_features,
        "bias": bias,
        "activation_function": "torch.nn.modules.activation.Tanh",
        **changes,
    }
    write_files(folder, {"config.json": config})
    save_file(tensors, folder / "model.safetensors")
    return tensors["linear.weight"], tensors.get("linear.bias")


def letter_ids(text, limit=None):
    """The ids that the tokenizer gives a text of letters and blanks, worked out by hand."""
    ids = [2]
    for word in text.lower().split():
        ids += [VOCABULARY.index(word[0]), *(VOCABULARY.index(f"##{c}") for c in word[1:])]
    if limit is not None:
        ids = ids[: limit - 1]
    return [*ids, 3]


def expected_states(text, weights=None, config=TINY, limit=None):
    """The oracle's token vectors of one text: float64 (tokens, hidden_size)."""
    ids = np.array(letter_ids(text, limit))
    return oracle.bert(
        ids,
        random_weights() if weights is None else weights,
        np.array([0, len(ids)]),
        config.num_layers,
        config.num_heads,
        activation=config.activation,
    )


def pooled(texts, modes=("mean",), start=0, **options):
    rows = []
    for text in texts:
        states = expected_states(text, **options)
        rows.append(oracle.pool_sequences(modes, states, [0, len(states)], start)[0])
    return np.array(rows)


PAIRS = [
    ("a cab", "the quick brown fox"),
    ("deed", ""),
    ("", "jumps over the lazy dog"),
    ("", ""),
    ("the quick brown fox jumps over", "z"),
]


def classifier_weights(num_labels=1, seed=3):
    """A BertForSequenceClassification's tensors; logits of a few units."""
    rng = np.random.default_rng(seed)
    d = TINY.hidden_size
    head = {
        "bert.pooler.dense.weight": rng.standard_normal((d, d)) * d**-0.5,
        "bert.pooler.dense.bias": rng.standard_normal(d) * 0.1,
        "classifier.weight": rng.standard_normal((num_labels, d)),
        "classifier.bias": rng.standard_normal(num_labels) * 0.1,
    }
    encoder = {f"bert.{name}": tensor for name, tensor in random_weights().items()}
    return encoder | {name: tensor.astype(np.float32) for name, tensor in head.items()}


def write_cross_encoder(folder, num_labels=1, *, weights=None, files=None, **config):
    """A folder as transformers saves a BertForSequenceClassification; config adds to config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = classifier_weights(num_labels) if weights is None else weights
    save_file(weights, folder / "model.safetensors")
    labels = {str(i): f"LABEL_{i}" for i in range(num_labels)}
    architectures = ["BertForSequenceClassification"]
    contents = {
        "config.json": config_json(**{"architectures": architectures, "id2label": labels} | config),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": {"model_max_length": 100, "pad_token": "[PAD]"},
    }
    write_files(folder, contents | (files or {}))
    return folder


def expected_logits(pairs, num_labels=1):
    """The oracle's logits of short pairs: float64 (n, num_labels)."""
    w = classifier_weights(num_labels)
    encoder = {name.removeprefix("bert."): tensor for name, tensor in w.items()}
    rows = []
    for first, second in pairs:
        ids = [*letter_ids(first), *letter_ids(second)[1:]]
        types = np.arange(len(ids)) >= len(letter_ids(first))
        states = oracle.bert(
            np.array(ids),
            encoder,
            np.array([0, len(ids)]),
            TINY.num_layers,
            TINY.num_heads,
            token_type_ids=types.astype(int),
            activation=TINY.activation,
        )
        hidden = np.tanh(
            oracle.linear(states[:1], w["bert.pooler.dense.weight"], w["bert.pooler.dense.bias"])
        )
        rows.append(oracle.linear(hidden, w["classifier.weight"], w["classifier.bias"])[0])
    return np.array(rows)
