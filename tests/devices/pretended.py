"""A pretended accelerator: its tensors say that they lie on 'pretended:0', their values lie on the CPU. No GPU and no compiler are needed.

Inside `with PretendedAccelerator() as tally:` a tensor can be made on or moved to `device()`, and every operation on it is watched by the
rules of CUDA: tensors of two devices in one operation are a mistake (noted, then mended, so that one run finds all of them); reading a
value back, copying without `non_blocking`, masks and the like make the host wait; each is counted with the line of src/rsdiff that asked.
With `values=False` only shapes are computed: published sizes in seconds.

What it cannot see: branches for device.type == "cuda", kernels' own numbers, cuDNN, NCCL.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.utils.clip_grad
import torch.utils._pytree as tree
from torch import Tensor
from torch.utils import _foreach_utils, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rsdiff.data import transfer

NAME = "pretended"
aten = torch.ops.aten
HostGenerator = torch.Generator

Kind = Literal["mismatch", "sync", "copy", "float64", "host draw"]

VIEWS = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "t",
        "transpose",
        "permute",
        "expand",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "detach",
        "alias",
        "as_strided",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "diagonal",
        "unfold",
        "lift_fresh",
        "view_as_real",
        "view_as_complex",
        "real",
        "imag",
        "_conj",
        "swapaxes",
        "movedim",
        "narrow",
        "unflatten",
        "expand_as",
        "is_same_size",
        "_neg_view",
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "resolve_conj",
        "resolve_neg",
        "positive",
    ]
)
"""Operations that launch no kernel."""
READ_BACK = frozenset(
    ["nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "is_nonzero", "equal", "multinomial", "histc"]
)
"""Operations whose result has a size or a value that the host must know."""
DRAWS = frozenset(
    [
        "normal_",
        "uniform_",
        "bernoulli_",
        "random_",
        "exponential_",
        "randn",
        "rand",
        "randint",
        "randperm",
        "normal",
        "bernoulli",
        "multinomial",
    ]
)
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
LOOSE_SCALARS = frozenset(["fill_", "fill", "masked_fill", "masked_fill_", "where", "lerp", "lerp_", "mul_", "add_"])
"""Besides pointwise operations, those that take a CPU tensor without axes as a number."""


@dataclass
class Tally:
    """What happened, by phase, kind and line of src/rsdiff.

    events    (phase, kind, line, what) -> how often
    launches  kernels launched, by phase
    flops     floating-point operations of convolutions, products and attention
    bytes     read and written by kernels
    host      nanoseconds that a core spent in operations on tensors of the CPU, by phase and line
    """

    phase: str = ""
    events: Counter[tuple[str, Kind, str, str]] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)
    flops: int = 0
    bytes: int = 0
    host: Counter[tuple[str, str]] = field(default_factory=Counter)

    def note(self, kind: Kind, what: str) -> None:
        self.events[self.phase, kind, _asking_line(), what] += 1

    def count(self, kind: Kind, phase: str | None = None) -> int:
        """Return how often `kind` happened, in a phase or in all."""
        return sum(n for (at, found, _, _), n in self.events.items() if found == kind and phase in (None, at))

    def functions(self, kind: Kind, phase: str) -> dict[str, int]:
        """Return how often a kind happened in a phase, by file and function: names that stay when lines move."""
        found: Counter[str] = Counter()
        for (at, of, line, _), n in self.events.items():
            if of == kind and at == phase:
                file, _, function = line.partition(" ")
                found[f"{file.partition(':')[0]} {function}".strip()] += n
        return dict(sorted(found.items()))

    def lines(self, kind: Kind, phase: str | None = None) -> list[str]:
        """Return where and what of a kind, the most frequent first."""
        found: Counter[str] = Counter()
        for (at, of, line, what), n in self.events.items():
            if of == kind and phase in (None, at):
                found[f"{line} ({what})"] += n
        return [f"{n} x {line}" for line, n in found.most_common()]


def _asking_line() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/src/rsdiff/" in name:
            return f"{name.split('/src/rsdiff/')[1]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "torch"


class OnDevice(Tensor):
    """A tensor on the pretended device; `inner` holds its values."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=_device(),
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.detach().__reduce_ex__(protocol)  # a checkpoint is read back on the CPU

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy: Tensor = OnDevice(self.inner.clone())
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the pretended device outside `with PretendedAccelerator()`")


class PretendedAccelerator(TorchDispatchMode):
    """The device, while the block lasts; see the module."""

    def __init__(self, values: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _register()
        self.tally = Tally()
        self.inner_device = torch.device("cpu" if values else "meta")
        self._stack = ExitStack()

    def __enter__(self) -> Tally:  # type: ignore[override]
        self._stack.enter_context(_patches())
        super().__enter__()
        return self.tally

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in tree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        wanted = kwargs.get("device")
        if any(isinstance(leaf, OnDevice) for leaf in leaves) or (wanted is not None and torch.device(wanted).type == NAME):
            return self._run(func, args, kwargs, leaves)
        if func._schema.name.split("::")[1] in DRAWS:
            self.tally.note("host draw", func._schema.name)
        began = time.thread_time_ns()
        result = func(*args, **kwargs)
        took = time.thread_time_ns() - began
        self.tally.host[self.tally.phase, _asking_line()] += took
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any], leaves: list[Tensor]) -> Any:
        transfer = self._transfer(func, args, kwargs, leaves)
        if transfer is not None:
            return transfer[0]
        self._judge(func, args, kwargs, leaves)
        inner_args, inner_kwargs = tree.tree_map(self._inner, (args, kwargs))
        if inner_kwargs.get("device") is not None:
            inner_kwargs["device"] = self.inner_device
        inner_kwargs.pop("pin_memory", None)
        result = func(*inner_args, **inner_kwargs)
        self._count(func, inner_args, inner_kwargs, result)
        return _given_back(func, args, kwargs, result)

    def _inner(self, leaf: Any) -> Any:
        if isinstance(leaf, OnDevice):
            return leaf.inner
        return leaf.to(self.inner_device) if isinstance(leaf, Tensor) else leaf

    def _transfer(self, func: Any, args: Any, kwargs: dict[str, Any], leaves: list[Tensor]) -> tuple[Any] | None:
        """Return (result,) of an operation that moves values between host and device, else None."""
        if func is aten._local_scalar_dense.default:
            self.tally.note("sync", "item")
            value = leaves[0].inner  # type: ignore[attr-defined]
            return (value.item() if value.device.type != "meta" else value.new_ones((), device="cpu").item(),)
        on_device = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
        if func is aten._to_copy.default:
            options = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory", "layout")}
            if not on_device:
                self._copied_in(leaves[0], bool(kwargs.get("non_blocking")))
                return (OnDevice(func(leaves[0], **options).to(self.inner_device)),)
            if kwargs.get("device") is not None and torch.device(kwargs["device"]).type != NAME:
                self._copied_out(bool(kwargs.get("non_blocking")))
                value = on_device[0].inner
                known = value if value.device.type != "meta" else torch.ones(value.shape, dtype=value.dtype)
                return (func(known, **options),)
        if func is aten.copy_.default and len(on_device) < len(leaves):
            target, source = args[0], args[1]
            if isinstance(target, OnDevice):
                self._copied_in(source, len(args) > 2 and bool(args[2]))
                target.inner.copy_(source.to(self.inner_device))
            else:
                self.tally.note("sync", "copied to the host")
                if source.inner.device.type != "meta":
                    target.copy_(source.inner)
            return (target,)
        return None

    def _copied_in(self, source: Tensor, non_blocking: bool) -> None:
        # CUDA's copy of pageable memory waits for the stream, unless it is told not to.
        self.tally.note("copy" if non_blocking else "sync", f"copied to the device {tuple(source.shape)}")
        self.tally.launches[self.tally.phase] += 1

    def _copied_out(self, non_blocking: bool) -> None:
        self.tally.note("copy" if non_blocking else "sync", "copied to the host")

    def _judge(self, func: Any, args: Any, kwargs: dict[str, Any], leaves: list[Tensor]) -> None:
        """Note what CUDA would refuse, and where the host waits."""
        name = func._schema.name.split("::")[1]
        if name in READ_BACK or (name == "repeat_interleave" and "Tensor" in func._overloadname and kwargs.get("output_size") is None):
            self.tally.note("sync", name)
        if name.startswith(("linalg_inv_ex", "linalg_cholesky", "linalg_solve", "_linalg_eigh")):
            self.tally.note("sync", name)  # solvers report their success to the host
        if func in INDEXING:
            self._judge_index(func, args)
            return
        strangers = [leaf for leaf in leaves if not isinstance(leaf, OnDevice)]
        lists = name.startswith(("_foreach", "_fused"))
        if any(leaf.dim() for leaf in strangers) and not lists:
            self.tally.note("mismatch", f"{func} with {[tuple(leaf.shape) for leaf in strangers]} of the CPU")
        elif strangers and not lists and torch.Tag.pointwise not in func.tags and name not in LOOSE_SCALARS:
            self.tally.note("mismatch", f"{func} with a number of the CPU")
        elif strangers and name.endswith("_") and leaves[0] is strangers[0]:
            self.tally.note("mismatch", f"{func} writes to the CPU")
        generator = kwargs.get("generator")
        if generator is not None and not isinstance(generator, Generator):
            self.tally.note("mismatch", f"{func} with a generator of the CPU")

    def _judge_index(self, func: Any, args: Any) -> None:
        for index in args[1]:
            if index is None:
                continue
            if index.dtype in (torch.bool, torch.uint8):
                self.tally.note("sync", "indexed by a mask")
            if not isinstance(index, OnDevice) and isinstance(args[0], OnDevice):
                self.tally.note("sync", f"index of the CPU {tuple(index.shape)}")
        if not isinstance(args[0], OnDevice):
            self.tally.note("mismatch", f"{func}: a tensor of the CPU indexed from the device")
        elif len(args) > 2 and not isinstance(args[2], OnDevice) and args[2].dim():
            self.tally.note("mismatch", f"{func}: values of the CPU")

    def _count(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        name = func._schema.name.split("::")[1]
        if name in VIEWS:
            return
        self.tally.launches[self.tally.phase] += 1
        tensors = [leaf for leaf in tree.tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        self.tally.bytes += sum(leaf.numel() * leaf.element_size() for leaf in tensors)
        if func._overloadpacket in flop_registry:
            self.tally.flops += int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=result))
        for leaf in tree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dtype in (torch.float64, torch.complex128) and leaf.numel() > 64:
                self.tally.note("float64", name)
                break


class Event:
    """Work of the pretended device is done when it is asked for."""

    def __init__(self, device: torch.device) -> None: ...
    def record(self) -> None: ...
    def synchronize(self) -> None: ...


class Generator(HostGenerator):
    """A generator of the pretended device, where one was asked for."""

    def __new__(cls, device: torch.device | str = "cpu") -> HostGenerator:  # type: ignore[misc]
        kind = cls if torch.device(device).type == NAME else HostGenerator
        return HostGenerator.__new__(kind, "cpu")


def _device() -> torch.device:
    return torch.device(f"{NAME}:0")


@functools.cache
def _register() -> None:
    """Make PyTorch know the device; once per process, and without effect on anything that does not name it."""

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    # One kernel on CUDA; PyTorch would give another back end a formula of several.
    for name in ("silu_backward", "mish_backward"):
        _LIBRARY.impl(name, _unreachable, "PrivateUse1")


_LIBRARY = torch.library.Library("aten", "IMPL")


def _unreachable(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the pretended device computes nothing itself")


def device() -> torch.device:
    """Return the pretended device, known to PyTorch from then on."""
    _register()
    return _device()


@contextmanager
def _patches() -> Iterator[None]:
    """Send to the device what PyTorch copies below the dispatcher, and let optimisers use their fused loops as on CUDA."""
    plain_tensor, plain_as_tensor = torch.tensor, torch.as_tensor

    def tensor(data: Any, *args: Any, device: Any = None, **options: Any) -> Tensor:
        made = plain_tensor(data, *args, **options)
        return made if device is None else made.to(device)

    def as_tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        if isinstance(data, OnDevice):
            return data.to(device=device or data.device, dtype=dtype or data.dtype)
        made = plain_as_tensor(data, dtype=dtype)
        return made if device is None else made.to(device)

    def new_tensor(self: Tensor, data: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        return plain_as_tensor(data, dtype=dtype or self.dtype).to(device or _device())

    def has_foreach(tensors: Any, device: torch.device) -> bool:
        return device.type in ("cuda", NAME)

    def supported() -> list[str]:
        return ["cuda", "xpu", NAME]

    kinds: list[type] = sys.modules["torch.optim.optimizer"]._foreach_supported_types
    with ExitStack() as stack:
        for owner, name, value in (
            (torch, "tensor", tensor),
            (torch, "as_tensor", as_tensor),
            (OnDevice, "new_tensor", new_tensor),
            (OnDevice, "__getitem__", lambda self, at: torch._C.TensorBase.__getitem__(self, _index(at))),  # type: ignore[attr-defined]
            (OnDevice, "__setitem__", lambda self, at, v: torch._C.TensorBase.__setitem__(self, _index(at), v)),  # type: ignore[attr-defined]
            (transfer, "QUEUES", frozenset({NAME})),
            (torch, "Event", Event),
            (torch, "Generator", Generator),
            (_foreach_utils, "_get_foreach_kernels_supported_devices", supported),
            (_foreach_utils, "_has_foreach_support", has_foreach),
            (_foreach_utils, "_get_fused_kernels_supported_devices", supported),
            (sys.modules["torch.optim.optimizer"], "_get_fused_kernels_supported_devices", supported),
            (torch.nn.utils.clip_grad, "_has_foreach_support", has_foreach),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        kinds.append(OnDevice)
        stack.callback(kinds.remove, OnDevice)
        yield


def _index(at: Any) -> Any:
    """Return an index whose lists are tensors of the device: PyTorch would copy them unseen."""
    if isinstance(at, tuple):
        return tuple(_index(part) for part in at)
    if isinstance(at, list | range) or type(at).__name__ == "ndarray":
        return torch.tensor(list(at)).to(_device())
    return at


def _given_back(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    """Return the results as tensors of the device; the argument itself where the operation wrote to it."""
    many = isinstance(result, tuple | list)
    values = list(result) if many else [result]
    written = _written(func)
    if not any(written):
        return tree.tree_map(lambda leaf: OnDevice(leaf) if isinstance(leaf, Tensor) else leaf, result)
    given = []
    for value, source in zip(values, written, strict=True):
        if source is None:
            given.append(OnDevice(value) if isinstance(value, Tensor) else value)
            continue
        place, name = source
        original = args[place] if place < len(args) else kwargs[name]
        if isinstance(original, OnDevice) and original.shape != original.inner.shape:
            raise RuntimeError(f"{func} changed a shape in place")
        given.append(original)
    return tuple(given) if many else given[0]


@functools.cache
def _written(func: Callable[..., Any]) -> list[tuple[int, str] | None]:
    """Return, for each result of an operation, the argument (place, name) that it is written to, or None."""
    schema: Any = func._schema  # type: ignore[attr-defined]
    found: list[tuple[int, str] | None] = []
    for result in schema.returns:
        alias = result.alias_info
        if alias is None or not alias.is_write:
            found.append(None)
            continue
        names = set(alias.before_set) | set(alias.after_set)
        found.append(
            next(
                (
                    (place, argument.name)
                    for place, argument in enumerate(schema.arguments)
                    if argument.alias_info is not None and argument.alias_info.is_write and set(argument.alias_info.before_set) & names
                ),
                None,
            )
        )
    return found
