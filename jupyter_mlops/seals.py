"""What acts when it is brought back is sealed: only the machine that kept it brings it back.

A function's text, a class's statement and a pickle are programs, and a run's result that is put back writes files. What
holds such a thing has a seal: a keyed BLAKE3 of all the rest of it, and so of every object it names, under a key that
lies in the user's own state folder, readable to nobody else, and never in a store. A store that comes from elsewhere
holds values, never code.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from blake3 import blake3

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Digest

_SIZE: Final = 32


class SealRefused(MlopsError, PermissionError):
    """A program in a store was not sealed by this machine: it is not run."""

    exit_code = 1


def key_path() -> Path:
    """Where this user's key lies on this machine."""
    import platformdirs

    return Path(platformdirs.user_state_dir("jupyter-mlops", appauthor=False)) / "seal.key"


def local_key(path: Path | None = None) -> bytes:
    """This user's key on this machine, made when first asked for.

    Raises
    ------
    SealRefused
        The file is not the user's own, others may read it, or it is no key.
    OSError
        It cannot be made or read.
    """
    path = path or key_path()
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(_SIZE))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):  # another process was faster: its key is the key
            os.link(temporary, path)
        os.unlink(temporary)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise SealRefused(
                "the key that seals kept programs is refused", cause=f"others can get at {path.name}",
                next=f"chmod 600 {path.name}, or remove it: what it sealed is then made by re-running its cells",
            )  # fmt: skip
        key = os.read(descriptor, _SIZE + 1)
    finally:
        os.close(descriptor)
    if len(key) != _SIZE:
        raise SealRefused("the key that seals kept programs is damaged", cause=f"{path.name} has {len(key)} bytes")
    return key


def seal(key: bytes, digest: str, *, use: str = "values-1") -> str:
    """The seal of what a digest names, good for one use: a seal of one kind of thing is none of another."""
    return blake3(f"{use}\0{digest}".encode(), key=key).hexdigest()


def check(key: bytes, digest: Digest, found: object) -> None:
    """See that something was sealed here.

    Raises
    ------
    SealRefused
        It was not.
    """
    if type(found) is not str or not hmac.compare_digest(seal(key, digest).encode(), found.encode()):
        raise SealRefused(
            "kept definitions and programs are not run", cause="they were not kept by this user on this machine",
            next="re-run the cells that made them",
        )  # fmt: skip
