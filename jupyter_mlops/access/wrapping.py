"""Puts wrappers on functions of other people's modules, and takes them off again without a trace.

A wrapper must not be noticed. It is a proxy (wrapt's, in C) that has the name, signature, documentation, equality,
binding and pickled form of what it stands for. While no cell runs it calls straight through, without a Python frame.
While one runs there is a frame, which could be seen in two ways:

* in tracebacks: it is taken out of the exception's before that goes on to the caller;
* as the caller, by what warns, or looks for variables, some levels up: so the original is called from a frame that has
  its caller's file, line and globals (and locals, where a library reads those).

Modules are wrapped when they are imported, never imported for it.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, Final, SupportsIndex

import wrapt

from jupyter_mlops.access.tracing import MUTED, active, current, problem


class Call:
    """A call of something wrapped, as its reports see it.

    Attributes
    ----------
    instance
        What a method is bound to.
    args, kwargs
        As the caller gave them.
    note
        What the report before the call answered.
    result
        What the original returned; there is none yet in the report before.
    """

    __slots__ = ("args", "instance", "kwargs", "note", "result")

    def __init__(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.instance, self.args, self.kwargs = instance, args, kwargs
        self.note: Any = None
        self.result: Any = None

    def argument(self, position: int, *names: str) -> Any:
        """An argument by its place, or by any of its names; None where it was left out."""
        if len(self.args) > position:
            return self.args[position]
        return next((self.kwargs[name] for name in names if name in self.kwargs), None)


Report = Callable[[Call], Any]

_placed: Final[list[tuple[Any, str, Any, Any]]] = []
_hooked: Final[set[str]] = set()
_wanted: Final[dict[str, list[Callable[[Any], None]]]] = {}
_on: list[bool] = [False]


class _Bound(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]
    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return self.__wrapped__.__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self


class Wrapped(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """A function and its reports; pickled and copied as the function is: by name, as itself."""

    __bound_function_wrapper__ = _Bound

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return self.__wrapped__.__qualname__

    def __reduce__(self) -> Any:
        return self.__wrapped__.__qualname__

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self


def bare(error: BaseException, frames: int = 1) -> None:
    """Take our own frames off the traceback of the user's exception, which is then raised on."""
    trace = error.__traceback__
    for _ in range(frames):
        if trace is not None:
            trace = trace.tb_next
    error.__traceback__ = trace


def _call(function: Any, args: Any, kwargs: Any) -> Any:
    return function(*args, **kwargs)


_codes: Final[dict[tuple[str, int], types.CodeType]] = {}


def as_caller(frame: Any) -> Callable[[Any, Any, Any], Any]:
    """A function that calls another from a frame that looks like the given one to whoever looks up from below."""
    key = (frame.f_code.co_filename, frame.f_lineno or 1)
    code = _codes.get(key)
    if code is None:
        if len(_codes) > 1000:
            _codes.clear()
        code = _codes[key] = _call.__code__.replace(
            co_filename=key[0], co_firstlineno=key[1], co_linetable=_ONE_LINE, co_name=frame.f_code.co_name
        )
    return types.FunctionType(code, frame.f_globals)


def _one_line(units: int) -> bytes:
    """A table of lines, as CPython's ``Objects/locations.md`` has it, that says "the first line" of all code units."""
    # an entry is 1 bit, 4 bits of kind (13: a line without columns), 3 bits of length less one; then the line's delta
    return b"".join(bytes([0x80 | 13 << 3 | min(8, units - at) - 1, 0]) for at in range(0, units, 8))


_ONE_LINE: Final = _one_line(len(_call.__code__.co_code) // 2)


_SCOPED: Final = compile("_jupyter_mlops_call(*_jupyter_mlops_args, **_jupyter_mlops_kwargs)", "<cell>", "eval")


def _as_caller_with_locals(frame: Any, function: Any, args: Any, kwargs: Any) -> Any:
    names = {
        **frame.f_locals,
        "_jupyter_mlops_call": function,
        "_jupyter_mlops_args": args,
        "_jupyter_mlops_kwargs": kwargs,
    }
    return eval(_SCOPED, frame.f_globals, names)  # noqa: S307 - a constant of ours


def reporting(before: Report | None, after: Report | None = None, *, scope: bool = False) -> Callable[..., Any]:
    """The body of a wrapper: report, call the original once, report.

    Parameters
    ----------
    before, after
        The reports; whatever they raise is kept from the user.
    scope
        Whether the original reads its caller's variables.
    """

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = Call(instance, args, kwargs)
        silent = current.get() is MUTED
        if before is not None and not silent:
            try:
                call.note = before(call)
            except BaseException as error:  # nothing of ours may reach the user's code
                if problem(error):
                    raise
                silent = True
        try:
            if scope:
                result = _as_caller_with_locals(sys._getframe(1), wrapped, args, kwargs)
            else:
                result = as_caller(sys._getframe(1))(wrapped, args, kwargs)
        except BaseException as error:  # the user's own error goes on, without our frames
            bare(error, 3 if scope else 2)
            raise
        if after is not None and not silent:
            try:
                call.result = result
                after(call)
            except BaseException as error:  # as above; the user gets the original's result
                if problem(error):
                    raise
        return result

    return wrapper


def place(holder: Any, name: str, wrapper: Callable[..., Any], *, others: Iterable[tuple[Any, str]] = ()) -> None:
    """Put a wrapper on an attribute, and the same one on other places that hold the same object.

    A place that does not exist, or can not be set, stays as it is.
    """
    space = vars(holder) if isinstance(holder, type | types.ModuleType) else {}
    original = space.get(name)
    if original is None or isinstance(original, Wrapped):
        return
    ours = Wrapped(original, wrapper, enabled=active.__len__)  # type: ignore[arg-type]  # any truth will do
    for where, attribute in ((holder, name), *others):
        held = vars(where).get(attribute)
        if held is original:
            try:
                setattr(where, attribute, ours)
            except (TypeError, AttributeError):  # a type made in C lets nobody set its attributes
                continue
            _placed.append((where, attribute, original, ours))


def replace(holder: Any, name: str, ours: Any) -> None:
    """Put something of ours in the place of an attribute."""
    original = vars(holder).get(name)
    if original is not None:
        setattr(holder, name, ours)
        _placed.append((holder, name, original, ours))


def when_imported(module: str, hook: Callable[[Any], None]) -> None:
    """Call the hook with the module: now if it is imported, else when it will be, as long as wrappers are on."""
    _wanted.setdefault(module, []).append(hook)


def _arrived(module: Any) -> None:
    name = module.__name__
    _hooked.discard(name)
    if not _on[0]:
        return
    for hook in _wanted.get(name, ()):
        try:
            hook(module)
        except BaseException as error:  # an import of the user's must not fail by us
            if problem(error):
                raise


def put_on() -> None:
    """Wrap what is imported, and ask to be told of the rest."""
    _on[0] = True
    for name in _wanted:
        module = sys.modules.get(name)
        if module is not None and getattr(getattr(module, "__spec__", None), "_initializing", False) is not True:
            _arrived(module)
        elif name not in _hooked:
            _hooked.add(name)
            wrapt.register_post_import_hook(_arrived, name)


def take_off() -> None:
    """Put the original objects back, where ours are still in their place, and where a library took ours over."""
    _on[0] = False
    libraries = {""}
    while _placed:
        holder, name, original, ours = _placed.pop()
        libraries.add((getattr(original, "__module__", None) or "").partition(".")[0])
        if vars(holder).get(name) is ours:
            setattr(holder, name, original)
    for title, module in list(sys.modules.items()):
        # ``from .core import *``, run while the wrapper was on, has carried it on; users' own modules may keep it
        if title.partition(".")[0] in libraries and isinstance(module, types.ModuleType):
            for name, value in list(vars(module).items()):
                if type(value) is Wrapped:
                    setattr(module, name, value.__wrapped__)
