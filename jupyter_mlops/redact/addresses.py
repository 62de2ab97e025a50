"""Addresses without their credentials."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from jupyter_mlops.redact.names import UNREADABLE, keylike, strength_of

_SCP: Final = re.compile(r"(?:[^@/\s:]+@)?([^@/\s:]+):(?!/)(.*)", re.DOTALL)
_SAFE_QUERY: Final = frozenset("page limit offset sort order format version year month day date start end lang".split())


def clean_url(url: str) -> str:
    """Take user-info, fragment and the values of secret query parameters out of a URL.

    >>> clean_url("https://me:pw@example.org/data.csv?year=2013&sig=Zm9v#top")
    'https://example.org/data.csv?year=2013&sig=<redacted>'
    >>> clean_url("git@github.com:org/repo.git")
    'github.com:org/repo.git'

    Parameters
    ----------
    url
        An address, also ``host:path`` as git has it, or a path, which is returned as it is.

    Returns
    -------
    str
        The address; ``<redacted:unreadable>`` when it cannot be taken apart.
    """
    try:
        if "://" not in url:
            scp = _SCP.fullmatch(url) if "@" in url else None
            return f"{scp[1]}:{scp[2]}" if scp else url
        scheme, _, rest = url.partition("://")
        rest = rest.partition("#")[0]
        rest, _, query = rest.partition("?")
        cut = re.search(r"[/\\]", rest)
        host, path = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
        if (
            "@" in path
            and ":" in host
            and not re.fullmatch(r"[^:@]*(?::\d*)?|\[[^\]]*\](?::\d*)?", host.rpartition("@")[2])
        ):
            host, path = "", path.rpartition("@")[2]  # a slash within an unescaped password
        clean = f"{scheme}://{host.rpartition('@')[2]}{path}"
        if query:
            clean += "?" + "&".join(_clean_parameter(part) for part in query.split("&"))
        return clean
    except Exception:  # noqa: BLE001
        # an address that cannot be taken apart may hold anything: withheld
        return UNREADABLE


def _clean_parameter(part: str) -> str:
    name, equals, value = part.partition("=")
    if not equals:
        return "<redacted>" if keylike(name) else name
    low = unquote(name).lower()
    if low in _SAFE_QUERY:
        return part
    secret = (
        strength_of(low) >= 1
        or low in _SECRET_PARAMETERS
        or low.startswith(("x-amz-sig", "x-amz-cred", "x-goog-sig", "x-goog-cred"))
    )
    return f"{name}=<redacted>" if secret or keylike(unquote(value)) else part


_SECRET_PARAMETERS: Final = frozenset(
    "sig signature code key st sas auth pw pass user_token x-amz-security-token".split()
)
