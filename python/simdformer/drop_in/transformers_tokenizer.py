# SPDX-License-Identifier: Apache-2.0
"""`model.tokenizer`: the methods of transformers' tokenizers that programs use to count tokens and to
truncate and decode texts. The model itself uses its pipeline's tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simdformer.drop_in.tokenized_texts import TokenizedTexts, checked_items, formed
from simdformer.functional.arrays import positive_int
from simdformer.text.inputs import check_known
from simdformer.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

# The length without a limit.
_NO_LIMIT = 2**62
_TRUNCATIONS = (None, False, True, "longest_first", "do_not_truncate")
_PADDINGS = (False, True, "longest", "max_length", "do_not_pad")
_TENSORS = (None, "np", "pt")
_SPECIAL = ("bos", "cls", "eos", "mask", "pad", "sep", "unk")
# The spaces before these strings are removed by transformers' clean_up_tokenization_spaces.
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class TransformersTokenizer:
    """A model's tokenizer with the interface of transformers.

    Attributes:
      model_max_length: the model's max_seq_length; it can be set.
      padding_side: "right" or "left", the side on which this tokenizer pads; it can be set. A model does not
      pad.
      truncation_side: "right" or "left", the end at which longer texts are truncated.
      pad_token, pad_token_id, and the same for bos, cls, eos, mask, sep, unk: None if there is none.
      vocab_size: the number of tokens without added ones; len() includes them.
    """

    is_fast = True

    def __init__(self, model: Any) -> None:
        side = model.pipeline.tokenizer.files.padding_side
        self.__dict__.update(model=model, padding_side=side)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model_max_length":
            self.model.pipeline.limit_length(name, value)
        elif name == "padding_side":
            check_known(name, value, ("left", "right"))
            self.__dict__[name] = value
        else:
            raise AttributeError(f"{name} cannot be set; model_max_length and padding_side can")

    def __getattr__(self, name: str) -> Any:
        kind, _, end = name.removesuffix("_id").rpartition("_")
        if end != "token" or kind not in _SPECIAL:
            raise AttributeError(f"the tokenizer has no attribute {name!r}")
        token = self._inner.files.special_tokens.get(f"{kind}_token")
        if not name.endswith("_id"):
            return token
        return None if token is None else self._backend.token_to_id(token)

    def __repr__(self) -> str:
        return f"TransformersTokenizer({self.name_or_path!r}, vocab_size={self.vocab_size})"

    def __len__(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    # --- texts to ids ---

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_length: bool = False,
        verbose: bool = True,  # noqa: ARG002  (transformers')
    ) -> TokenizedTexts:
        """Tokenize a text, several texts, or pairs (with text_pair, or as tuples).

          truncation: True truncates to max_length, or model_max_length. max_length without padding or
          truncation does the same.
          padding: True pads to the longest text, "max_length" to that length.
          return_tensors: "np" or "pt" for int64 matrices (n, longest); None for lists, for a single text one
          list.

        Returns: "input_ids", "token_type_ids" if the model has them, "attention_mask", and, if asked for,
        "length", the length of each text with its padding.

        Errors: TypeError or ValueError naming the argument or the index of the text.
        """
        for name, value, known in (
            ("truncation", truncation, _TRUNCATIONS),
            ("padding", padding, _PADDINGS),
            ("return_tensors", return_tensors, _TENSORS),
        ):
            if value not in known:
                check_known(name, value, [str(k) for k in known])
        items, single = checked_items(text, text_pair)
        if max_length is not None and padding is False and truncation is None:
            truncation = True
        limit = (
            self.model_max_length if max_length is None else positive_int("max_length", max_length)
        )
        cut = truncation not in (None, False, "do_not_truncate")
        rows = self._rows(items, limit if cut else _NO_LIMIT, add_special_tokens)
        if return_token_type_ids is False or not (return_token_type_ids or self._has_types):
            del rows["token_type_ids"]
        if return_attention_mask is False:
            del rows["attention_mask"]
        if padding not in (False, "do_not_pad"):
            longest = max(map(len, rows["input_ids"]), default=0)
            width = limit if padding == "max_length" else longest
            multiple = pad_to_multiple_of or 1
            self._pad(rows, -(-width // multiple) * multiple)
        if return_length:
            rows["length"] = list(map(len, rows["input_ids"]))
        return formed(rows, single and return_tensors is None, return_tensors)

    def encode(self, text: Any, text_pair: Any = None, **arguments: Any) -> Any:
        """The input_ids of a text or pair. The arguments are those of a call."""
        return self(text, text_pair, **arguments)["input_ids"]

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False
    ) -> list[str]:
        """The tokens of a text as strings of the vocabulary."""
        ids = self.encode(text, pair, add_special_tokens=add_special_tokens)
        return list(self._inner.spell(ids))

    # --- ids to texts ---

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """The text of ids, or a list of texts for a list of lists."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        if isinstance(ids, Sequence) and ids and isinstance(ids[0], (list, tuple, np.ndarray)):
            return [
                self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids
            ]
        ids = [ids] if isinstance(ids, int) else list(ids)
        text = self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        clean = clean_up_tokenization_spaces
        if clean is None:
            clean = self._inner.files.cleans_up
        if clean and type(self._backend.model).__name__ != "BPE":
            for spaced in _CLEANED:
                text = text.replace(spaced, spaced.strip(" "))
        return text

    def batch_decode(self, sequences: Iterable[Any], **arguments: Any) -> list[str]:
        """The text of each sequence of ids."""
        return [self.decode(ids, **arguments) for ids in sequences]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The tokens of a list of ids, or the token of one id."""
        if isinstance(ids, (int, np.integer)):
            return self._backend.id_to_token(int(ids))
        skipped = self._inner.special_ids if skip_special_tokens else ()
        return [self._backend.id_to_token(int(i)) for i in ids if int(i) not in skipped]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The ids of a list of tokens, or the id of one token; unk_token_id for unknown tokens."""
        if isinstance(tokens, str):
            found = self._backend.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Decode tokens to a text."""
        decoder = self._backend.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))

    # --- properties ---

    @property
    def name_or_path(self) -> str:
        """The name or folder from which the model was loaded."""
        return str(self.model.name_or_path)

    @property
    def model_max_length(self) -> int:
        """The model's max_seq_length."""
        return self._inner.max_seq_length

    @property
    def truncation_side(self) -> str:
        """The end at which longer texts are truncated."""
        return self._inner.truncation_side

    @property
    def vocab_size(self) -> int:
        """The number of tokens, without added ones."""
        return self._backend.get_vocab_size(with_added_tokens=False)

    @property
    def model_input_names(self) -> list[str]:
        """The names of the arrays that a call returns."""
        types = ["token_type_ids"] if self._has_types else []
        return ["input_ids", *types, "attention_mask"]

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of special tokens, such as [CLS]."""
        return sorted(self._inner.special_ids)

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens."""
        return list(self._inner.spell(self.all_special_ids))

    def get_vocab(self) -> dict[str, int]:
        """The id of each token, including added ones."""
        return self._backend.get_vocab(with_added_tokens=True)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """The number of special tokens that are added to a text, or to a pair."""
        return self._backend.num_special_tokens_to_add(pair)

    @property
    def _inner(self) -> Tokenizer:
        tokenizer: Tokenizer = self.model.pipeline.tokenizer
        return tokenizer

    @property
    def _backend(self) -> tokenizers.Tokenizer:
        return self._inner.backend

    @property
    def _has_types(self) -> bool:
        return self._inner.files.has_types

    def _rows(self, items: Sequence[Any], limit: int, add_special_tokens: bool) -> dict[str, Any]:
        pairs = bool(items) and isinstance(items[0], tuple)
        inner = self._inner.with_options(limit, pairs=pairs, add_special_tokens=add_special_tokens)
        tokens = inner(items)
        ids = tokens.input_ids
        return {
            "input_ids": ids,
            "token_type_ids": tokens.type_ids or [[0] * len(row) for row in ids],
            "attention_mask": [[1] * len(row) for row in ids],
        }

    def _pad(self, rows: dict[str, Any], width: int) -> None:
        for name, fill in (
            ("input_ids", self._inner.files.pad_id),
            ("token_type_ids", 0),
            ("attention_mask", 0),
        ):
            if name in rows:
                for i, row in enumerate(rows[name]):
                    padding = [fill] * (width - len(row))
                    left = self.padding_side == "left"
                    rows[name][i] = padding + row if left else row + padding
