"""A machine on which the CPU is real and the GPU is not: tensors on "cuda" have a shape, dtype and layout, and no data.

Every operation on them is written down, with what it would make a real GPU's host do: wait for the device (a copy that
blocks, `.item()`, a mask as an index), or leave the channels-last format. Needs `fake_cuda_hooks.cpp` preloaded.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).parents[1]
CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
_READS = (aten._local_scalar_dense.default, aten.item.default)  # one number to the host
_SIZED_BY_DATA = (aten.nonzero.default, aten.masked_select.default, aten.unique_dim.default, aten._unique2.default)
_COPIES = (aten._to_copy.default, aten.copy_.default)


@dataclass(frozen=True)
class Output:
    """One tensor that an operation gave; not the tensor, which a module may swap only while it alone has it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool


@dataclass(frozen=True)
class Operation:
    """One operation on the fake GPU."""

    name: str
    outputs: tuple[Output, ...]
    moved_bytes: int  # read and written, views left out


@dataclass
class Recorder(TorchDispatchMode):
    """Runs what touches only the CPU for real, everything else on fake tensors, and notes it."""

    fake: FakeTensorMode
    operations: list[Operation] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)  # "operation at file:line" where the host would wait

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        kwargs = kwargs or {}
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        on_gpu = any(value.device.type == "cuda" for value in inputs)
        if not on_gpu and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        answer = self._answer_that_waits(func, args, kwargs)
        if answer is not None:
            return answer
        with self.fake:  # which would otherwise compute what it can of real inputs
            args, kwargs = tree_map(self._faked, (args, kwargs))
            result = func(*args, **kwargs)
        outputs = tuple(value for value in tree_leaves(result) if isinstance(value, Tensor))
        found = tuple(Output(tuple(out.shape), out.dtype, is_channels_last(out)) for out in outputs)
        self.operations.append(Operation(str(func), found, moved_bytes(func, args, inputs, outputs)))
        return result

    def _faked(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, FakeTensor):
            return value
        with unset_fake_temporarily():
            shape = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return FakeTensor(self.fake, shape, value.device)

    def _answer_that_waits(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Note a wait; where its result depends on data, return one: 1.0, 0, masks that let all through."""
        if func in _READS:
            self._note(func)
            return 1.0 if args[0].dtype.is_floating_point else 0
        if func in _COPIES:
            return self._copy(func, args, kwargs)
        if func is aten.index.Tensor and any(of is not None and of.dtype == torch.bool for of in args[1]):
            self._note(func)
            (mask,) = (of for of in args[1] if of is not None)
            rest = args[0].shape[len(args[1]) - 1 + mask.ndim :]
            return self._empty((*args[0].shape[: len(args[1]) - 1], mask.numel(), *rest), args[0].dtype)
        if func in _SIZED_BY_DATA:
            self._note(func)
            shape = (args[0].numel(), args[0].ndim) if func is aten.nonzero.default else (args[0].numel(),)
            return self._empty(shape, torch.int64 if func is aten.nonzero.default else args[0].dtype)
        if func is aten.bincount.default:  # its length is the host's to know
            self._note(func)
            dtype = torch.int64 if len(args) < 2 or args[1] is None else torch.float64
            return self._empty((kwargs.get("minlength", args[2] if len(args) > 2 else 1),), dtype)
        return None

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        """To the host: real ones. To the device: fake, and a wait where it is not asynchronous."""
        source = args[1] if func is aten.copy_.default else args[0]
        target = args[0].device if func is aten.copy_.default else torch.device(kwargs.get("device") or source.device)
        if source.device.type == target.type:
            return None
        if not (kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])):
            self._note(func)
        if target.type == "cuda":
            return None
        with unset_fake_temporarily():
            if func is aten.copy_.default:
                return args[0].fill_(1)
            return torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with self.fake:
            return torch.empty(shape, dtype=dtype, device=CUDA)

    def _note(self, func: Any) -> None:
        frames = [
            frame
            for frame in traceback.extract_stack()
            if frame.filename.startswith(str(ROOT)) and frame.filename != __file__
        ]
        ours = [frame for frame in frames if not frame.filename.startswith(str(ROOT / "tests"))]
        where = (ours or frames)[-1] if frames else None
        place = f"{Path(where.filename).relative_to(ROOT)}:{where.lineno}" if where else "?"
        self.waits.append(f"{func} at {place}")

    def images(self, least: int) -> Iterator[tuple[str, Output]]:
        """Each image that was written, with several channels and at least `least` values, and what it came from."""
        for operation in self.operations:
            for out in operation.outputs if operation.moved_bytes else ():
                # Of four axes; kernels of convolutions, which are gradients too, have no side above 7.
                if len(out.shape) == 4 and out.shape[1] > 1 and out.shape[2] > 7 and math.prod(out.shape) >= least:
                    yield f"{operation.name} {out.shape}", out


def is_channels_last(value: Tensor) -> bool:
    """Whether an image's channels lie side by side."""
    return value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)


def moved_bytes(func: Any, args: Any, inputs: list[Tensor], outputs: tuple[Tensor, ...]) -> int:
    """Bytes that a kernel reads and writes once each; a bias is added to a convolution by a kernel of its own."""
    if func.is_view or func.name() in ("aten::detach", "aten::empty_like", "aten::empty.memory_format"):
        return 0
    total = sum(stored_bytes(value) for value in (*inputs, *outputs))
    if func is aten.convolution.default and args[2] is not None:
        total += 2 * stored_bytes(outputs[0])
    if func is aten.convolution_backward.default and args[3] is not None:  # the bias's gradient is a sum of its own
        total += stored_bytes(args[0])
    return total


def stored_bytes(value: Tensor) -> int:
    """Bytes behind a tensor; a value that is repeated by a stride of 0 is there once."""
    sizes = [size for size, stride in zip(value.shape, value.stride(), strict=True) if stride or size == 0]
    return math.prod(sizes) * value.element_size()


class NoStream:
    """A queue of the device on which nothing ever waits."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, other: NoStream) -> None:
        """Nothing."""


@contextmanager
def fake_gpu() -> Iterator[Recorder]:
    """One GPU that torch believes in; yields what is written down."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    stand_ins: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "fake GPU",
        "max_memory_allocated": lambda device=None: 0,
        "empty_cache": lambda: None,
        "_lazy_init": lambda: None,
        "Stream": NoStream,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: NoStream(),
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Tensor, "record_stream"))
        for name, stand_in in stand_ins.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        torch._C._ensureCUDADeviceGuardSet()
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            recorder = stack.enter_context(Recorder(fake))
            yield recorder
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
