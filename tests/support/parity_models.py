"""Models of every architecture made by transformers, with random weights and trained tokenizers. Needs the
group parity."""

from __future__ import annotations

import json
from typing import NamedTuple

import tokenizers
from tokenizers import models, pre_tokenizers, processors, trainers

SIZES = {
    "vocab_size": 700,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "max_position_embeddings": 302,
}
ROBERTA = {**SIZES, "layer_norm_eps": 1e-5, "type_vocab_size": 1}
DISTILBERT = {
    "vocab_size": 700,
    "dim": 96,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 192,
    "max_position_embeddings": 302,
}
T5 = {
    "vocab_size": 700,
    "d_model": 96,
    "d_kv": 16,
    "d_ff": 192,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
DEBERTA = {
    **SIZES,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 32,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}
# Token ids inside the small vocabulary; the defaults are those of the published models.
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BRACKETS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


class Kind(NamedTuple):
    """stem: of transformers' class names. fields: of config.json. tokenizer: its kind, and its class if that
    has another stem. named, frame: the roles of special tokens, and the tokens around a text or a pair, if
    the class does not define them. task: the task class of transformers. longest: maximum length in tokens.
    has_head: whether a classification head is known."""

    stem: str
    fields: dict
    tokenizer: str
    tokenizer_class: str | None = None
    special: tuple[str, ...] = ROBERTA_SPECIAL
    named: dict | None = None
    frame: tuple[str, str] | None = None
    task: str = "ForMaskedLM"
    longest: int = 302
    has_head: bool = True


GROUPED = {**SIZES, **IDS, "num_key_value_heads": 2}
QWEN3 = Kind(
    "Qwen3",
    {**GROUPED, "num_attention_heads": 6, "head_dim": 24},
    "byte level",
    "Qwen2Tokenizer",
    special=("<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    named={"pad_token": "<pad>"},
    frame=("$A <|endoftext|>", "$A $B <|endoftext|>"),
    task="ForCausalLM",
)
GEMMA = {
    **GROUPED,
    "num_hidden_layers": 4,
    "head_dim": 16,
    "query_pre_attn_scalar": 20,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
KINDS = {
    "bert": Kind("Bert", SIZES, "wordpiece", special=BERT_SPECIAL),
    "electra": Kind(
        "Electra",
        {**SIZES, "embedding_size": 48},
        "wordpiece",
        "BertTokenizer",
        special=BERT_SPECIAL,
    ),
    "albert": Kind(
        "Albert",
        {**SIZES, **IDS, "embedding_size": 48},
        "unigram",
        special=("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
    ),
    "albert, groups": Kind(
        "Albert",
        {**SIZES, **IDS, "num_hidden_groups": 2, "inner_group_num": 2, "embedding_size": 96},
        "unigram",
        special=("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
    ),
    "roberta": Kind("Roberta", ROBERTA, "byte level", longest=300),
    "xlm-roberta": Kind("XLMRoberta", {**SIZES, "layer_norm_eps": 1e-5}, "unigram", longest=300),
    "camembert": Kind("Camembert", {**ROBERTA, "pad_token_id": 1}, "unigram", longest=300),
    "distilbert": Kind("DistilBert", DISTILBERT, "wordpiece", special=BERT_SPECIAL),
    "distilbert, sinusoidal": Kind(
        "DistilBert",
        {**DISTILBERT, "sinusoidal_pos_embds": True},
        "wordpiece",
        special=BERT_SPECIAL,
    ),
    "mpnet": Kind(
        "MPNet",
        SIZES,
        "wordpiece",
        special=("<s>", "<pad>", "</s>", "[UNK]", "<mask>"),
        longest=300,
    ),
    "modernbert": Kind(
        "ModernBert",
        {**SIZES, **IDS, "num_hidden_layers": 4, "local_attention": 32},
        "byte level",
        "PreTrainedTokenizerFast",
        special=BERT_SPECIAL,
        named={"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        frame=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"),
    ),
    "nomic_bert": Kind("NomicBert", SIZES, "wordpiece", "BertTokenizer", special=BERT_SPECIAL),
    "gte": Kind("Gte", SIZES, "unigram", "XLMRobertaTokenizer"),
    "qwen3": QWEN3,
    "qwen2": QWEN3._replace(stem="Qwen2", fields=GROUPED),
    "llama, both ways": QWEN3._replace(stem="Llama", fields={**GROUPED, "is_causal": False}),
    "mistral": QWEN3._replace(stem="Mistral", fields={**GROUPED, "sliding_window": 20}),
    "gemma": QWEN3._replace(stem="Gemma", fields={**GROUPED, "head_dim": 16}),
    "gemma3_text": QWEN3._replace(
        stem="Gemma3Text",
        fields={**GEMMA, "use_bidirectional_attention": True},
        task="Gemma3ForCausalLM",
    ),
    "gemma3_text, causal": QWEN3._replace(
        stem="Gemma3Text", fields=GEMMA, task="Gemma3ForCausalLM"
    ),
    "deberta-v2": Kind("DebertaV2", DEBERTA, "unigram", special=BRACKETS),
    "deberta-v2, apart": Kind(
        "DebertaV2",
        {
            **DEBERTA,
            "share_att_key": False,
            "position_buckets": -1,
            "norm_rel_ebd": "none",
            "position_biased_input": True,
            "type_vocab_size": 2,
        },
        "unigram",
        special=BRACKETS,
    ),
    "jina_embeddings_v3": Kind(
        "JinaEmbeddingsV3",
        {**SIZES, "layer_norm_eps": 1e-5, "pad_token_id": 1},
        "unigram",
        "XLMRobertaTokenizer",
    ),
    "t5": Kind(
        "T5",
        T5,
        "unigram",
        special=("<pad>", "</s>", "<unk>"),
        task="ForConditionalGeneration",
        named={"model_max_length": 302},
        has_head=False,
    ),
    "eurobert": Kind(
        "EuroBert",
        GROUPED,
        "byte level",
        "PreTrainedTokenizerFast",
        special=("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
        named={"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"},
        frame=("<s> $A </s>", "<s> $A </s> $B </s>"),
    ),
}

# Architectures that are compared. ernie has the code of bert, and new that of gte.
COMPARED = {name.partition(",")[0] for name in KINDS} | {"ernie", "new"}


def reference_model(transformers, folder, **options):
    """transformers' model of a folder; for an encoder-decoder, its encoder."""
    model = transformers.AutoModel.from_pretrained(folder, **options)
    return (model.encoder if model.config.model_type == "t5" else model).eval()


def trained(kind, texts):
    """A vocabulary of one kind, for transformers' tokenizer classes."""
    special = list(kind.special)
    if kind.tokenizer == "byte level":
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=650, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    elif kind.tokenizer == "unigram":
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        unknown = next(token for token in special if token.lower() in ("<unk>", "[unk]"))
        trainer = trainers.UnigramTrainer(
            vocab_size=650, special_tokens=special, unk_token=unknown, show_progress=False
        )
    else:
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=650, special_tokens=special, show_progress=False
        )
    tokenizer.train_from_iterator([text.lower() for text in texts], trainer)
    return tokenizer


def tokenizer_of(transformers, kind, texts):
    """A tokenizer of the architecture's class."""
    tokenizer = trained(kind, texts)
    name = kind.tokenizer_class or f"{kind.stem}Tokenizer"
    parsed = json.loads(tokenizer.to_str())["model"]
    if name == "PreTrainedTokenizerFast":
        content = {"tokenizer_object": tokenizer}
    elif kind.tokenizer == "unigram":
        # Short enough that all readers get the same number; otherwise ties may be broken differently.
        content = {"vocab": [(piece, round(score, 6)) for piece, score in parsed["vocab"]]}
    else:
        content = {"vocab": tokenizer.get_vocab()}
    if "vocab" in content and kind.tokenizer == "byte level":
        content["merges"] = [tuple(merge) for merge in parsed["merges"]]
    made = getattr(transformers, name)(**content, **(kind.named or {}))
    if kind.frame:
        single, pair = kind.frame
        ids = [(token, tokenizer.token_to_id(token)) for token in kind.special]
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=ids
        )
    return made


def randomize(model):
    """Weights for which every part has an effect; transformers' initial weights are near 0."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                is_table = "embed" in name or "relative" in name
                is_table &= "project" not in name and "mapping" not in name
                parameter.normal_(0, 0.5 if is_table else parameter.shape[1] ** -0.5)
                if "SelfAttention.q." in name:  # T5 does not scale its scores
                    parameter.mul_(model.config.d_kv**-0.5)
            else:
                is_norm = "norm.weight" in name.lower()
                start = parameter[0].item() if is_norm else 0.0  # Gemma's norms add 1 to weights
                parameter.normal_(0, 0.1).add_(start)


def save_plain(transformers, kind, texts, folder, **fields):
    """Save a model of one kind with transformers. fields: additional fields of config.json."""
    config = getattr(transformers, f"{kind.stem}Config")(**kind.fields, **fields)
    name = f"{kind.stem}Model" if kind.stem != "T5" else "T5EncoderModel"
    model = getattr(transformers, name)(config)
    if not kind.fields.get("sinusoidal_pos_embds"):
        randomize(model)
    model.save_pretrained(folder)
    tokenizer_of(transformers, kind, texts).save_pretrained(folder)
    return folder
