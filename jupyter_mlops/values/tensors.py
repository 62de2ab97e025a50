"""PyTorch's tensors on the CPU: views of storages, which are regions of memory like any other."""

from __future__ import annotations

import sys
from typing import Any, Final

from jupyter_mlops.fingerprints import hull
from jupyter_mlops.fingerprints.walk import loaded
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.keeping import Keeper, Keeping
from jupyter_mlops.values.manifest import ManifestRefused, NotKept
from jupyter_mlops.values.memory import checked

_DTYPES: Final = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex32",
    "complex64", "complex128",
)  # fmt: skip


def keeper_for(kind: type, module: str, qualname: str) -> Keeper | None:  # noqa: ARG001 - the signature of all libraries
    """Who writes one of PyTorch's own types; modules are instances like any other."""
    if kind is loaded("torch._tensor", "Tensor") or kind is loaded("torch.nn.parameter", "Parameter"):
        return _keep_tensor
    if kind is loaded("torch", "dtype"):
        return lambda _keep, value: ["torch.dtype", _name(value)]
    if kind is loaded("torch", "device"):
        return lambda keep, value: ["torch.device", keep.operand(value.type), keep.operand(value.index)]
    if kind is loaded("torch", "Size"):
        return lambda _keep, value: ["torch.size", list(map(int, value))]
    return None


def _name(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise NotKept(f"the dtype {name} is not known")
    return name


def _dtype(name: Any) -> Any:
    import torch

    if name not in _DTYPES:
        raise ManifestRefused("a kept tensor is refused", cause="its dtype is not known")
    return getattr(torch, name)


maker("torch.dtype")(lambda _bring, node, _number: _dtype(node[1]))


@maker("torch.device")
def _device(bring: Bringing, node: list[Any], _number: int) -> Any:
    import torch

    return torch.device(bring.operand(node[1]), *([] if node[2] is None else [bring.operand(node[2])]))


@maker("torch.size")
def _size(_bring: Bringing, node: list[Any], _number: int) -> Any:
    import torch

    return torch.Size(node[1])


def _keep_tensor(keep: Keeping, value: Any) -> list[Any]:
    torch = sys.modules["torch"]
    with torch._C.DisableTorchFunction():  # a mode of the user's would be asked about every step
        if value.device.type != "cpu":
            raise NotKept("its memory is not the CPU's")
        if value.layout is not torch.strided or value.is_quantized or getattr(value, "is_nested", False):
            raise NotKept("a tensor that is sparse, quantized or nested")
        if value.is_conj() or value.is_neg():
            raise NotKept("a tensor that is conjugated or negated when it is read")
        if value.grad_fn is not None:
            raise NotKept("it is part of a graph that gradients flow back through")
        if getattr(value, "_backward_hooks", None):
            raise NotKept("a tensor with hooks")
        width = value.element_size()
        shape = [int(side) for side in value.shape]
        strides = [int(step) * width for step in value.stride()]
        low, high = hull(shape, strides, width)
        start = value.data_ptr() + low if value.numel() else 0
        keep.hold(value.detach())
        grad = value.grad if value.is_leaf else None
        state = dict(object.__getattribute__(value, "__dict__"))
        return [
            "torch.tensor", type(value) is not torch.Tensor, _name(value.dtype), shape, strides,
            bool(value.requires_grad), keep.memory.span(start, start + high - low),
            None if grad is None else keep.operand(grad), keep.operand(state) if state else None,
        ]  # fmt: skip


@maker("torch.tensor")
def _tensor(bring: Bringing, node: list[Any], number: int) -> Any:
    import torch

    _, parameter, name, shape, strides, requires, (region, offset), grad, state = node
    dtype = _dtype(name)
    width = torch.empty(0, dtype=dtype).element_size()
    memory = bring.region(region)
    sides, steps = checked(len(memory), offset, shape, strides, width)
    low, _ = hull(sides, steps, width)
    first = offset - low
    if any(step % width or step < 0 for step in steps) or first % width:
        raise ManifestRefused("a kept tensor is refused", cause="its items would lie between items")
    if memory.size:
        plain = torch.from_numpy(memory).view(torch.uint8)
        made = torch.empty(0, dtype=dtype)
        made.set_(plain.untyped_storage(), first // width, sides, [step // width for step in steps])
    else:
        made = torch.empty(sides, dtype=dtype)
    if parameter is True:
        made = torch.nn.Parameter(made, requires_grad=requires is True)
    elif requires is True:
        made.requires_grad_(True)
    bring.early(number, made)
    if grad is not None:
        made.grad = bring.operand(grad)
    if state is not None:
        held = bring.operand(state)
        bring.later(lambda: bring.later(lambda: object.__getattribute__(made, "__dict__").update(held)))
    return made
