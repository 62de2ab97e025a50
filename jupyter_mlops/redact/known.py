"""What is known to be secret around here: variables, credential files, running servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from jupyter_mlops.redact.names import PLACEHOLDER, PLAIN, keylike, strength_of, tokenlike

_FILE_SIZE: Final = 256 * 1024
_DOTENV: Final = re.compile(
    r"""^\s*(?:export\s+)?([A-Za-z_][\w.\-]*)\s*=\s*(?:"([^"\n]*)"|'([^'\n]*)'|([^\n#]*))""", re.MULTILINE
)
_NETRC: Final = re.compile(r"\b(?:password|account)\s+(\S+)")
_USERINFO: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://([^\s/?#@]*)@")


def known_secrets(environ: Mapping[str, str], home: Path | None = None, folder: Path | None = None) -> list[str]:
    """Collect the values that are secret here, from the environment and the usual credential files.

    Parameters
    ----------
    environ
        The process's variables.
    home
        The user's home folder: ``.netrc``, ``.git-credentials``, ``.pypirc``, those of the cloud tools, and the
        tokens of running Jupyter servers.
    folder
        The project's folder: ``.env`` and ``.env.*``.

    Returns
    -------
    list of str
        Values of at least six characters, each once; what cannot be read is passed over.
    """
    found: dict[str, None] = {}
    for name, value in environ.items():
        found.update(dict.fromkeys(_of_pair(name, value)))
    for path in _credential_files(environ, home, folder):
        content = _read(path)
        if content:
            found.update(dict.fromkeys(_of_file(path.name, content)))
    return [value for value in found if len(value) >= 6 and value.lower() not in PLAIN]


def _of_pair(name: str, value: str) -> Iterator[str]:
    """The secrets in one named value: the value itself, or the password of a URL in it."""
    strength = strength_of(name)
    value = value.strip()
    if (strength >= 2 and not _is_path(value) and not PLACEHOLDER.fullmatch(value[:512])) or (
        strength == 1 and keylike(value) and not _is_path(value)
    ):
        yield value
    if "://" in value and "@" in value:
        for match in _USERINFO.finditer(value):
            user, colon, password = match[1].partition(":")
            if colon and password:
                yield from (password, unquote(password))
            elif not colon and tokenlike(user) and len(user) >= 16:
                yield user


def _is_path(value: str) -> bool:
    """Whether it names a file, as GOOGLE_APPLICATION_CREDENTIALS does: not a secret, and in many tracebacks."""
    try:
        return value.startswith(("/", "~/", "./")) and Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False  # too long or with a NUL: it is no path


def _credential_files(environ: Mapping[str, str], home: Path | None, folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder / ".env"
        with contextlib.suppress(OSError):  # a folder that cannot be listed has no settings to read either
            yield from sorted(path for path in folder.glob(".env.*"))[:16]
    if home is None:
        return
    yield from (
        home / name
        for name in (
            ".netrc", "_netrc", ".git-credentials", ".config/git/credentials", ".pypirc", ".pgpass", ".npmrc",
            ".aws/credentials", ".databrickscfg", ".kaggle/kaggle.json", ".cache/huggingface/token",
            ".huggingface/token", ".docker/config.json", ".config/gh/hosts.yml", ".config/pip/pip.conf",
            ".mlflow/credentials", ".config/wandb/settings", ".my.cnf",
        )
    )  # fmt: skip
    runtime = Path(environ.get("JUPYTER_RUNTIME_DIR") or home / ".local/share/jupyter/runtime")
    with contextlib.suppress(OSError):  # as above
        servers = sorted(runtime.glob("jpserver-*.json"), reverse=True)[:16]
        yield from servers


def _read(path: Path) -> str:
    """A small regular file's text; empty when it is anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""  # absent or not ours to read: then nobody in this process knows its values
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _FILE_SIZE).decode("utf-8", "surrogateescape") if regular else ""
    except OSError:
        return ""  # as above
    finally:
        os.close(descriptor)


def _of_file(name: str, content: str) -> Iterator[str]:
    if name == "token":
        yield content.strip()
    elif name.endswith("netrc"):
        yield from (match[1] for match in _NETRC.finditer(content))
    elif name in (".git-credentials", "credentials") and "://" in content:
        for line in content.splitlines():
            yield from _of_pair("", line)
    elif name == ".pgpass":
        yield from (line.split(":", 4)[4] for line in content.splitlines() if line.count(":") >= 4)
    elif name.endswith(".json"):
        try:
            yield from _of_json(json.loads(content), "")
        except (ValueError, RecursionError):
            return  # not what its name says: nothing to take from it
    else:
        for match in _DOTENV.finditer(content):
            yield from _of_pair(match[1], match[2] or match[3] or match[4] or "")
        for key, value in re.findall(r"^\s*([\w.\-]+):[ \t]+([^\s#]+)", content, re.MULTILINE):
            yield from _of_pair(key, value.strip("\"'"))
        for key, value in re.findall(r":(_\w+)=(\S+)", content):  # as in .npmrc
            yield from _of_pair(key, value)


def _of_json(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _of_json(item, str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _of_json(item, name)
    elif isinstance(value, str) and (name == "key" or strength_of(name)):
        yield value
