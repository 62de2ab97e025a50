"""Secrets found and masked, before anything is hashed or written.

A history that is addressed by content cannot be edited, and the digest of a guessable secret is the secret. So every
text passes here first. Three kinds of finding, in one pass over the text:

*known values*: the exact values of secret-named environment variables and of credential files, and the secrets
that a headless run was given. They are found wherever they stand, also in a bare print.
*structure*: a literal assigned to a secret-named target in Python, JSON, YAML or a shell; the password of a URL; a
token in a query; an authorization header; a private key; a connection string.
*formats*: tokens that services issue with a recognisable prefix.

A finding becomes ``<redacted:kind:n>``: the same value has the same *n* within one process, so that two uses of one
secret are still seen to be one, and nothing of the value, not even a digest, is kept. Patterns contain no unbounded
backtracking: the time is linear in the text. Where the engine itself fails, the whole text is withheld.
"""

from __future__ import annotations

from jupyter_mlops.redact.addresses import clean_url
from jupyter_mlops.redact.known import known_secrets
from jupyter_mlops.redact.names import MASKED, UNREADABLE, secret_name
from jupyter_mlops.redact.redactor import Redactor

__all__ = ["MASKED", "UNREADABLE", "Redactor", "clean_url", "known_secrets", "secret_name"]
