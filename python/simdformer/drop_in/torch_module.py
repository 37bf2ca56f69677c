# SPDX-License-Identifier: Apache-2.0
"""Methods that programs written for sentence-transformers expect of a model, which there is a torch module on
a device, and a sequence of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from simdformer import nn
from simdformer.text.inputs import check_device
from simdformer.text.pipeline import TextPipeline

if TYPE_CHECKING:
    from typing_extensions import Self


class Device(str):
    """The CPU, for torch functions that take a device. It is equal to "cpu" and to torch.device("cpu").

    Attributes: type, index: as of torch.device.
    """

    __slots__ = ()

    type = "cpu"
    index = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, str(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class TorchModule:
    """Methods of torch.nn.Module and torch.nn.Sequential that have no effect here."""

    encoder: nn.TextEncoder
    pipeline: TextPipeline
    compute_type: str
    module_names: tuple[str, ...]
    tokenizer: Any
    tokenize: Callable[..., Any]

    training = False

    @property
    def device(self) -> Device:
        """The CPU, which is the only supported device."""
        return Device("cpu")

    def to(self, device: object = None, dtype: object = None, **kwargs: object) -> Self:
        """Return the model. ValueError for other devices than the CPU, or other dtypes."""
        kwargs.pop("non_blocking", None)
        device = kwargs.pop("device", device)
        if str(device).startswith("torch.") and "device" not in type(device).__name__:
            device, dtype = None, device  # to(torch.float32)
        if kwargs:
            raise TypeError(f"to got unknown arguments: {', '.join(sorted(kwargs))}")
        check_device(device)
        if dtype is not None and str(dtype).removeprefix("torch.") != self.compute_type:
            raise ValueError(
                f"dtype must be None or {self.compute_type!r}, got {dtype!r}: the type is chosen when a model"
                " is loaded, by compute_type"
            )
        return self

    def cpu(self) -> Self:
        """Return the model."""
        return self

    def float(self) -> Self:
        """Return the model. ValueError if it does not run in float32."""
        return self.to(dtype="float32")

    def eval(self) -> Self:
        """Return the model: there is no training mode."""
        return self

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002  (torch's)
        """Return the model: there is no training, and dropout is never applied."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:  # noqa: ARG002
        """Return the model: there are no gradients."""
        return self

    def share_memory(self) -> Self:
        """Return the model: each process of a pool loads its own weights."""
        return self

    def compile(self, *args: object, **kwargs: object) -> None:
        """Do nothing: the model is compiled already."""

    def parameters(self) -> Iterator[Any]:
        """The encoder's parameters, float32 arrays."""
        return (value for _, value in self.encoder.named_parameters())

    def get_backend(self) -> str:
        """Return "torch", sentence-transformers' name for models that run from their checkpoint."""
        return "torch"

    @property
    def backend(self) -> str:
        """The same as the result of `get_backend`."""
        return self.get_backend()

    @property
    def modalities(self) -> list[str]:
        """The kinds of input: "text"."""
        return ["text"]

    def supports(self, modality: object) -> bool:
        """Whether `modality` is one of `modalities`."""
        return modality in self.modalities

    def get_model_kwargs(self) -> list[str]:
        """The additional keyword arguments of the modules: none."""
        return []

    # --- the modules of a sentence-transformers model ---

    def __len__(self) -> int:
        return len(self.module_names)

    def __iter__(self) -> Iterator[ModuleView]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> ModuleView:
        """A view of the module with this number. It cannot be called or replaced."""
        if isinstance(index, slice):
            raise TypeError("modules are accessed by number, not by a slice")
        name = self.module_names[index]
        return _VIEWS.get(name, ModuleView)(name, self)

    def __bool__(self) -> bool:
        return True


class ModuleView:
    """A view of a module of a model, with sentence-transformers' name and number."""

    name: str
    model: TorchModule

    def __init__(self, name: str, model: TorchModule) -> None:
        self.__dict__.update(name=name, model=model)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set one of the attributes that can be changed. AttributeError for others, which would have no
        effect."""
        own = getattr(type(self), name, None)
        if not isinstance(own, property) or own.fset is None:
            raise AttributeError(
                f"{name} of the module {self.name} cannot be set: it would have no effect"
            )
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"{self.name}()"


class TransformerView(ModuleView):
    """The first module, with the tokenizer and the encoder."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.model.tokenizer

    @property
    def auto_model(self) -> nn.TextEncoder:
        """The model's encoder."""
        return self.model.encoder

    @property
    def max_seq_length(self) -> int:
        """The model's limit; it can be set."""
        return self.model.pipeline.tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.model.pipeline.limit_length("max_seq_length", value)

    def get_embedding_dimension(self) -> int:
        """The length of a token's vector."""
        return self.model.pipeline.encoder.hidden_size

    get_word_embedding_dimension = get_embedding_dimension

    def preprocess(self, inputs: Any, prompt: str | None = None) -> Any:
        """As the model's `tokenize`."""
        return self.model.tokenize(inputs, prompt)

    tokenize = preprocess


class PoolingView(ModuleView):
    """Pooling."""

    @property
    def include_prompt(self) -> bool:
        """Whether pooling includes the tokens of the prompt; it can be set."""
        return self.model.pipeline.include_prompt

    @include_prompt.setter
    def include_prompt(self, value: bool) -> None:
        for pipeline in self.model.pipeline.all():
            pipeline.include_prompt = value


_VIEWS: dict[str, type[ModuleView]] = {"Transformer": TransformerView, "Pooling": PoolingView}
