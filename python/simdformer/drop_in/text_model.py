# SPDX-License-Identifier: Apache-2.0
"""The base of the public classes: a pipeline, prompts, the length limit, outputs."""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from simdformer import nn
from simdformer.checkpoint import read_json
from simdformer.drop_in.arguments import FoundRequest
from simdformer.drop_in.module_list import transformer_path
from simdformer.drop_in.pool import chosen_pool, run_in_pool
from simdformer.drop_in.saved import Saved
from simdformer.drop_in.torch_module import TorchModule
from simdformer.drop_in.transformers_tokenizer import TransformersTokenizer
from simdformer.folder.loading import LoadedCrossEncoder, LoadedModel
from simdformer.folder.new_folder import new_file
from simdformer.folder.settings import Defaults
from simdformer.text.inputs import merge_prompts
from simdformer.text.model_output import MAX_BYTES, Layers, LayersAndHeads, OutputRequest
from simdformer.text.pipeline import Array, TextPipeline
from simdformer.text.warning import warn_caller

R = TypeVar("R")
# the arguments device, pool and chunk_size of a call
Where = tuple[Any, dict[str, Any] | None, int | None]

_logger = logging.getLogger("simdformer")


class TextModel(Saved, TorchModule):
    """A model that reads texts or pairs of texts. Attributes: see the subclasses."""

    encoder: nn.TextEncoder
    pipeline: TextPipeline
    compute_type: str
    part_types: dict[str, str]
    prompts: dict[str, str]
    default_prompt_name: str | None
    truncate_dim: int | None = None
    # The function that computes a call's results for checked texts, in this process.
    compute: Callable[..., Any]

    @property
    def max_seq_length(self) -> int:
        """Length of the longest text (or pair) in tokens, special tokens included. Longer ones are truncated.

        It may be set, up to the number of positions of the model; None sets it to that number.
        """
        return self.pipeline.tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        most = self.pipeline.encoder.max_positions
        if value is None and not most:  # the model has no limit on positions
            value = 2**31 - 1
        self.pipeline.limit_length("max_seq_length", most if value is None else value)

    def get_max_seq_length(self) -> int:
        """The same as `max_seq_length`."""
        return self.max_seq_length

    @property
    def tokenizer(self) -> TransformersTokenizer:
        """The tokenizer with the methods of transformers. The pipeline uses pipeline.tokenizer."""
        view: TransformersTokenizer | None = vars(self).get("_tokenizer")
        if view is None or view.model is not self:  # that of a model of which this one is a copy
            view = self._tokenizer = TransformersTokenizer(self)
        return view

    @property
    def num_tokens(self) -> int:
        """Number of tokens computed since loading."""
        return sum(pipeline.num_tokens for pipeline in self.pipeline.all())

    @property
    def truncated_texts(self) -> int:
        """Number of texts (or pairs) longer than max_seq_length since loading.

        Only the first call with such a text warns.
        """
        return sum(pipeline.truncated_texts for pipeline in self.pipeline.all())

    def _set_prompts(
        self,
        prompts: Mapping[str, str | None] | None,
        default_prompt_name: str | None,
        saved: Defaults,
        always: Sequence[str] = (),
    ) -> None:
        """Set the constructor's prompts, or the saved ones. always: as for merge_prompts."""
        self.prompts = merge_prompts(prompts, saved.prompts, always)
        self.default_prompt_name = default_prompt_name or saved.default_prompt_name
        self.resolve_prompt()

    def resolve_prompt(
        self, prompt: str | None = None, prompt_name: str | None = None
    ) -> str | None:
        """Return the text put before an input: `prompt`, else the prompt of this name, else the default one.

        Raises
        ------
        TypeError, ValueError
            If prompt is not a str, or the name is unknown.
        """
        if prompt is not None:
            if prompt_name is not None:
                warn_caller(
                    f"prompt and prompt_name={prompt_name!r} are both given; prompt is used"
                )
            if not isinstance(prompt, str):
                raise TypeError(f"prompt must be a str, got {type(prompt).__name__}")
            return prompt
        if prompt_name is None:
            prompt_name = self.default_prompt_name
        if prompt_name is None:
            return None
        if prompt_name not in self.prompts:
            raise ValueError(f"unknown prompt name {prompt_name!r}; known: {list(self.prompts)}")
        return self.prompts[prompt_name]

    def outputs(
        self,
        inputs: Any,
        *,
        output_attentions: LayersAndHeads = False,
        output_hidden_states: bool = False,
        output_head_outputs: Layers = False,
        head_mask: ArrayLike | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        max_bytes: int | None = MAX_BYTES,
    ) -> Any:
        """Return intermediate results of the model, computed as in `encode` and `predict`.

        Parameters
        ----------
        inputs, prompt_name, prompt
            See `encode` or `predict`.
        output_attentions
            True for the weights of all layers and heads, layer numbers (negative ones count from the end),
            or a dict from layer to head numbers or True.
        output_hidden_states
            Return the hidden states of all layers.
        output_head_outputs
            True or layer numbers.
        head_mask
            float32 (num_heads,) or (num_layers, num_heads), factors of the heads' outputs and weights. 0
            switches a head off.
        max_bytes
            Largest total size of the arrays; None for no limit. Attentions grow with the square of the length.

        Returns
        -------
        ModelOutput, or list of ModelOutput
            One for a single text or pair, else a list. Requests do not change the bits of other results,
            except head_mask. Logits are those before the activation.

        Raises
        ------
        TypeError, ValueError
            See `encode`; also for unknown layers and heads, another shape of head_mask, or more than max_bytes.
        """
        asked = (output_attentions, output_hidden_states, output_head_outputs, head_mask)
        request = OutputRequest.of(self.pipeline.encoder, *asked)
        prompt = self.resolve_prompt(prompt, prompt_name)
        texts, single = self._listed(inputs)
        found = self.pipeline.outputs(
            list(self._prompted(texts, prompt)),
            request,
            max_bytes,
            self.pipeline.pooling_start(prompt),
            logits=self._gives_logits,
        )
        outputs = [output.with_dim(self.truncate_dim) for output in found]
        return outputs[0] if single else outputs

    def tokenize(self, texts: Any, prompt: str | None = None) -> dict[str, Any]:
        """Return the token ids of texts or pairs, as sentence-transformers' `tokenize` and `preprocess`.

        `encode` and `predict` do not use this: they do not pad.

        Returns
        -------
        dict
            "input_ids", "token_type_ids" and "attention_mask", int64 (n, longest), padded on the right.
        """
        listed, _ = self._listed(texts)
        found = self.pipeline.padded_tokens(list(self._prompted(listed, prompt)))
        return {name: self._given(rows) for name, rows in found.items()}

    def preprocess(self, inputs: Any, prompt: str | None = None) -> dict[str, Any]:
        """The newer name of `tokenize`."""
        return self.tokenize(inputs, prompt)

    def export(self, file: str | os.PathLike[str], *, task: str | None = None) -> None:
        """Write the model to one file, which the library for C and C++ opens (see docs/howto/c.md).

        The file holds what runs after the tokenizer, in the model's compute type. It runs at every instruction
        set level, with the bits of this model on the same CPU.

        Parameters
        ----------
        file
            The file to write. It is replaced if it exists.
        task
            The task whose model is written; None for texts without a task.

        Raises
        ------
        ValueError
            If a part of the model runs outside the native call, such as an activation without a kernel, or
            the model gives a vector per token. The message names it.

        Examples
        --------
        >>> import tempfile
        >>> from simdformer import SentenceTransformer
        >>> path = Path(tempfile.mkdtemp()) / "minilm.simdformer"
        >>> SentenceTransformer("all-MiniLM-L6-v2").export(path)
        >>> path.stat().st_size // 1_000_000
        90
        """
        pipeline, output = self.pipeline.for_task(task), self._exported_output()
        with new_file(Path(os.path.realpath(file))) as target:
            pipeline.save(target.write, **output)

    @property
    def config(self) -> SimpleNamespace:
        """config.json of the Transformer, with fields as attributes: a copy, which changes nothing."""
        path = self.folder / transformer_path(self.folder) / "config.json"
        fields = read_json(path) if path.is_file() else {}
        return SimpleNamespace(**{**fields, **self.overrides.config})

    def evaluate(self, evaluator: Any, output_path: str | None = None) -> Any:
        """Return the result of a sentence-transformers evaluator for the model.

        Parameters
        ----------
        evaluator
            A callable that is given the model.
        output_path
            A folder that it may write to; it is created if it does not exist.
        """
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)

    # --- implemented by subclasses ---

    def _given(self, value: Any) -> Any:
        """Convert arrays, lists and dicts to the types that the caller gets."""
        return value

    def _converted(self, rows: Array, to_numpy: bool, to_tensor: bool) -> Any:
        """Convert an array to the requested type: an array, a list of rows, or a torch.Tensor."""
        if not to_tensor:
            return rows if to_numpy else self._given(list(rows))
        try:
            torch = import_module("torch")
        except ImportError as error:
            raise ImportError("convert_to_tensor=True needs torch, which is missing") from error
        return torch.from_numpy(rows) if len(rows) else torch.empty(rows.shape)

    def _adopt(
        self, request: FoundRequest, loaded: LoadedModel | LoadedCrossEncoder, **options: Any
    ) -> None:
        """Take over a loaded model. options: of TextPipeline."""
        self._request = request
        self.name_or_path = request.name_or_path
        self.encoder = loaded.encoder
        self.pipeline = TextPipeline(
            loaded.tokenizer,
            loaded.encoder,
            loaded.pool,
            request.budget,
            template=loaded.template,
            **options,
        )
        if isinstance(loaded, LoadedModel):
            tasks = {
                task: TextPipeline(
                    *route[:3],
                    request.budget,
                    include_prompt=route.include_prompt,
                    template=route.template,
                )
                for task, route in loaded.tasks.items()
            }
            self.pipeline.add_tasks(
                tasks,
                routed=loaded.routed,
                strict=loaded.strict,
                needs_task=loaded.needs_task,
                adapters=loaded.adapters,
            )
        self._stacks = [pipeline.encoder for pipeline in self.pipeline.all()]
        self._limit = self.max_seq_length
        self.compute_type, self.part_types = loaded.compute_type, dict(loaded.part_types)

    def _parts(self, texts: list[Any], where: Where, bar: Any, **arguments: Any) -> list[Any]:
        """The results of `compute`: one for all texts in this process, or one per chunk in a pool's
        processes."""
        device, pool, chunk_size = where
        with chosen_pool(self, pool, device if texts else None) as chosen:
            if chosen is None or not texts:
                return [self.compute(texts, bar=bar, **arguments)]
            return run_in_pool(chosen, "compute", texts, chunk_size, bar, **arguments)

    def _exported_output(self) -> dict[str, Any]:
        """The description of the rows for `export`: arguments of _core.PooledStack.save."""
        return {"columns": min(self.truncate_dim or 0, self.pipeline.width)}

    _gives_logits = False

    @abstractmethod
    def _listed(self, inputs: Any) -> tuple[list[Any], bool]:
        """The texts or pairs as a list, and whether `inputs` is a single one."""

    @abstractmethod
    def _prompted(self, texts: Iterable[Any], prompt: str | None) -> Iterable[Any]:
        """Each text after the prompt. A text is checked when it is reached."""


@contextmanager
def progress_bar(total: int, show: bool | None, unit: str) -> Iterator[Any]:
    """A progress bar, or None. show: None means the level of the logger "simdformer" decides."""
    if show is None:
        show = _logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG)
    if not show:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=f"{unit.capitalize()}s", unit=unit) as bar:
        yield bar


def joined(passes: Generator[list[R], None, None], bar: Any) -> list[R]:
    """The results of all passes in one list. Updates the bar after each pass."""
    result: list[R] = []
    with closing(passes) as parts:
        for part in parts:
            result.extend(part)
            if bar is not None:
                bar.update(len(part))
    return result
