"""What pages send, each a struct: JSON with exactly these fields, of these types, and no longer than is meant.

None of them says who acts: that is for the server to know.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

_Version = Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
"""What something is called."""
Place = Annotated[str, msgspec.Meta(max_length=4096)]
"""A path, as the server's contents name it."""
_Text = Annotated[str, msgspec.Meta(max_length=4000)]
_Gates = Annotated[list[Name], msgspec.Meta(max_length=50)]
_Tickets = Annotated[list[Name], msgspec.Meta(max_length=20)]


class _Sent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that is to be done."""


class Check(_Sent, frozen=True, kw_only=True):
    """Ask a version these gates; those that the project's settings demand for the alias, where none are named."""

    version: _Version
    alias: Name = "production"
    gates: _Gates = []


class Promote(_Sent, frozen=True, kw_only=True):
    """Point an alias to a version, if it passes what the project's settings demand, and these gates too."""

    version: _Version
    alias: Name
    gates: _Gates = []
    reason: _Text = ""
    tickets: _Tickets = []


class RollBack(_Sent, frozen=True, kw_only=True):
    """Point an alias back to what it pointed to before."""

    alias: Name
    reason: _Text = ""
    tickets: _Tickets = []


class Approve(_Sent, frozen=True, kw_only=True):
    """Approve exactly this version, or take that back."""

    version: _Version
    reason: _Text = ""
    tickets: _Tickets = []
    withdraw: bool = False


class CheckOut(_Sent, frozen=True, kw_only=True):
    """Write the code and files of a cell run, run or model into a folder that is new or empty."""

    what: Name
    folder: Place


class Slice(_Sent, frozen=True, kw_only=True):
    """Write the smallest notebook that makes something; over no file that is there."""

    what: Name
    output: Place
    allow_unseeded: bool = False


SENT: Final = (Check, Promote, RollBack, Approve, CheckOut, Slice)
"""What the pages' types are made of, besides the answers."""
