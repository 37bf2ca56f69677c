# SPDX-License-Identifier: Apache-2.0
"""The tokenizer classes of transformers 5, and which one a model folder uses.

Source: transformers 5.24, models/auto/tokenization_auto.py and models/*/tokenization_*.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer, processors

from simdformer.text import sentencepiece_model
from simdformer.text import tokenizer_parts as parts
from simdformer.text.declared_tokens import Token
from simdformer.text.tokenizer_parts import ConfigFields, Numbered, Piece, Source


class TokenizerClass(NamedTuple):
    """A tokenizer class.

    build: makes a tokenizer without special tokens from a vocabulary. model: the kind of the vocabulary.
    special: default special tokens by role; None: none, even if tokenizer.json pads with one.
    frame: the special tokens around a text; None for those in tokenizer.json.
    files: the files with the vocabulary if there is no tokenizer.json.
    pieces: converts the pieces of a SentencePiece model for the class; None for no change.
    strips_left: special tokens that include the space before them.
    has_types: whether it returns token types. pads_left: whether it pads on the left.
    extra: special tokens without a role, if tokenizer_config.json has none.
    keeps_frame: whether a frame in tokenizer.json has precedence over that of the class.
    resets_flags: whether settings of special tokens in the files are ignored.
    makes_objects: whether special tokens with a role become objects if only their text is given.
    """

    build: Callable[[Source], Tokenizer]
    model: str
    special: Mapping[str, str | None]
    frame: Callable[[Numbered, ConfigFields], processors.PostProcessor] | None
    files: tuple[str, ...] = ()
    pieces: Callable[[Source], list[Piece]] | None = None
    strips_left: tuple[str, ...] = ()
    has_types: bool = False
    pads_left: bool = False
    extra: Callable[[Source, list[Token] | None], list[Token]] = sentencepiece_model.given_extra
    keeps_frame: bool = False
    resets_flags: bool = False
    makes_objects: bool = False


_BRACKETS = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
_ENDS = {"bos_token": "[CLS]", "eos_token": "[SEP]"}
_ANGLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_END_OF_TEXT = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
_BYTES = ("vocab.json", "merges.txt")
_MASK = ("mask_token",)

_BERT = TokenizerClass(
    parts.wordpiece, "WordPiece", _BRACKETS, parts.bert_frame, ("vocab.txt",), has_types=True
)
_CLASSES = {
    "Albert": TokenizerClass(
        parts.albert,
        "Unigram",
        {**_BRACKETS, **_ENDS, "unk_token": "<unk>", "pad_token": "<pad>"},
        parts.albert_frame,
        ("spiece.model",),
        keeps_frame=True,
    ),
    "Bert": _BERT,
    "Camembert": TokenizerClass(
        parts.camembert,
        "Unigram",
        _ANGLES,
        parts.xlm_roberta_frame,
        ("sentencepiece.bpe.model",),
        sentencepiece_model.camembert_pieces,
        strips_left=_MASK,
        extra=sentencepiece_model.camembert_extra,
    ),
    "DebertaV2": TokenizerClass(
        parts.deberta_v2,
        "Unigram",
        {**_BRACKETS, **_ENDS},
        parts.bert_frame,
        ("spm.model",),
        has_types=True,
    ),
    "DistilBert": _BERT._replace(has_types=False),
    "GPT2": TokenizerClass(parts.byte_level, "BPE", {**_END_OF_TEXT, "pad_token": None}, None, _BYTES),
    "Gemma": TokenizerClass(
        parts.gemma,
        "BPE",
        {f"{role}_token": f"<{role}>" for role in ("unk", "bos", "eos", "pad", "mask")},
        None,
        ("tokenizer.model",),
        pads_left=True,
    ),
    "Llama": TokenizerClass(
        parts.llama,
        "BPE",
        {role: _ANGLES[role] for role in ("unk_token", "bos_token", "eos_token")},
        None,
        ("tokenizer.model",),
        pads_left=True,
    ),
    "MPNet": TokenizerClass(
        parts.wordpiece,
        "WordPiece",
        {**_ANGLES, "unk_token": "[UNK]"},
        parts.roberta_frame,
        ("vocab.txt",),
        strips_left=_MASK,
        makes_objects=True,
    ),
    "Qwen2": TokenizerClass(
        parts.qwen2,
        "BPE",
        dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
        None,
        _BYTES,
        resets_flags=True,
    ),
    "Roberta": TokenizerClass(parts.byte_level, "BPE", _ANGLES, parts.roberta_frame, _BYTES),
    "T5": TokenizerClass(
        parts.t5,
        "Unigram",
        {role: _ANGLES[role] for role in ("eos_token", "unk_token", "pad_token")},
        parts.t5_frame,
        ("spiece.model",),
        sentencepiece_model.t5_pieces,
        extra=sentencepiece_model.t5_extra,
    ),
    "XLMRoberta": TokenizerClass(
        parts.xlm_roberta,
        "Unigram",
        _ANGLES,
        parts.xlm_roberta_frame,
        ("sentencepiece.bpe.model",),
        sentencepiece_model.xlm_roberta_pieces,
    ),
}  # fmt: skip
# Other names of the same classes.
_ALIASES = {
    **dict.fromkeys(("Electra", "LayoutLM", "Lxmert", "MobileBert", "SqueezeBert"), "Bert"),
    **dict.fromkeys(("Bart", "LED", "Longformer", "Mvp"), "Roberta"),
}
# Classes of transformers that are not supported.
_OTHERS = frozenset(
    """Barthez Bartpho BertGeneration BertJapanese Bertweet BigBird BioGpt BlenderbotSmall Blenderbot ByT5
    CLIP CTRL Canine Clvp CodeGen CodeLlama Cohere ConvBert CpmAnt Cpm DPRContextEncoder
    DPRQuestionEncoder DPRReader Deberta Dia Esm Esmc FNet FSMT FastSpeech2Conformer Flaubert Funnel
    GPTNeoXJapanese GPTNeoX GPTSw3 Herbert Lasr LayoutLMv2 LayoutLMv3 LayoutXLM Luke M2M100 MBart50 MBart
    MLuke Marian MarkupLM Mgpstr MyT5 Nllb Nougat OpenAIGPT PLBart Parakeet Pegasus Perceiver Phobert
    Pop2Piano ProphetNet Qwen3_5 Rag Reformer RemBert RoCBert RoFormer SeamlessM4T Siglip2 Siglip
    Speech2Text SpeechT5 Splinter Tapas Tipsv2 Udop VideoPrism Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC Whisper
    XGLM XLM XLNet""".split()  # noqa: SIM905  (one line per name would be too long)
)
# "": tokenizer.json without changes.
BY_MODEL_TYPE = {
    "albert": "Albert",
    "bert": "Bert",
    "camembert": "Camembert",
    "deberta-v2": "DebertaV2",
    "distilbert": "Bert",
    "electra": "Bert",
    "ernie": "Bert",
    "gemma": "Gemma",
    "gemma3_text": "Gemma",
    "gte": "XLMRoberta",
    "jina_embeddings_v3": "XLMRoberta",
    "mistral": "",
    "modernbert": "",
    "mpnet": "MPNet",
    "mt5": "T5",
    "nomic_bert": "Bert",
    "qwen2": "Qwen2",
    "qwen3": "Qwen2",
    "roberta": "Roberta",
    "t5": "T5",
    "t5gemma": "Gemma",
    "umt5": "",
    "xlm-roberta": "XLMRoberta",
}
# Model types whose folders declare a wrong class. The class of the model type is used instead.
OVERRULED = frozenset(("modernbert", "qwen2"))


def choose(
    path: Path,
    config: Mapping[str, Any],
    model: Mapping[str, Any],
    is_byte_level: Callable[[], bool],
) -> TokenizerClass | None:
    """The class that AutoTokenizer uses; None for the generic class, which uses tokenizer.json without
    changes.

    path, config: tokenizer_config.json. model: config.json. is_byte_level: whether tokenizer.json is.
    Errors: ValueError for an unknown class.
    """
    declared = config.get("tokenizer_class") or model.get("tokenizer_class")
    model_type = model.get("model_type")
    own = BY_MODEL_TYPE.get(model_type) if isinstance(model_type, str) else None
    stem = _stem(str(declared)) if declared else own or ""
    if declared and not _has_code(config):
        if stem == "Llama" and model_type not in OVERRULED and is_byte_level():
            stem = ""
        elif own is not None and (not own or model_type in OVERRULED):
            stem = own
    if stem in _OTHERS:
        raise ValueError(
            f"{path}: tokenizers of the class {declared} are not supported; known:"
            f" {', '.join(f'{name}Tokenizer' for name in sorted({*_CLASSES, *_ALIASES}))},"
            " PreTrainedTokenizerFast"
        )
    return _CLASSES.get(_ALIASES.get(stem, stem))


def _stem(name: str) -> str:
    """The name of a class without its suffixes; "" if transformers has no such class."""
    name = name.removesuffix("Fast")
    return name.removesuffix("Tokenizer") if name.endswith("Tokenizer") else ""


def _has_code(config: Mapping[str, Any]) -> bool:
    """Whether the folder declares a class of its own. Its code is never run; only names are used."""
    classes = config.get("auto_map")
    if isinstance(classes, dict):
        return classes.get("AutoTokenizer") is not None
    return isinstance(classes, list)
