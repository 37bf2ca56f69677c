# SPDX-License-Identifier: Apache-2.0
"""The base class of all modules: calls, up-to-date packed forms, compute types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import float32, with_dense_rows
from simdformer.nn import packing
from simdformer.nn.compute_types import Recorder, Sample, check_compute_type, quantized_place
from simdformer.nn.parameter_tree import ParameterTree
from simdformer.nn.parameters import Stored, compute_type_of, in_type

if TYPE_CHECKING:
    from typing_extensions import Self

Float32: TypeAlias = NDArray[np.float32]


class PackedMatrix(NamedTuple):
    """A matrix of a module, and the packed layers that contain it."""

    owner: Module
    name: str
    linears: tuple[_core.Linear, ...]


class Module(ParameterTree):
    """Base class of all layers. Modules are for inference: no gradients, no training mode.

    Parameters are read-only float32 arrays. Change them with `load_state_dict`, or assign a whole array
    of the same shape (`layer.weight = array`). A parameter that a layer was built without is None and
    has no key. A matrix in int8 is an Int8Matrix.

    Examples
    --------
    >>> from simdformer import nn
    >>> layer = nn.Linear(8, 4)
    >>> layer.weight = np.zeros((4, 8), dtype=np.float32)
    >>> sorted(layer.state_dict())
    ['bias', 'weight']
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output. Calling the module calls this."""
        raise NotImplementedError(f"{type(self).__name__} is used by other modules, not called")

    training = False

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Return the module: there is no training mode, and dropout has no effect."""
        return self

    def eval(self) -> Self:
        """Return the module, which is always in evaluation mode."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:  # noqa: ARG002
        """Return the module: there are no gradients."""
        return self

    def cpu(self) -> Self:
        """Return the module, which is on the CPU."""
        return self

    def float(self) -> Self:
        """Return the module, whose parameters are float32."""
        return self

    def to(self, *places: Any, device: Any = None, dtype: Any = None, **_: Any) -> Self:
        """Return the module if the arguments ask for the CPU and float32, as torch spells them.

        Raises
        ------
        ValueError
            For another device or dtype. Use `to_compute_type` for bfloat16 and int8.
        """
        for place in places:
            if not (is_cpu(place) or is_float32(place)):
                raise ValueError(
                    f"a module cannot be moved to {place!r}: it is on the CPU, in float32;"
                    " to_compute_type takes 'bfloat16' and 'int8'"
                )
        check_placement(device, dtype)
        return self

    def native(self) -> Any:
        """Return the packed form for the kernels, a layer of `simdformer._core`.

        It is made in the first call and kept until an attribute or a parameter of this module or of one of
        its submodules changes.
        """
        return self._packed("native", self._pack)

    def _packed(self, form: str, pack: Callable[[], Any]) -> Any:
        checked, mark = self._checked.get(form), packing.mark()
        if checked is not None and checked[0] is mark:
            return checked[1]
        with packing.lock():
            packed = self._kept.get(form, tuple(self.shaping()), pack)
            self._checked[form] = (mark, packed)
        return packed

    def pack(self) -> None:
        """Do the work of the first call now, and read all parameters that are stored in a file.

        Afterwards the file may be closed. Tensors are read, packed and released one by one.
        """
        self._pack_all()
        for module in self.modules():
            for slot in module._parameters.values():
                if isinstance(slot, Stored) and not slot.is_packed:
                    slot.keep()

    def _pack_all(self) -> None:
        """Make the packed forms that a call needs: its own, or if it has none, those of its children."""
        if type(self)._pack is not Module._pack:
            self.native()
            return
        for child in self.children():
            child._pack_all()

    def _pack(self) -> Any:
        raise NotImplementedError

    @property
    def compute_type(self) -> str:
        """The compute type of the matrices: "float32", "bfloat16", "int8" or "mixed"."""
        types = self._types() or {"float32"}
        return types.pop() if len(types) == 1 else "mixed"

    def _types(self) -> set[str]:
        return {owner.type_of(name) for owner in self._multiplying() for name in owner.matrices()}

    def to_compute_type(self, compute_type: str, sample: Any = None) -> Self:
        """Change the compute type of all matrices.

        bfloat16 rounds them. int8 quantizes them, and keeps in float32 the columns whose inputs are far
        larger than the others on sample. The float32 values are released. No other thread may use the
        module during the call.

        Parameters
        ----------
        compute_type
            "float32", "bfloat16" or "int8".
        sample
            Arguments of a call of the module: one argument, a tuple, or a mapping of names to arguments.
            None for standard normal rows, or ids from the whole vocabulary, the same each time.

        Returns
        -------
        Module
            The module itself.

        Raises
        ------
        ValueError
            If the type is unknown, weights are not finite, or the module is already in int8.

        Examples
        --------
        >>> from simdformer import nn
        >>> nn.Linear(64, 32).to_compute_type("bfloat16").compute_type
        'bfloat16'
        """
        present = self._types()
        check_compute_type(compute_type, present)
        if present <= {compute_type}:
            return self
        owners = [(owner, name) for owner in self._multiplying() for name in owner.matrices()]
        outliers: dict[tuple[int, str], Any] = {}
        if compute_type == "int8":
            outliers = self._outliers(Sample.of(sample) if sample is not None else self.sample())
        before = [(owner, dict(owner._parameters)) for owner, _ in owners]
        try:
            for owner, name in owners:
                owner.set_type(name, compute_type, outliers.get((id(owner), name)))
        except ValueError:
            for owner, places in before:
                owner._parameters.update(places)
            raise
        for module in self.modules():  # packed forms of the old type
            module.__dict__.update(_kept=packing.Kept(), _checked={})
        return self

    def _outliers(self, sample: Sample) -> dict[tuple[int, str], Any]:
        """The outlier columns of each matrix, by the id of its module and its name."""
        self._pack_all()
        packed = list(self.packed_matrices())
        with packing.lock(), Recorder(x for _, _, linears in packed for x in linears) as inputs:
            self._call_with(sample)
        return {(id(owner), name): inputs.outliers(linears) for owner, name, linears in packed}

    def sample(self) -> Sample:
        """The default sample for quantization."""
        raise ValueError(f"{type(self).__name__} needs a sample to be quantized")

    def _call_with(self, sample: Sample) -> None:
        self(*sample.args, **{**sample.options, "num_threads": 1})

    def _multiplying(self) -> Iterator[Module]:
        """This module and its descendants that have matrices with a compute type."""
        yield self
        for child in self._children.values():
            yield from child._multiplying()

    def matrices(self) -> list[str]:
        """The names of its own parameters that are matrices with a compute type."""
        return [name for name in self.matrix_names if self._parameters.get(name) is not None]

    def type_of(self, name: str) -> str:
        """The compute type of one of them."""
        return compute_type_of(self._parameters[name])

    def set_type(self, name: str, compute_type: str, outliers: Any = None) -> None:
        """Change the compute type of one of them. outliers: the columns that stay in float32 in int8."""
        place = self._parameters[name]
        if compute_type == "int8":
            if self.type_of(name) != "int8":
                self._place(name, quantized_place(name, self._value(name), outliers))
            return
        self._place(name, in_type(place, compute_type))

    def packed_matrices(self) -> Iterator[PackedMatrix]:
        """The packed layers of all matrices of this module and its descendants, as a call uses them."""
        for child in self._children.values():
            yield from child.packed_matrices()


def is_cpu(device: object) -> bool:
    """Whether a device is the CPU: a torch.device, or a name."""
    return device is None or str(device) in ("cpu", "cpu:0")


def is_float32(dtype: object) -> bool:
    """Whether a dtype is float32: of torch or NumPy, or a name."""
    return dtype is None or str(dtype).rpartition(".")[2].strip("'>") in ("float32", "float")


def check_placement(device: object, dtype: object) -> None:
    """Check torch's device and dtype arguments, which must be the CPU and float32."""
    if not is_cpu(device):
        raise ValueError(f"device must be None or 'cpu', got {device!r}")
    if not is_float32(dtype):
        raise ValueError(f"dtype must be None or float32, got {dtype!r}")


def float_input(name: str, value: Any, features: int | None = None) -> Float32:
    """An input as a float32 array with dense rows. TypeError for any other dtype."""
    array = float32(name, value)
    if features is not None and (array.ndim == 0 or array.shape[-1] != features):
        raise ValueError(f"{name} must have {features} features, got shape {array.shape}")
    return with_dense_rows(array)
