"""Other libraries' own formats: kept as they are, read by the library concerned, which is imported only then."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import door
from jupyter_mlops.registry.formats.kinds import Format
from jupyter_mlops.values.trust import FormatRefused, LoadRefused, ModelDamaged, class_of

# -- ONNX ------------------------------------------------------------------------------------------------------------


def _load_onnx(data: bytes) -> object:
    runtime = door("onnxruntime", "onnx")
    outside = _outside(_onnx(data))
    if outside:
        raise LoadRefused("the ONNX model takes its weights from other files", cause=f"it names {outside[0]!r}")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what it has to say it says in its exception too
    try:
        return runtime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        raise ModelDamaged("the ONNX model can not be read", cause=_first_line(error)) from error


def _dump_onnx(model: object) -> bytes:
    if class_of(model) != _MODEL_PROTO:
        raise FormatRefused(
            f"a {class_of(model)} is no ONNX model",
            next="convert it (as in onx = skl2onnx.to_onnx(model, X[:1])), and register what comes out",
        )
    data: bytes = model.SerializeToString()  # type: ignore[attr-defined]
    _check_onnx(data)
    return data


def _check_onnx(data: bytes) -> None:
    """Refuse a model whose weights lie in other files: those would not be kept with it.

    What is not installed can not look: loading does in any case.
    """
    if "onnx" not in sys.modules:
        try:
            import onnx  # noqa: F401
        except ImportError:
            return
    try:
        outside = _outside(_onnx(data))
    except ModelDamaged:
        return  # kept as it is, and refused when it is loaded
    if outside:
        raise FormatRefused(
            "the ONNX model is not whole", cause=f"it takes weights from another file, {outside[0]!r}",
            next="put them into one file: onnx.save(onnx.load(path), 'whole.onnx')",
        )  # fmt: skip


def _onnx(data: bytes) -> Any:
    onnx = door("onnx", "onnx")
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

    try:
        return onnx.load_model_from_string(data)  # reads no other file
    except (DecodeError, ValueError, RecursionError) as error:
        raise ModelDamaged("the ONNX model can not be read", cause=_first_line(error)) from error


def _outside(model: Any) -> list[str]:
    """The files that tensors anywhere in a model lie in."""
    found = []
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == tensor.EXTERNAL:
            places = {entry.key: entry.value for entry in tensor.external_data}
            found.append(str(places.get("location", "?"))[:200])
    return found


def _tensors(model: Any) -> Iterator[Any]:
    due = [model]
    while due:
        message = due.pop()
        if message.DESCRIPTOR.name == "TensorProto":
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                due.extend([value] if hasattr(value, "ListFields") else value)


_MODEL_PROTO: Final = "onnx.onnx_ml_pb2.ModelProto"

# -- safetensors -----------------------------------------------------------------------------------------------------

_LONGEST_HEADER: Final = 100_000_000
_OF_NUMPY: Final = frozenset("F64 F32 F16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL C64".split())


def _load_safetensors(data: bytes) -> object:
    """Tensors by name: of torch where it wrote them or only it knows their type, else numpy's arrays."""
    library = door("safetensors", "torch")
    header = _header(data)
    told = header.pop("__metadata__", None)
    kinds = {one.get("dtype") for one in header.values() if isinstance(one, dict)}
    of_torch = (isinstance(told, dict) and told.get("format") == "pt") or not kinds <= _OF_NUMPY
    try:
        if of_torch:
            door("torch", "torch")
            from safetensors.torch import load
        else:
            from safetensors.numpy import load  # type: ignore[assignment,unused-ignore]
        loaded: object = load(data)
    except (library.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelDamaged("the safetensors file can not be read", cause=_first_line(error)) from error
    return loaded


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_LONGEST_HEADER, len(data) - 8):
        raise ModelDamaged(
            "the safetensors file can not be read", cause=f"its header would be {length:,} of its {len(data):,} bytes"
        )
    try:
        return msgspec.json.decode(data[8 : 8 + length], type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ModelDamaged("the safetensors file can not be read", cause=_first_line(error)) from error


def _dump_safetensors(model: object) -> bytes:
    """The tensors of a module, of a state dict, or of any dict of arrays."""
    door("safetensors", "torch")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        model = model.state_dict()
    if not isinstance(model, dict) or not model or not all(isinstance(name, str) for name in model):
        raise FormatRefused(
            f"a {class_of(model)} is no dict of tensors", next="register its tensors by name: model.state_dict()"
        )
    try:
        if torch is not None and all(isinstance(one, torch.Tensor) for one in model.values()):
            from safetensors.torch import save

            return bytes(save({name: one.contiguous() for name, one in model.items()}, metadata={"format": "pt"}))
        import numpy as np
        from safetensors.numpy import save as save_arrays

        # its writer takes the bytes of an array as they lie, whatever its strides say
        arrays = {name: np.ascontiguousarray(one) for name, one in model.items()}
        return bytes(save_arrays(arrays, metadata={"format": "np"}))
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise FormatRefused("these tensors can not be kept as safetensors", cause=_first_line(error)) from error


def _safetensors_like(head: bytes) -> bool:
    return len(head) > 8 and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER and head[8:9] == b"{"


# -- boosted trees ---------------------------------------------------------------------------------------------------

_XGBOOST: Final = {
    f"xgboost.sklearn.{name}": kind
    for name, kind in (("XGBClassifier", "classifier"), ("XGBRegressor", "regressor"), ("XGBRanker", "ranker"))
}


def _dump_xgboost(model: Any) -> bytes:
    if class_of(model) not in {"xgboost.core.Booster", *_XGBOOST}:
        raise FormatRefused(f"a {class_of(model)} is no booster of XGBoost", next="register model.get_booster()")
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:  # only a file says what kind of estimator it was
        path = os.path.join(folder, "model.ubj")
        try:
            model.save_model(path)
        except Exception as error:  # not fitted, or what else XGBoost has to object
            raise FormatRefused(f"a {class_of(model)} can not be kept", cause=_first_line(error)) from error
        with open(path, "rb") as file:
            return file.read()


def _load_xgboost(data: bytes) -> object:
    """A booster or, where the bytes say that they are one, XGBoost's estimator (without its training parameters)."""
    library = door("xgboost", "xgboost")
    try:
        booster = library.Booster(model_file=bytearray(data))
        told = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
        name = next((name for name, kind in _XGBOOST.items() if kind == told), None)
        if name is None:
            return booster
        estimator = getattr(library, name.rpartition(".")[2])()
        estimator.load_model(bytearray(data))
    except (ValueError, TypeError, AttributeError) as error:  # XGBoost's own errors are ValueErrors
        raise ModelDamaged("these bytes are no model of XGBoost", cause=_first_line(error)) from error
    return estimator


def _dump_lightgbm(model: Any) -> bytes:
    if class_of(model) != "lightgbm.basic.Booster":
        raise FormatRefused(f"a {class_of(model)} is no booster of LightGBM", next="register model.booster_")
    text: str = model.model_to_string()
    return text.encode()


def _load_lightgbm(data: bytes) -> object:
    if not data.startswith(b"tree\n"):
        raise ModelDamaged("these bytes are no model of LightGBM", cause="they do not begin as one does")
    library = door("lightgbm", "lightgbm")
    try:
        return library.Booster(model_str=data.decode())
    except (library.basic.LightGBMError, ValueError) as error:
        raise ModelDamaged("these bytes are no model of LightGBM", cause=_first_line(error)) from error


def _text_like(head: bytes) -> bool:
    return b"\0" not in head and not head.startswith(b"\x80")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


NATIVE: Final[Mapping[str, Format]] = {
    one.name: one
    for one in (
        Format(
            name="onnx", suffixes=(".onnx",), load=_load_onnx, dump=_dump_onnx, check=_check_onnx,
            looks=lambda head: head[:1] == b"\x08", takes=(_MODEL_PROTO,),
        ),
        Format(
            name="safetensors", suffixes=(".safetensors",), load=_load_safetensors, dump=_dump_safetensors,
            looks=_safetensors_like,
        ),
        Format(
            name="xgboost", load=_load_xgboost, dump=_dump_xgboost, looks=lambda head: head[:1] == b"{",
            takes=("xgboost.core.Booster", *_XGBOOST), fragile=True, foreign="ubj",
        ),
        Format(
            name="lightgbm", load=_load_lightgbm, dump=_dump_lightgbm, looks=lambda head: head[:5] == b"tree\n",
            takes=("lightgbm.basic.Booster",), fragile=True, foreign="text",
        ),
        Format(
            name="json", suffixes=(".json",), load=_load_xgboost, fragile=True,
            looks=lambda head: _text_like(head) and head.lstrip()[:1] in b"{[",
        ),
        Format(
            name="ubj", suffixes=(".ubj",), load=_load_xgboost, fragile=True, looks=lambda head: head[:1] in b"{[",
        ),
        Format(name="text", suffixes=(".txt",), load=_load_lightgbm, fragile=True, looks=_text_like),
    )
}  # fmt: skip
"""Formats of files that are kept as they are, and of two libraries' objects."""
