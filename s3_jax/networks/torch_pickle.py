"""Tensors of a PyTorch file (a zip of a pickle and raw arrays), read without PyTorch and without running its code.

A pickle may name any function to call. Here only those are known that put tensors together; every other object becomes
an `Unknown`, which keeps nothing and does nothing.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from s3_jax.buckets import BucketPath
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath

# What PyTorch calls its storages, and the type of their elements.
_TYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


# Elements that a tensor may have beyond those of its storage, by a stride of 0 as PyTorch's `expand` gives it.
_EXPANDED = 2**20


class Storage(NamedTuple):
    """The type of a storage, as the pickle names it."""

    dtype: Any


class Unknown:
    """Stands for any object that is no tensor, whatever it is made of."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Nothing is kept."""

    def extend(self, _: Any) -> None:
        """Nothing is kept."""


# What zipfile and pickle raise for files that are damaged, or were made to do harm.
_READING_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, struct.error, EOFError, ImportError),
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
)


def read_torch(path: AnyPath) -> Any:
    """The object in a PyTorch file, its tensors as numpy arrays. Raises S3Error where it is none, or cut short."""
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes()) if isinstance(path, BucketPath) else path) as archive:
            _check_stored(archive)
            (listing,) = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
            folder = listing.removesuffix("data.pkl")
            with archive.open(listing) as file:
                return _Reader(file, lambda key: archive.read(f"{folder}data/{key}")).load()
    except OSError as error:
        raise S3Error(f"{path} cannot be read: {error.strerror or error}") from error
    except _READING_ERRORS as error:
        raise S3Error(
            f"{path} is not a PyTorch file of version 1.6 or later, or it is cut short: {str(error) or repr(error)}; "
            "download it again, or save it anew with a recent PyTorch"
        ) from error


def _check_stored(archive: zipfile.ZipFile) -> None:
    """PyTorch does not compress; so no small file unpacks to more than memory holds."""
    packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"its entry {packed[0]} is compressed, which PyTorch does not do")


class _Reader(pickle.Unpickler):
    """Knows tensors and plain containers, and nothing that could do anything."""

    def __init__(self, file: Any, data_of: Callable[[str], bytes]) -> None:
        super().__init__(file)
        self._data_of = data_of
        self._storages: dict[tuple[str, Storage], np.ndarray] = {}  # tensors may share one

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for."""
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module == "torch" and name in _TYPES:
            return Storage(_TYPES[name])
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _tensor if name == "_rebuild_tensor_v2" else _parameter
        return Unknown

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The elements of a storage: ("storage", type, key, device, number of elements)."""
        _, kind, key, _, count = pid
        if not isinstance(kind, Storage):
            raise pickle.UnpicklingError("a storage of a type that is not known")
        if (str(key), kind) not in self._storages:
            self._storages[str(key), kind] = np.frombuffer(self._data_of(str(key)), dtype=kind.dtype)
        array = self._storages[str(key), kind]
        if array.size < count:
            raise pickle.UnpicklingError(f"a tensor has {array.size} of {count} elements")
        return array


def _tensor(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min((*size, *stride, offset, 1)) < 0 or (min((*size, 1)) > 0 and last >= storage.size):
        raise pickle.UnpicklingError(f"a tensor of shape {size} reaches beyond its {storage.size} elements")
    if math.prod(size) > max(storage.size, _EXPANDED):
        raise pickle.UnpicklingError(f"a tensor of shape {size} is made of no more than {storage.size} elements")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
    return tensor
