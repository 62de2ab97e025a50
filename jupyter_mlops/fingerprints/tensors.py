"""PyTorch's tensors and modules, where PyTorch is loaded.

A tensor counts by its dtype, shape and items in C order, whether it is a parameter, and whether it takes gradients;
the gradient itself, the graph it came from and its strides do not count. Its memory is read where it lies, and only if
that is the CPU's. A module counts by its class, its parameters, buffers and submodules by name, and its attributes.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from jupyter_mlops.fingerprints import plain
from jupyter_mlops.fingerprints.code import version_of
from jupyter_mlops.fingerprints.walk import (
    Handler,
    Node,
    NoFingerprint,
    Walk,
    begin,
    count,
    derives,
    finish,
    loaded,
    name_of,
    seal,
    text,
)

TAG: Final = b"tensor-1"
GRADIENT: Final = b"tensor-2"
MODEL: Final = b"model-1"
_STATE: Final = ("_parameters", "_buffers", "_modules")


def handler_for(kind: type, module: str, qualname: str) -> Handler | None:  # noqa: ARG001 - the signature of all libraries
    """The handler for one of PyTorch's own types, or for anybody's module.

    Raises
    ------
    NoFingerprint
        It is PyTorch's and not known.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        if kind is loaded("torch._tensor", "Tensor") or kind is loaded("torch.nn.parameter", "Parameter"):
            return _tensor
        if kind is loaded("torch", "dtype") or kind is loaded("torch", "device"):
            return lambda _walk, value: seal(TAG, kind.__name__.encode(), text(str(value)))
        if kind is loaded("torch", "Size"):
            return lambda walk, value: seal(TAG, b"size", walk.item(tuple.__getitem__(value, slice(None))))
        if is_module(kind):
            return module_node
    raise NoFingerprint(f"the type {name_of(kind)} is not known")


def is_module(kind: type) -> bool:
    """Whether a class is PyTorch's `Module` or derived from it."""
    found = loaded("torch.nn.modules.module", "Module")
    return found is not None and derives(kind, found)


def _tensor(walk: Walk, value: Any) -> Node:
    torch = sys.modules["torch"]
    with torch._C.DisableTorchFunction():  # a mode of the user's would be asked about every step
        node = _items(walk, torch, value)
        grad = value.grad if value.is_leaf else None
        # what `backward` left, and the next step takes
        return node if grad is None else seal(GRADIENT, b"gradient", node.inline(), walk.at(".grad", grad))


def _items(walk: Walk, torch: Any, value: Any) -> Node:
    if value.device.type != "cpu":
        raise NoFingerprint("its memory is not the CPU's")
    if value.layout is not torch.strided or value.is_quantized or getattr(value, "is_nested", False):
        raise NoFingerprint("a tensor that is sparse, quantized or nested")
    shared = value.detach().resolve_conj().resolve_neg()
    flat = shared.reshape(-1)  # where the memory lies in C order this shares it
    hasher = begin(walk, TAG, b"parameter" if type(value) is not torch.Tensor else b"tensor")
    hasher.update(text(str(value.dtype)) + count(value.dim()) + b"".join(map(count, value.shape)))
    hasher.update(b"T" if value.requires_grad else b"F")
    # as bytes, since NumPy has no word for some of the types; one without items cannot be seen so
    walk.feed(hasher, flat.contiguous().view(torch.uint8).numpy() if flat.numel() else b"")
    if walk.top:
        walk.facts = {
            "schema": {"dtype": str(value.dtype), "requires_grad": bool(value.requires_grad)},
            "shape": list(value.shape), "layout": {"order": "C" if value.is_contiguous() else "strided"},
        }  # fmt: skip
    return finish(TAG, hasher)


def module_node(walk: Walk, value: Any) -> Node:
    """The node of a module: its class, and its state by name."""
    kind = type(value)
    state: dict[str, Any] = object.__getattribute__(value, "__dict__")
    hasher = begin(walk, MODEL, b"module")
    hasher.update(text(name_of(kind)) + text(version_of("torch")) + walk.at(".__class__", kind))
    for part in _STATE:
        hasher.update(text(part))
        plain.mapping(walk, hasher, dict(state.get(part) or {}))
    # hooks and the like are empty in most modules, and which of them there are depends on the release
    plain.mapping(walk, hasher, {
        name: held for name, held in state.items()
        if name not in _STATE and not (name.startswith("_") and (held is None or held is False or _empty(held)))
    })  # fmt: skip
    if walk.top:
        walk.facts = {"schema": {"class": name_of(kind), "torch": version_of("torch")}}
    return finish(MODEL, hasher)


def _empty(held: Any) -> bool:
    return name_of(type(held)) in ("dict", "set", "collections.OrderedDict") and not len(held)
