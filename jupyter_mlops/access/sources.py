"""The wrappers on what asks databases and services. (Comes with the next change.)"""

from __future__ import annotations


def wire() -> None:
    """Say what is to be wrapped; once per process."""
