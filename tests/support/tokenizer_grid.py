"""Tiny tokenizers of every class, and the possible settings of a folder's files. Token ids are compared with
transformers' for all combinations."""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from typing import NamedTuple

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.support.model_fixtures import write_files

BLANK = "\u2581"
WORDS = ["the", "cat", "sat", "on", "a", "mat", "'", "t", "don", "re", "3", "4", ".", ",", "!", "?"]
WORDS += ["hello", "Hello", "cafe", "café", "CAFE", "q", "x", "y", "漢", "字", "\u0130"]
LETTERS = "abcdefghijklmnopqrstuvwxyzéABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'<>|_[]/`\""
BRACKETS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ANGLES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# SentencePiece's table of "ﬁ" to "fi" and "①" to "1", as its trainer writes it.
CHARSMAP = base64.b64encode(zlib.decompress(base64.b64decode(
    b"eNod02WQ1gUQB+D/vBwzfMChDqS7GySkuwSkO0Ti8FS6UeA9QgEFpKVbj+6Q7hQkpLuVFpWu59iZZ3bmN/tlZ2eDiCAI"
    b"wvGCsRNCwbXqoeB6ZCiYHT8IQtJwRCgIlwniKrwkQSiIkRsPfyBISCIexoaCJHpikpGU5ETyISlIRUrSkJp0pCUD6clE"
    b"RrKQmWxkJQfZyUVO8pCbfOSlAPkpREE+ojBFKUJxilGCjylFSeJWKk05ylKB8lSiIlWoTDWqUoPq1OQTalOLOnxKPerS"
    b"gPo0oiFNaEwzmtKC5rSiJZ/Rms9pQzva0oH2dCSKaL7gK76kE1/Thc50oys96E4vetKH3vSjL9/QnwF8yyAGEhN3YIYw"
    b"mGEM5Xu+YwTD+YGRjOJHxjCasfzEeMYxkQlMZhJT+JlpTGUG05nFTOYwm3nMZQHz+ZVfWEgsi1nEUpawnGWsZAWrWcVa"
    b"1rCedfzGBjaxkS1sZhtb2cF2drGTPexmH3s5wH4OcZDD/M4fHOEYRznBcU7yJ6c5xVnOcJ5zXOQCl7nEVa5wnWvc5Aa3"
    b"ucXf/MVd7nCfe3G/xwP+4RH/8pj/+Y+nPOE5z3jJC17zire8ef97hYKo6OAdmOWKZw=="
))).decode()  # fmt: skip

TEXTS = [
    "The cat sat on a mat. Hello CAFÉ café, don't!",
    "  two  blanks\tand tabs\n\n lines \r\n",
    "漢字 kanji 漢, İ ﬁ ① 34 ''``",
    "a<mask>b <pad> [MASK] [CLS]x</s> <s> <unk> [UNK]<|endoftext|>",
    "<q> the<q>cat <Q> [r] x[r]y <extra_id_0> \u2581the",
    "",
    " ",
    "the",
    "\U0001f600 \u0645\u0631\u062d\u0628\u0627 \u00a0x\u200b",
]  # fmt: skip
PAIRS = [("the cat", "sat on"), ("", "a mat "), ("Hello<q> ", "")]
SAMPLE = "The CAFÉ  don't ﬁ 漢\n <q> a<mask>b<Q>[r] </s> "
SAMPLE_PAIR = ("the<q> cat", "[r]sat ")


class Kind(NamedTuple):
    """model_type, tokenizer_class: as in the files. make: tokenizer.json. old: the files with the vocabulary
    if there is none. first: a SentencePiece model's pieces before the others."""

    model_type: str
    tokenizer_class: str | None
    make: object
    old: str | None = None
    first: tuple[str, ...] = ()


def wordpiece(special, unknown="[UNK]"):
    pieces = [*WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*special, *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_level(special):
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("e", "d"),
        ("Ġ", "c"),
        ("a", "t"),
        ("Ġc", "at"),
    ]
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer  # fmt: skip


def unigram(special, unknown):
    pieces = [*(BLANK + word for word in WORDS), BLANK, *LETTERS, "at", "he", " "]
    scored = [(piece, -1.0 - i / 8) for i, piece in enumerate(pieces) if piece not in special]
    vocabulary = [*((token, 0.0) for token in special), *scored]
    tokenizer = Tokenizer(models.Unigram(vocabulary, special.index(unknown)))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return tokenizer


def byte_fallback(special, unknown):
    merges = [
        ("t", "h"),
        ("th", "e"),
        (BLANK, "the"),
        ("a", "t"),
        (BLANK, "c"),
        (BLANK + "c", "at"),
    ]
    tokens = [
        *special,
        *(f"<0x{i:02X}>" for i in range(256)),
        BLANK,
        *LETTERS,
        *map("".join, merges),
    ]
    ids = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(
        models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)]
    )
    return tokenizer  # fmt: skip


def definition(tokenizer, special, frame=None):
    """tokenizer.json. frame: the special tokens around a text and a pair."""
    tokenizer.add_special_tokens(special)
    if frame is not None:
        ids = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=frame[0], pair=frame[1], special_tokens=ids
        )
    return json.loads(tokenizer.to_str())


BERT_FRAME = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
ROBERTA_FRAME = ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
T5 = ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"]
ALBERT = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
CAMEMBERT = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
MPNET = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]


def bert_json():
    return definition(wordpiece(BRACKETS), BRACKETS, BERT_FRAME)


def roberta_json():
    return definition(byte_level(ANGLES), ANGLES, ROBERTA_FRAME)


def xlm_roberta_json():
    return definition(unigram(ANGLES, "<unk>"), ANGLES, ROBERTA_FRAME)


KINDS = {
    "BERT": Kind("bert", "BertTokenizer", bert_json, "vocab.txt"),
    "BERT, no class": Kind("bert", None, bert_json, "vocab.txt"),
    "BERT, generic": Kind("bert", "PreTrainedTokenizerFast", bert_json),
    "BERT as XLM-R": Kind("bert", "XLMRobertaTokenizer", xlm_roberta_json),
    "DistilBERT": Kind("distilbert", "DistilBertTokenizer", bert_json, "vocab.txt"),
    "MPNet": Kind("mpnet", "MPNetTokenizerFast", lambda: definition(wordpiece(MPNET), MPNET, ROBERTA_FRAME), "vocab.txt"),
    "RoBERTa": Kind("roberta", "RobertaTokenizerFast", roberta_json, "vocab.json"),
    "CamemBERT": Kind("camembert", "CamembertTokenizer", lambda: definition(unigram(CAMEMBERT, "<unk>"), CAMEMBERT, ROBERTA_FRAME), "sentencepiece.bpe.model", ("<unk>", "<s>", "</s>")),
    "XLM-R": Kind("xlm-roberta", "XLMRobertaTokenizerFast", xlm_roberta_json, "sentencepiece.bpe.model", ("<unk>", "<s>", "</s>")),
    "GTE": Kind("gte", None, xlm_roberta_json),
    "NomicBERT": Kind("nomic_bert", "BertTokenizer", bert_json),
    "ModernBERT": Kind("modernbert", "PreTrainedTokenizerFast", lambda: definition(byte_level(BRACKETS), BRACKETS, BERT_FRAME)),
    "ModernBERT, wrong class": Kind("modernbert", "BertTokenizer", lambda: definition(byte_level(BRACKETS), BRACKETS, BERT_FRAME)),
    "Qwen2": Kind("qwen2", "Qwen2Tokenizer", lambda: definition(byte_level(QWEN), QWEN, ("$A <|endoftext|>", "$A $B:1 <|endoftext|>:1"))),
    "Qwen2, wrong class": Kind("qwen2", "PreTrainedTokenizerFast", lambda: definition(byte_level(QWEN), QWEN)),
    "Qwen3": Kind("qwen3", "Qwen2Tokenizer", lambda: definition(byte_level(QWEN), QWEN, ("$A <|endoftext|>", "$A $B <|endoftext|>")), "vocab.json"),
    "Qwen3, generic": Kind("qwen3", "PreTrainedTokenizerFast", lambda: definition(byte_level(QWEN), QWEN)),
    "Llama": Kind("llama", "LlamaTokenizerFast", lambda: definition(byte_fallback(ANGLES, "<unk>"), ANGLES, ("<s> $A", "<s> $A <s> $B:1")), "tokenizer.model", ("<unk>", "<s>", "</s>")),
    "Llama, byte level": Kind("llama", "LlamaTokenizerFast", lambda: definition(byte_level(ANGLES), ANGLES, ("<s> $A", "<s> $A <s> $B:1"))),
    "EuroBERT": Kind("eurobert", "PreTrainedTokenizerFast", lambda: definition(byte_level(ANGLES), ANGLES, ROBERTA_FRAME)),
    "Gemma": Kind("gemma3_text", "GemmaTokenizer", lambda: definition(byte_fallback(GEMMA, "<unk>"), GEMMA, ("<bos> $A <eos>", "<bos> $A <eos> <bos> $B:1 <eos>:1")), "tokenizer.model", ("<pad>", "<eos>", "<bos>", "<unk>")),
    "T5": Kind("t5", "T5Tokenizer", lambda: definition(unigram(T5, "<unk>"), T5, ("$A </s>", "$A </s> $B </s>")), "spiece.model", ("<pad>", "</s>", "<unk>")),
    "DeBERTa-v2": Kind("deberta-v2", "DebertaV2Tokenizer", lambda: definition(unigram(BRACKETS, "[UNK]"), BRACKETS, BERT_FRAME), "spm.model", ("[PAD]", "[CLS]", "[SEP]", "[UNK]")),
    "ELECTRA": Kind("electra", "ElectraTokenizerFast", bert_json, "vocab.txt"),
    "ALBERT": Kind("albert", "AlbertTokenizer", lambda: definition(unigram(ALBERT, "<unk>"), ALBERT, BERT_FRAME), "spiece.model", ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
    "ALBERT, no frame": Kind("albert", "AlbertTokenizer", lambda: definition(unigram(ALBERT, "<unk>"), ALBERT)),
    "GPT-2": Kind("eurobert", "GPT2Tokenizer", lambda: definition(byte_level(QWEN), QWEN), "vocab.json"),
}  # fmt: skip

X = {"content": "<q>", "lstrip": True, "rstrip": False, "normalized": True, "single_word": False}
FLAGS = [
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "add_prefix_space",
    "keep_accents",
    "split_by_punct",
    "legacy",
    "add_bos_token",
    "add_eos_token",
    "split_special_tokens",
]
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


def variants():
    """Files by name: fields of tokenizer_config.json, or contents of the older files. A function changes
    tokenizer.json."""
    found = {"as it is": {}, "no tokenizer_config.json": {CONFIG: None}}
    for flag in FLAGS:
        for value in (True, False):
            found[f"{flag} {value}"] = {CONFIG: {flag: value}}
    found |= {
        "extra tokens": {CONFIG: {"extra_special_tokens": ["<q>", "[r]"]}},
        "extra tokens of old": {CONFIG: {"additional_special_tokens": ["<q>", "[r]"]}},
        "both": {CONFIG: {"additional_special_tokens": ["<q>"], "extra_special_tokens": ["[r]"]}},
        "extra tokens by name": {CONFIG: {"extra_special_tokens": {"q_token": "<q>", "r_token": "[r]"}}},
        "a role of its own": {CONFIG: {"q_token": "<q>", "r_token": {"__type": "AddedToken", **X}}},
        "another end": {CONFIG: {"eos_token": "<q>"}},
        "another start": {CONFIG: {"cls_token": "<q>", "bos_token": "[r]"}},
        "roles with settings": {CONFIG: {"sep_token": {"__type": "AddedToken", **X}}},
        "another mask": {CONFIG: {"mask_token": "[r]", "pad_token": "<q>"}},
        "a token of two roles": {CONFIG: {"q_token": "<q>", "r_token": {"__type": "AddedToken", **X}, "pad_token": "<q>"}},
        "a token of three roles": {CONFIG: {"cls_token": "<q>", "r_token": {"__type": "AddedToken", **X}, "q_token": "<q>"}},
        "settings and added_tokens.json": {CONFIG: {"sep_token": {"__type": "AddedToken", **X}}, ADDED: {"<q>": 998}},
        "added tokens": {CONFIG: {"added_tokens_decoder": {"999": X, "998": {**X, "content": "[r]", "special": True}}}},
        "added and a map": {CONFIG: {"added_tokens_decoder": {"999": X}, "sep_token": "<q>"}, MAP: {"sep_token": "[r]"}},
        "a map": {MAP: {"sep_token": "<q>", "cls_token": {**X, "content": "[r]"}}},
        "a map with extra tokens": {MAP: {"additional_special_tokens": ["<q>", "[r]"]}},
        "a map with new extra tokens": {MAP: {"extra_special_tokens": ["<q>", "[r]"]}},
        "a map over a list": {CONFIG: {"additional_special_tokens": ["<q>"]}, MAP: {"additional_special_tokens": ["[r]"]}},
        "a map and named extra tokens": {MAP: {"extra_special_tokens": {"q_token": "<q>"}, "r_token": "[r]"}},
        "added_tokens.json": {ADDED: {"<q>": 998, "[r]": 997}},
        "added_tokens.json, special": {CONFIG: {"eos_token": "<q>"}, ADDED: {"<q>": 998, "[r]": 997}},
        "all older files": {MAP: {"eos_token": "<q>", "unk_token": "<unk>"}, ADDED: {"[r]": 999, "<q>": 998}},
        "no token types": {CONFIG: {"model_input_names": ["input_ids", "attention_mask"]}},
        "token types": {CONFIG: {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}},
        "cut on the left": {CONFIG: {"truncation_side": "left"}},
        "padding on the left": {CONFIG: {"padding_side": "left"}},
        "code of its own": {CONFIG: {"auto_map": {"AutoTokenizer": ["x.X", None]}}},
        "normalizer of its own": {"tokenizer.json": lambda d: {**d, "normalizer": {"type": "NFD"}}},
        "no normalizer": {"tokenizer.json": lambda d: {**d, "normalizer": None}},
        "lower case in tokenizer.json": {"tokenizer.json": lambda d: {**d, "normalizer": bert_normalizer(True, False)}},
        "accents stripped in tokenizer.json": {"tokenizer.json": lambda d: {**d, "normalizer": bert_normalizer(False, True)}},
        "pre-tokenizer of its own": {"tokenizer.json": lambda d: {**d, "pre_tokenizer": {"type": "Whitespace"}}},
        "no frame": {"tokenizer.json": lambda d: {**d, "post_processor": None}},
        "no added tokens": {"tokenizer.json": lambda d: {**d, "added_tokens": []}},
        "padding and truncation": {"tokenizer.json": with_truncation},
        "a table of characters": {"tokenizer.json": lambda d: {**d, "normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}}},
    }  # fmt: skip
    return found


def bert_normalizer(lowercase, strip_accents):
    return {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": False,
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }


def with_truncation(parsed):
    truncation = {"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": "BatchLongest",
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": parsed["added_tokens"][0]["content"],
    }
    return {**parsed, "truncation": truncation, "padding": padding}


VARIANTS = variants()
# Kinds that differ from others only by their class.
BY_CLASS = {
    "BERT, no class",
    "DistilBERT",
    "GTE",
    "NomicBERT",
    "ELECTRA",
    "ModernBERT, wrong class",
    "Qwen2, wrong class",
    "Qwen3, generic",
}
FEW = ("as it is", "no tokenizer_config.json", "do_lower_case False", "a map", "no token types")
CASES = [(k, v) for k in KINDS for v in (FEW if k in BY_CLASS else VARIANTS)]
# Without tokenizer.json.
OLD_CASES = [
    (kind, variant)
    for kind, variant in CASES
    if KINDS[kind].old
    and "tokenizer.json" not in VARIANTS[variant]
    and (variant in FEW or kind not in ("GPT-2", "Qwen3"))
    # The generic class does not read SentencePiece models; Llama has that class by its model type.
    and (kind, variant) != ("Llama", "no tokenizer_config.json")
]


@cache
def _made(kind):
    return KINDS[kind].make()


def write_folder(folder, kind, variant, *, old=False):
    """Write a folder with the files of a tokenizer and config.json. old: without tokenizer.json."""
    model_type, name, *_ = KINDS[kind]
    changes = dict(VARIANTS[variant])
    parsed = changes.pop("tokenizer.json", lambda d: d)(_made(kind))
    contents = {"config.json": {"model_type": model_type}}
    contents |= older_files(KINDS[kind], parsed) if old else {"tokenizer.json": parsed}
    settings = {} if name is None else {"tokenizer_class": name}
    config = changes.pop(CONFIG, {})
    if config is not None:
        contents[CONFIG] = {**settings, **config}
    write_files(folder, contents | changes)
    return folder


def older_files(kind, parsed):
    """The vocabulary in the files from before tokenizer.json."""
    model = parsed["model"]
    if kind.old == "vocab.txt":
        return {kind.old: "\n".join(model["vocab"]) + "\n"}
    if kind.old == "vocab.json":
        merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"])
        return {kind.old: model["vocab"], "merges.txt": merges}
    special = {token["content"] for token in parsed["added_tokens"]}
    return {kind.old: piece_model(kind.first, model, special)}


def piece_model(first, model, special):
    """A SentencePiece model: these special pieces, then the normal ones of tokenizer.json's model."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    unigram = isinstance(model["vocab"], list)
    scored = model["vocab"] if unigram else [(token, -i) for token, i in model["vocab"].items()]
    scored = [(token, score) for token, score in scored if token not in special]
    unknown = next(token for token in first if "unk" in token.lower())
    for token in first:
        proto.pieces.add(piece=token, score=0.0, type=2 if token == unknown else 3)
    for token, score in [*scored, ("[r]", 0.0)]:
        proto.pieces.add(piece=token, score=score, type=4 if token == "[r]" else 1)
    proto.trainer_spec.model_type = 1 if unigram else 2
    proto.trainer_spec.unk_id = first.index(unknown)
    proto.trainer_spec.byte_fallback = not unigram
    proto.normalizer_spec.precompiled_charsmap = base64.b64decode(CHARSMAP)
    return proto.SerializeToString()
