"""Which names hold secrets, and which values are worth masking under them."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache
from typing import Final

UNREADABLE: Final = "<redacted:unreadable>"
"""Stands for a whole text that could not be searched."""

MASKED: Final = re.compile(r"<redacted:[a-z-]+:\d+>|<redacted:unreadable>")

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STRONG: Final = frozenset(
    "password passwords passwd passwort passphrase passcode pwd pword secret secrets credential credentials cred creds "
    "apikey apikeys accesskey secretkey privatekey authtoken accesstoken refreshtoken apitoken authorization".split()
)
_STRONG_KEYS: Final = frozenset(
    "api access private secret signing encryption ssh subscription storage auth shared consumer hmac webhook rsa gpg "
    "pgp deploy decryption account".split()
)
_STRONG_TOKENS: Final = frozenset(
    "access auth refresh bearer api oauth personal session csrf xsrf deploy bot github gitlab hf slack jupyter wandb "
    "huggingface npm pypi databricks sas security service".split()
)
_FAIR: Final = frozenset("token auth cookie jwt bearer otp totp".split())
_PASSES: Final = frozenset(
    "db smtp user mysql pg postgres redis ftp mail email root admin proxy http ssh sql database mongo my the".split()
)
# a name that ends in one of these speaks about a secret and does not hold one
_ABOUT: Final = frozenset(
    "field fields column columns col cols name names label url uri path file filename dir folder env var prompt hint "
    "policy length len count counts type regex pattern size limit expiry expires ttl min max header format index idx "
    "ids required enabled error errors manager store provider class func fn usage cost budget rate sock socket agent "
    "method scheme mode reset strength score valid ok exists version algorithm logprob logprobs embedding embeddings "
    "endpoint endpoints dim position positions freq frequency prob probs mask text map list set".split()
)
_ASKING: Final = frozenset(
    "has is use show no num n max min len count check validate forgot verify without hide".split()
)
_LANGUAGE: Final = frozenset(
    "pad eos bos unk sep cls mask special stop start end image next first last prev previous current sub word per new "
    "added begin sot eot fim prefix suffix middle decoder forced text out input output max min num n total each best "
    "top generated target source query doc audio video newline blank".split()
)


@lru_cache(maxsize=8192)
def strength_of(name: str) -> int:
    """How surely a name holds a secret: 3 a password, 2 a token, 1 some key, 0 nothing."""
    words = [word.lower() for word in _WORD.findall(name[:200])]
    if not words or words[0] in _ASKING:
        return 0
    last = words[-1]
    if last == "id" and words[-3:-1] == ["access", "key"]:
        return 3
    if last in _ABOUT or last == "id":
        return 0
    pairs = list(itertools.pairwise(words))
    if any(word in _STRONG or word.endswith(("password", "passwd", "secret")) for word in words):
        return 3
    for before, word in pairs:
        if (word == "key" and before in _STRONG_KEYS) or (word == "token" and before in _STRONG_TOKENS):
            return 3
        if word == "token" and before in _LANGUAGE:
            return 0
        if word == "pass" and word == last and before in _PASSES:
            return 3
    if last in _FAIR or (words[0] == "token" and last in ("value", "string", "secret")):
        return 2
    return 1 if last in ("key", "pat", "sid", "dsn") else 0


def secret_name(name: str) -> bool:
    """Whether a variable, key or option of this name holds a secret.

    >>> [secret_name(name) for name in ("password", "HF_TOKEN", "apiKey", "aws_access_key_id")]
    [True, True, True, True]
    >>> [secret_name(name) for name in ("tokenizer", "max_tokens", "pad_token", "sort_key", "password_column")]
    [False, False, False, False, False]
    """
    return strength_of(name) >= 2


# -- values ----------------------------------------------------------------------------------------------------------

PLAIN: Final = frozenset(
    "password passwd pwd secret token none null true false string str text object hidden required optional basic "
    "bearer digest key apikey api_key auth credentials int int64 category default empty".split()
)
"""Words that are no secret even where a secret is expected."""

PLACEHOLDER: Final = re.compile(
    r"[*•.xX_\-]+|<[A-Za-z _\-]+>|\$\{?\w+\}?|\$\([^)]*\)|\{\{?[^{}]*\}?\}|%\(?\w+\)?s?%?|"
    r"(?i:your|my|enter|insert)[ _\-].*"
)
_FIELD: Final = re.compile(r"\{[A-Za-z_][^{}\"']{0,200}\}")
_RUN: Final = re.compile(r"[A-Za-z0-9]{16,}")


_DIGIT: Final = re.compile("[0-9]")
_LETTER: Final = re.compile("[A-Za-z]")


def _mixed(value: str) -> bool:
    if value.isascii():
        return _DIGIT.search(value) is not None and _LETTER.search(value) is not None
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def tokenlike(value: str) -> bool:
    """Whether a value could be an issued token: one word, with letters and digits, or long and of mixed case."""
    head = value[:256]
    if len(value) < 8 or head.split(maxsplit=1) != [head]:  # it holds a blank
        return False
    return _mixed(head) or (len(head) >= 20 and head != head.lower() and head != head.upper())


def keylike(value: str) -> bool:
    """Whether a value is surely random: a long unbroken run of letters and digits."""
    run = _RUN.search(value[:512])
    return run is not None and _mixed(run[0]) and len(set(run[0])) >= 8


def worth_masking(strength: int, value: str) -> bool:
    """Whether a value given to a name of this strength is a secret, and not a word that stands for one."""
    bare = value.strip()
    if "{" in bare:  # what a format string takes from elsewhere is no literal
        bare = _FIELD.sub("", bare).strip()
    if len(bare) < 2 or bare.lower() in PLAIN or MASKED.fullmatch(bare) or PLACEHOLDER.fullmatch(bare[:512]):
        return False
    if strength >= 3:
        return True
    return tokenlike(bare) if strength == 2 else strength == 1 and keylike(bare)
