"""A value's digest by its full content, made without importing the value's library or calling into unknown objects.

`fingerprint` names any value a notebook holds: equal content gives an equal digest, in every process, under every hash
seed and Python version; any change of a value, name, type, order or index gives another. What has no honest digest
(a generator, a lazy frame, a proxy, an unknown type) gets none, and the reason. What each digest is made of is written
down in `docs/fingerprints.md`, so that it can be computed again without this code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from jupyter_mlops.fingerprints import plain as _plain  # noqa: F401 - it fills the tables
from jupyter_mlops.fingerprints.walk import INLINE, Budget, NoFingerprint, Walk, name_of
from jupyter_mlops.records import Digest, encode

__all__ = [
    "Budget",
    "Fingerprint",
    "Holdings",
    "Provider",
    "Stretch",
    "axes",
    "buffers",
    "facts_bytes",
    "file_digest",
    "fingerprint",
    "folder_digest",
    "holdings",
    "hull",
    "immutable",
    "notes",
    "numbers",
    "providers",
    "source_of",
    "starts",
    "summable",
    "summarise",
]


class Fingerprint(msgspec.Struct, frozen=True):
    """What is known of a value's content.

    Attributes
    ----------
    digest
        ``tag:hex``; the tag says how it was made. None where there is none.
    size
        Logical bytes that were hashed.
    type
        The value's exact class, as in ``pandas.DataFrame``.
    facts
        Schema, shape, layout and per-part digests, in builtin types; None where there is nothing to say. Never a text
        out of the value.
    why
        Why there is no digest.
    """

    digest: Digest | None
    size: int = 0
    type: str = ""
    facts: dict[str, Any] | None = None
    why: str = ""


_NO_LIMIT = None
_HEAD = b"value-1\0"


def fingerprint(
    value: object,
    *,
    budget: Budget | None = None,
    summary: bool = False,
    known: Mapping[tuple[int, str, tuple[int, ...]], str] | None = None,
) -> Fingerprint:
    """The digest of a value by its full content.

    Parameters
    ----------
    value
        Anything. Nothing of it runs unless its exact type is known to run nothing of the user's.
    budget
        What it may cost; without one, whatever it costs.
    summary
        Put `summarise`'s counts and ranges among the facts.
    known
        Digests of contiguous arrays by address, dtype and shape: for who has just read their bytes and verified
        them by another name, so that they are not hashed twice.

    Returns
    -------
    Fingerprint
        Without digest and with the reason where there is no honest one. Only an interrupt by the user, and what ends
        the process, is raised.

    Examples
    --------
    >>> fingerprint(1).digest == fingerprint(True).digest
    False
    >>> fingerprint({"a": 1, "b": 2}).digest == fingerprint({"b": 2, "a": 1}).digest
    True
    >>> fingerprint(iter([])).why
    'a list_iterator is used up by reading it'
    """
    kind = type(value)
    inline = INLINE.get(id(kind))
    try:
        if inline is not None:
            raw = inline(value)
            return Fingerprint(Digest("value-1:" + _blake3(_HEAD + raw).hexdigest()), len(raw), kind.__name__)
        walk = Walk(budget or Budget())
        walk.known = known or {}
        encoded = walk.node(value)
        tag, _, digest = encoded[1:].partition(b":")
        walk.budget.check(walk.pending())
        facts = walk.facts
        if walk.order is not None:
            facts = {
                **(facts or {}),
                "layout": {**((facts or {}).get("layout") or {}), "order": walk.order.hexdigest()},
            }
        if summary:
            facts = {**(facts or {}), "summary": _summary(value)}
        return Fingerprint(Digest(f"{tag.decode()}:{digest.hex()}"), walk.size, type_name(value), facts)
    except NoFingerprint as stop:
        return Fingerprint(None, 0, type_name(value), None, stop.why())
    except RecursionError:
        return Fingerprint(None, 0, type_name(value), None, "nested too deeply")
    except MemoryError:
        return Fingerprint(None, 0, type_name(value), None, "there was not enough memory")
    except Exception as error:  # noqa: BLE001 - a value that changes under our hands, or a library's internals that moved
        # its message may quote the value, so only the error's type is told
        return Fingerprint(None, 0, type_name(value), None, f"could not be read ({type(error).__name__})")


def _summary(value: object) -> dict[str, Any] | None:
    try:
        return summarise(value)
    except Exception:  # noqa: BLE001 - a library's internals that moved: the digest is there all the same
        return None


def type_name(value: object) -> str:
    """The name of a value's exact class, under its public name where the library keeps it in a private module.

    >>> type_name([]), type_name(Budget())
    ('list', 'jupyter_mlops.fingerprints.walk.Budget')
    """
    name = name_of(type(value))
    root, dot, rest = name.partition(".")
    if dot and root in _SHORT:
        return f"{root}.{rest.rpartition('.')[2]}"
    return name


_SHORT = frozenset({"pandas", "numpy", "polars", "pyarrow", "torch"})


def facts_bytes(facts: dict[str, Any]) -> bytes:
    """Facts in their one written form, to be kept as an object and named by its digest.

    >>> facts_bytes({"b": 1, "a": [2]})
    b'{"a":[2],"b":1}'
    """
    return encode(facts, sort=True)


from blake3 import blake3 as _blake3  # noqa: E402

from jupyter_mlops.fingerprints.code import source_of  # noqa: E402
from jupyter_mlops.fingerprints.files import file_digest, folder_digest  # noqa: E402
from jupyter_mlops.fingerprints.providing import Provider, providers  # noqa: E402
from jupyter_mlops.fingerprints.sharing import (  # noqa: E402
    Holdings,
    Stretch,
    axes,
    buffers,
    holdings,
    hull,
    immutable,
    notes,
    starts,
)
from jupyter_mlops.fingerprints.summary import numbers, summable, summarise  # noqa: E402
