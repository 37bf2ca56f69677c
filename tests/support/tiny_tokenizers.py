"""Tiny tokenizers, one of each family: tokenizer.json as saved by transformers."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.support.model_fixtures import LETTERS, tokenizer_json


def wordpiece_json():
    """MPNet's tokenizer: BERT's letters, RoBERTa's special tokens."""
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
    """RoBERTa's tokenizer: bytes, and a few merges of them."""
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("e", "d")]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokens += sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return roberta_special(tokenizer, tokens[:5])


def unigram(special):
    """A SentencePiece model's pieces."""
    pieces = [*LETTERS, *(f"\u2581{letter}" for letter in LETTERS), "\u2581", "\u2581the", "ed"]
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(piece, -3.0 / len(piece)) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    return tokenizer


def unigram_json(special=("<s>", "<pad>", "</s>", "<unk>", "<mask>")):
    """The tokenizer of XLM-RoBERTa and CamemBERT."""
    return roberta_special(unigram(special), list(special))


def camembert_json():
    return unigram_json(("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<s>", "</s>", "<mask>"))


def t5_json():
    """T5's tokenizer: only </s> after a text."""
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = unigram(special)
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return json.loads(tokenizer.to_str())


def roberta_special(tokenizer, special):
    """<s> and </s> around a text, with a truncation and a padding that must be ignored."""
    tokenizer.add_special_tokens(special)
    first, last = (tokenizer.token_to_id(token) for token in ("<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", first), ("</s>", last)],
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=9)
    return json.loads(tokenizer.to_str())
