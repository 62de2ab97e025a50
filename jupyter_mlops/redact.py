"""Secrets found and masked, before anything is hashed or written.

A history that is addressed by content cannot be edited, and the digest of a guessable secret is the secret. So every
text passes here first. Three kinds of finding, in one pass over the text:

*known values*: the exact values of secret-named environment variables and of credential files, and what ``getpass``
returned. They are found wherever they stand, also in a bare print.
*structure*: a literal assigned to a secret-named target in Python, JSON, YAML or a shell; the password of a URL; a
token in a query; an authorization header; a private key; a connection string.
*formats*: tokens that services issue with a recognisable prefix.

A finding becomes ``<redacted:kind:n>``: the same value has the same *n* within one process, so that two uses of one
secret are still seen to be one, and nothing of the value, not even a digest, is kept. Patterns contain no unbounded
backtracking: the time is linear in the text. Where the engine itself fails, the whole text is withheld.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

from blake3 import blake3

UNREADABLE: Final = "<redacted:unreadable>"
"""Stands for a whole text that could not be searched."""

_MASKED: Final = re.compile(r"<redacted:[a-z-]+:\d+>|<redacted:unreadable>")
_MOST: Final = 5_000
"""More candidates than this in one text, and it is withheld: it is not code, and time is bounded."""

Span = tuple[int, int, str]


# -- names -----------------------------------------------------------------------------------------------------------

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
def _strength(name: str) -> int:
    """How surely a name holds a secret: 3 a password, 2 a token, 1 some key, 0 nothing."""
    words = [word.lower() for word in _WORD.findall(name[:200])]
    if not words or words[0] in _ASKING:
        return 0
    last = words[-1]
    if last == "id" and words[-3:-1] == ["access", "key"]:
        return 3
    if last in _ABOUT or last == "id":
        return 0
    pairs = list(zip(words, words[1:], strict=False))
    if any(word in _STRONG or word.endswith(("password", "passwd", "secret")) for word in words):
        return 3
    for before, word in pairs:
        if (word == "key" and before in _STRONG_KEYS) or (word == "token" and before in _STRONG_TOKENS):
            return 3
        if word == "token" and before in _LANGUAGE:
            return 0
        if word == "pass" and word == last and before in _PASSES:
            return 3
    if last in _FAIR or words[0] == "token" and last in ("value", "string", "secret"):
        return 2
    return 1 if last in ("key", "pat", "sid", "dsn") else 0


def secret_name(name: str) -> bool:
    """Whether a variable, key or option of this name holds a secret.

    >>> [secret_name(name) for name in ("password", "HF_TOKEN", "apiKey", "aws_access_key_id")]
    [True, True, True, True]
    >>> [secret_name(name) for name in ("tokenizer", "max_tokens", "pad_token", "sort_key", "password_column")]
    [False, False, False, False, False]
    """
    return _strength(name) >= 2


# -- values ----------------------------------------------------------------------------------------------------------

_PLAIN: Final = frozenset(
    "password passwd pwd secret token none null true false string str text object hidden required optional basic bearer "
    "digest key apikey api_key auth credentials int int64 category default empty changeme_placeholder".split()
)
_PLACEHOLDER: Final = re.compile(
    r"[*•.xX_\-]+|<[A-Za-z _\-]+>|\$\{?\w+\}?|\$\([^)]*\)|\{\{?[^{}]*\}?\}|%\(?\w+\)?s?%?|(?i:your|my|enter|insert)[ _\-].*"
)
_FIELD: Final = re.compile(r"\{[A-Za-z_][^{}\"']{0,200}\}")
_RUN: Final = re.compile(r"[A-Za-z0-9]{16,}")
_TYPES: Final = re.compile(r"[A-Za-z_][A-Za-z_.]*")


def _mixed(value: str) -> bool:
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def _tokenlike(value: str) -> bool:
    """Whether a value could be an issued token: one word, with letters and digits, or long and of mixed case."""
    if len(value) < 8 or any(c.isspace() for c in value[:256]):
        return False
    head = value[:256]
    return _mixed(head) or (len(head) >= 20 and head != head.lower() and head != head.upper())


def _keylike(value: str) -> bool:
    """Whether a value is surely random: a long unbroken run of letters and digits."""
    run = _RUN.search(value[:512])
    return run is not None and _mixed(run[0]) and len(set(run[0])) >= 8


def _worth_masking(strength: int, value: str) -> bool:
    bare = value.strip()
    if "{" in bare:  # what a format string takes from elsewhere is no literal
        bare = _FIELD.sub("", bare).strip()
    if len(bare) < 2 or bare.lower() in _PLAIN or _MASKED.fullmatch(bare) or _PLACEHOLDER.fullmatch(bare[:512]):
        return False
    if strength >= 3:
        return True
    return _tokenlike(bare) if strength == 2 else strength == 1 and _keylike(bare)


# -- formats ---------------------------------------------------------------------------------------------------------
# Prefixes and lengths as the services document them. Kept as (kind, literal prefix, rest): the prefixes are joined
# into one search by first letter, so that a text without any of them costs one pass in C.

_W = r"[A-Za-z0-9_\-]"
_A = r"[A-Za-z0-9]"
_FORMATS: Final[tuple[tuple[str, str, str], ...]] = (
    *(("aws", prefix, r"[A-Z2-7]{16}(?![A-Za-z0-9])") for prefix in ("AKIA", "ASIA", "ABIA", "ACCA")),
    ("gcp", "AIza", _W + r"{35}"),
    ("gcp", "ya29", r"\.[A-Za-z0-9_\-]{20,}+"),
    ("gcp", "GOCSPX-", _W + r"{20,}+"),
    ("github", "github_pat_", r"[A-Za-z0-9_]{22,}+"),
    *(("github", f"gh{letter}_", _A + r"{30,}+") for letter in "pousr"),
    *(
        ("gitlab", f"gl{kind}-", _W + r"{20,}+")
        for kind in ("pat", "dt", "rt", "ptt", "cbt", "soat", "imt", "agent", "oas", "ft")
    ),
    ("huggingface", "hf_", _A + r"{30,}+"),
    ("huggingface", "api_org_", _A + r"{30,}+"),
    ("anthropic", "sk-ant-", _W + r"{16,}+"),
    ("openai", "sk-", _W + r"{20,}+"),
    ("stripe", "sk_live_", _A + r"{10,}+"),
    ("stripe", "sk_test_", _A + r"{10,}+"),
    ("stripe", "rk_live_", _A + r"{10,}+"),
    ("stripe", "rk_test_", _A + r"{10,}+"),
    ("stripe", "whsec_", _A + r"{20,}+"),
    *(("slack", f"xox{letter}-", r"[A-Za-z0-9\-]{10,}+") for letter in "abposre"),
    ("slack", "xapp-", r"[A-Za-z0-9\-]{16,}+"),
    ("slack", "hooks.slack.com/", r"[A-Za-z0-9/_\-]{20,}+"),
    ("pypi", "pypi-", _W + r"{40,}+"),
    ("databricks", "dapi", r"[0-9a-f]{32}(?:-\d)?+"),
    ("npm", "npm_", _A + r"{36}"),
    ("jwt", "eyJ", r"(?<![A-Za-z0-9_\-]eyJ)[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]*+"),
    ("sendgrid", "SG.", _W + r"{16,}+\.[A-Za-z0-9_\-]{16,}+"),
    ("mailgun", "key-", r"[0-9a-f]{32}(?![0-9a-zA-Z])"),
    ("twilio", "SK", r"[0-9a-f]{32}(?![0-9a-zA-Z])"),
    *(("digitalocean", f"do{letter}_v1_", r"[0-9a-f]{64}") for letter in "por"),
    *(("shopify", f"shp{kind}_", r"[0-9a-fA-F]{32}") for kind in ("at", "ca", "pa", "ss")),
    ("square", "sq0atp-", _W + r"{22,}+"),
    ("square", "sq0csp-", _W + r"{40,}+"),
    ("linear", "lin_api_", _A + r"{32,}+"),
    ("notion", "ntn_", _A + r"{40,}+"),
    ("atlassian", "ATATT3", r"[A-Za-z0-9_\-=]{50,}+"),
    ("figma", "figd_", _W + r"{30,}+"),
    ("grafana", "glsa_", r"[A-Za-z0-9_]{30,}+"),
    ("grafana", "glc_", r"[A-Za-z0-9+/=]{30,}+"),
    ("newrelic", "NRAK-", r"[A-Z0-9]{27}"),
    ("vault", "hvs.", _W + r"{24,}+"),
    ("vault", "hvb.", _W + r"{24,}+"),
    ("pulumi", "pul-", r"[0-9a-f]{40}"),
    ("doppler", "dp.", r"(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9.]{40,}+"),
    ("planetscale", "pscale_", r"(?:tkn|pw|oauth)_[A-Za-z0-9_.\-]{30,}+"),
    ("docker", "dckr_pat_", _W + r"{20,}+"),
    ("docker", "dckr_oat_", _W + r"{20,}+"),
    ("replicate", "r8_", _A + r"{37}"),
    ("groq", "gsk_", _A + r"{40,}+"),
    ("perplexity", "pplx-", _A + r"{40,}+"),
    ("xai", "xai-", _A + r"{60,}+"),
    ("nvidia", "nvapi-", _W + r"{40,}+"),
    ("langsmith", "lsv2_", r"(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    ("pinecone", "pcsk_", r"[A-Za-z0-9_]{40,}+"),
    ("supabase", "sbp_", r"[0-9a-f]{40}"),
    ("sentry", "sntrys_", r"[A-Za-z0-9+/=_]{40,}+"),
    ("sentry", "sntryu_", r"[0-9a-f]{64}"),
    ("postman", "PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}"),
    ("rubygems", "rubygems_", r"[0-9a-f]{48}"),
    ("age", "AGE-SECRET-KEY-1", r"[A-Z0-9]{58}"),
    ("alibaba", "LTAI", _A + r"{17,21}(?![A-Za-z0-9])"),
    ("heroku", "HRKU-", _W + r"{30,}+"),
    ("fly", "fm2_", r"[A-Za-z0-9+/=_]{60,}+"),
    ("netlify", "nfp_", _A + r"{36,}+"),
    ("mapbox", "sk.eyJ", r"[A-Za-z0-9_\-.]{40,}+"),
    ("dynatrace", "dt0c01.", r"[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    ("kaggle", "KGAT_", r"[A-Za-z0-9]{24,}+"),
    ("tailscale", "tskey-", r"[A-Za-z0-9\-]{20,}+"),
    ("onepassword", "ops_eyJ", r"[A-Za-z0-9_\-=]{60,}+"),
    ("airtable", "pat", _A + r"{14}\.[0-9a-f]{64}"),
    ("jfrog", "AKCp", _A + r"{60,}+"),
    ("huaweicloud", "HPUA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("telegram", ":AA", _W + r"{33}(?![A-Za-z0-9_\-])"),
    ("azure", "Q~", r"[A-Za-z0-9_~.\-]{31,34}"),
    ("pem", "PuTTY-User-Key-File-", r"[\s\S]*+"),
)
_KINDS_BY_PREFIX: Final = sorted(_FORMATS, key=lambda rule: -len(rule[1]))


def _by_first_letter(rules: Iterable[tuple[str, str]]) -> str:
    """Join (literal, rest) pairs into one alternation that branches once, on the first letter."""
    groups: dict[str, list[str]] = {}
    for literal, rest in rules:
        groups.setdefault(literal[0], []).append(re.escape(literal[1:]) + rest)
    return "|".join(f"{re.escape(letter)}(?:{'|'.join(tails)})" for letter, tails in groups.items())


# Two of them have their mark in the middle of a word. All others begin one, so that the search leaps from word to
# word without coming back: possessively, in C.
_INNER: Final = ("Q~", ":AA")
_BEGINS: Final = _by_first_letter((prefix, rest) for _, prefix, rest in _KINDS_BY_PREFIX if prefix not in _INNER)
_BETWEEN: Final = r"(?:[^A-Za-z0-9\\]++|\\[nrt]?+)*+"
_FORMAT: Final = re.compile(rf"{_BETWEEN}(?:(?!{_BEGINS})[A-Za-z0-9]++{_BETWEEN})*+(?P<found>{_BEGINS})")
_ANYWHERE: Final = re.compile(_by_first_letter((prefix, rest) for _, prefix, rest in _FORMATS if prefix in _INNER))


def _formats(text: str) -> Iterator[Span]:
    match = _FORMAT.match(text)
    while match is not None:
        start, end = match.span("found")
        kind = next(kind for kind, prefix, _ in _KINDS_BY_PREFIX if text.startswith(prefix, start))
        if kind != "openai" or _tokenlike(text[start:end]):
            yield start, end, kind
        match = _FORMAT.match(text, end)
    if any(mark in text for mark in _INNER):
        yield from _inner(text)


def _inner(text: str) -> Iterator[Span]:
    for match in _ANYWHERE.finditer(text):
        start, end = match.span()
        if text[start] == "Q":  # three characters and a digit stand before the mark
            if start >= 4 and text[start - 1].isdigit():
                yield start - 4, end, "azure"
        else:  # the bot's number stands before it
            before = text[max(0, start - 12) : start]
            digits = len(before) - len(before.rstrip("0123456789"))
            if digits >= 6:
                yield start - digits, end, "telegram"


# -- structure -------------------------------------------------------------------------------------------------------

_ANCHORS: Final = (
    "passw", "passphrase", "passcode", "pass", "pwd", "pat", "secret", "sid", "token", "key", "cred", "auth", "cookie",
    "jwt", "bearer", "otp", "dsn",
)  # fmt: skip
_TARGET: Final = (
    r"""[a-z0-9_\-]{0,48}+(?P<close>\\?["'])?+\]?+[ \t]{0,8}+"""
    r"""(?P<op>:[ \t]{0,4}+[a-z_][\w.\[\]|]{0,40}[ \t]{0,4}+=(?!=)|:=|=>|[=!]=|[=:,]|)"""
    r"""(?P<gap>[ \t]{0,8}+)(?:\(\s{0,40}+)?+"""
    r"""(?:[rbfu]{0,2}(?P<quote>\\?(?:\"\"\"|\'\'\'|["'`]))|(?P<bare>[^\s"'`,;&|<>()\[\]{}\\]{1,512}+))"""
)


@lru_cache(maxsize=256)
def _anchor(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"(?:{_by_first_letter((word, '') for word in words)}){_TARGET}")


_LEFT: Final = re.compile(r"[A-Za-z0-9_\-]{0,64}\Z")
_CLOSING: Final = {
    '"': re.compile(r'(?:[^"\\\n]|\\.)*+'),
    "'": re.compile(r"(?:[^'\\\n]|\\.)*+"),
    "`": re.compile(r"[^`\n]*+"),
    '"""': re.compile(r'(?:[^"\\]|\\.|"(?!""))*+', re.DOTALL),
    "'''": re.compile(r"(?:[^'\\]|\\.|'(?!''))*+", re.DOTALL),
    '\\"': re.compile(r'[^"\\\n]*+'),
    "\\'": re.compile(r"[^'\\\n]*+"),
}
_MORE: Final = re.compile(r"""["'`]{1,3}\)?[ \t]*+(?:\+?\s{0,40}+)[rbfu]{0,2}(\"\"\"|'''|["'])""", re.IGNORECASE)
_CALLS: Final = ("getenv(", "setdefault(", "get(", "pop(", "setenv(", "putenv(", "add_header(", "set(", "set_key(")
_LOGIN: Final = re.compile(r"\b(?:login|user|account)[ \t]+\S{1,64}\s+\Z")
_OPTIONS: Final = ("-p ", "-r ", "--parameters ", "--parameters_raw ")
_SHELL: Final = re.compile(
    r"(?:^|[\n;|&]|\\n)[ \t]*(?:!|%|%%)?[ \t]*(?:(?:export|set|setx|env|ENV|ARG|declare -x|-e)[ \t]+)?\Z"
)


def _assignments(text: str, low: str) -> Iterator[Span]:
    """Literals given to a secret-named target, in whichever language."""
    words = tuple(word for word in _ANCHORS if word in low)
    if not words:
        return
    done = 0
    for count, match in enumerate(_anchor(words).finditer(low)):
        if count > _MOST:
            raise OverflowError("too many candidates")
        start = match.start()
        if start < done:  # within a literal that was dealt with
            continue
        left = _LEFT.search(text, max(0, start - 64), start)
        begin = left.start() if left else start
        tail = re.match(r"[A-Za-z0-9_\-]*", text[start : start + 64])
        name = text[begin:start] + (tail[0] if tail else "")
        strength = _strength(name.strip("-_"))
        if not strength:
            continue
        op, quote = match["op"], match["quote"]
        if quote is None:
            yield from _bare(text, match, begin, strength, name)
            continue
        if op in ("", ",") and not _given(text, match, begin, name):
            continue
        if op in ("==", "!="):
            strength = min(strength, 2)
        for span in _literal(text, match.end(), quote, strength):
            done = span[1]
            yield span


def _given(text: str, match: re.Match[str], begin: int, name: str) -> bool:
    """Whether a literal that follows its name without a sign of equality is its value all the same."""
    before = text[max(0, begin - 24) : begin]
    if match["op"] == ",":  # os.environ.setdefault("TOKEN", "…")
        return match["close"] is not None and before.rstrip("\"'\\").endswith(_CALLS)
    spaced = text[match.start("op") - 1] in " \t" and match["close"] is None
    return spaced and (
        name.startswith("--")  # an option
        or before.endswith(_OPTIONS)  # papermill -p password "…"
        or (name.lower() == "password" and match["quote"] == "'")  # SQL
    )


def _literal(text: str, start: int, quote: str, strength: int) -> Iterator[Span]:
    """The content of a literal that begins here, and of those that follow it by concatenation."""
    for _ in range(64):
        closing = _CLOSING[quote].match(text, start)
        end = closing.end() if closing else len(text)
        value = text[start:end]
        if _worth_masking(strength, value):
            yield start, end, "assigned"
        more = _MORE.match(text, end)
        if more is None:
            return
        start, quote = more.end(), more[1]


def _bare(text: str, match: re.Match[str], begin: int, strength: int, name: str) -> Iterator[Span]:
    """An unquoted value: only where the place says it is one, since in Python it is an expression."""
    start, end = match.span("bare")
    value, op = text[start:end], match["op"]
    after = text[end : end + 1]
    before = text[max(0, begin - 40) : begin]
    previous = before[-1:]
    if after in ("(", "[", "{"):
        return
    spaced = text[match.start("op") - 1] in " \t"
    if op == "=" and not match["gap"] and not spaced:
        place = (
            previous in ("?", "&", ";") or after in (";", "&") or previous == "-" or _SHELL.search(before) is not None
            or name.startswith("--") or (previous in ('"', "'") and after == previous)
        )  # fmt: skip
    elif op == "=":
        place = (
            _tokenlike(value) and not _TYPES.fullmatch(value) and after in ("", "\n", "\r", "\\") and "." not in value
        )
    elif op == ":" and match["gap"]:
        place = after in ("", " ", "\n", "\r", '"', "'", "}", ",", "\\", "#") and (
            _TYPES.fullmatch(value) is None or _is_mapping_line(text, begin, end)
        )
    elif op == "" and spaced and not value.startswith("-"):
        place = name.startswith("--") or before.endswith(_OPTIONS) or _LOGIN.search(before) is not None
    else:
        place = False
    if place and value not in ("None", "True", "False") and not _expression(value) and _worth_masking(strength, value):
        yield start, end, "assigned"


def _expression(value: str) -> bool:
    return "." in value and _TYPES.fullmatch(value) is not None


def _is_mapping_line(text: str, begin: int, end: int) -> bool:
    """Whether the pair stands alone on its line, as in YAML, and not among a function's parameters."""
    line_start = text.rfind("\n", max(0, begin - 200), begin) + 1
    head = text[line_start:begin] if begin - line_start < 200 else "x"
    return (
        not head.strip(" \t-\"'")
        and text[end : end + 1] in ("", "\n", "\r")
        and text[begin:end].count(" ") <= 2
        and (text[begin:end].rpartition(" ")[2] not in ("str", "bytes", "int", "float", "bool", "object", "Any"))
    )


_URL: Final = re.compile(r"""://(?P<user>[^\s/?#"'<>@:`]{0,256}+):?(?P<rest>[^\s/?#"'<>`]{0,1024}+)""")
_QUERY: Final = re.compile(
    r"[?&;](?:sig|signature|x-amz-signature|x-amz-security-token|x-goog-signature|access_token|code|key|apikey|api-key|"
    r"sv_sig|st|jwt|auth)=(?P<value>[^\s&\"'<>`#]{6,4096}+)",
)
_HEADER: Final = re.compile(
    r"b(?:earer[ \t]{1,4}+(?P<bearer>[a-z0-9._~+/=\-]{8,}+)|asic[ \t]{1,4}+(?P<basic>[a-z0-9+/=]{8,}+))"
    r"|authorization[\"'\\]{0,2}[ \t]{0,4}+[:=,][ \t]{0,4}+[\"'\\]{0,2}[a-z]{3,12}[ \t]{1,4}+(?P<scheme>[a-z0-9._~+/=\-]{8,}+)"
)
_CURL: Final = re.compile(r"""(?:[ \t]-u|--user)[ \t=]{1,4}+["']?[^\s:"']{1,128}+:(?P<value>[^\s"']{1,256}+)""")
_TUPLE: Final = re.compile(
    r"""auth[ \t]{0,2}=[ \t]{0,2}(?:httpbasicauth)?\([^\n,]{1,128},[ \t]{0,4}["'](?P<value>[^"'\n]{1,256})["']"""
)
_PEM_END: Final = re.compile(r"-----end [a-z ]{0,64}-----")


def _structures(text: str, low: str) -> Iterator[Span]:
    if "://" in text and "@" in text:
        yield from _url_passwords(text)
    if "=" in text and ("?" in text or "&" in text):
        for match in _QUERY.finditer(low):
            value = text[match.start("value") : match.end("value")]
            if _worth_masking(3, value) and (_tokenlike(value) or "%" in value):
                yield *match.span("value"), "query"
    if "bearer" in low or "basic" in low or "authorization" in low:
        for match in _HEADER.finditer(low):
            group = str(match.lastgroup)
            value = text[match.start(group) : match.end(group)]
            if not value.isalpha() or value != value.lower() and len(value) > 16:
                yield *match.span(group), "header"
    if "-u" in text or "--user" in text:
        for match in _CURL.finditer(text):
            if _worth_masking(3, match["value"]):
                yield *match.span("value"), "header"
    if "auth" in low and "(" in low:
        for match in _TUPLE.finditer(low):
            yield *match.span("value"), "assigned"
    if "-----begin" in low:
        yield from _private_keys(text, low)


def _url_passwords(text: str) -> Iterator[Span]:
    for match in _URL.finditer(text):
        user, rest = match["user"], match["rest"]
        at = rest.rfind("@")
        colon = text[match.end("user") : match.end("user") + 1] == ":"
        if at < 0:
            continue
        start = match.start("rest")
        if colon:
            if at and not _PLACEHOLDER.fullmatch(rest[:at]) and not _MASKED.fullmatch(rest[:at]):
                yield start, start + at, "url"
            if _tokenlike(user) and len(user) >= 20:
                yield *match.span("user"), "url"
        elif _tokenlike(user) and len(user) >= 16 and not at:
            yield *match.span("user"), "url"


def _private_keys(text: str, low: str) -> Iterator[Span]:
    at = low.find("-----begin")
    while at >= 0:
        head = low[at : at + 80]
        if "private key" not in head:
            at = low.find("-----begin", at + 10)
            continue
        ended = _PEM_END.search(low, at)
        end = ended.end() if ended else len(text)  # no end: all that follows may be key
        yield at, end, "pem"
        at = low.find("-----begin", end)


# -- the redactor ----------------------------------------------------------------------------------------------------


def _lower(text: str) -> str:
    """Lower case of the same length, so that positions agree."""
    low = text.lower()
    # only the dotted capital I grows when lowered
    return low if len(low) == len(text) else text.replace("İ", "I").lower()


class Redactor:
    """Masks secrets in texts, and remembers which placeholder stands for which value.

    Parameters
    ----------
    known
        Values that are secret wherever they stand; shorter than six characters they are not looked for.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._key = secrets.token_bytes(32)
        self._numbers: dict[bytes, int] = {}
        self._next = itertools.count(1)
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in known:
            self._remember(value)
        self._compile()

    def learn(self, value: str) -> None:
        """Mask this exact value from now on: what a person typed into ``getpass``."""
        if self._remember(value):
            self._compile()

    def text(self, text: str) -> tuple[str, int]:
        """Mask the secrets of a text.

        Returns
        -------
        tuple
            The masked text, and how many secrets were masked. Where the search itself fails, the whole text is
            replaced by `UNREADABLE`, and the count is 1.
        """
        try:
            spans = self._spans(text)
            return self._mask(text, spans) if spans else (text, 0)
        except Exception:  # noqa: BLE001
            # Whatever went wrong, the text was not fully searched: withholding it is the only safe answer.
            return UNREADABLE, 1

    def value(self, value: Any) -> tuple[Any, int]:
        """Mask the secrets in nested builtin containers; what stands under a secret name is masked whole.

        Values of other types are passed on untouched.
        """
        return self._value(value, 0)

    def secret_name(self, name: str) -> bool:
        """Whether a variable of this name holds a secret; see `secret_name`."""
        return secret_name(name)

    def secret(self, name: str, value: object) -> bool:
        """Whether a variable must get no digest: its name says so, or it is a text that holds a secret."""
        if secret_name(name):
            return True
        if type(value) is str:
            return len(value) <= 65536 and self.text(value)[1] > 0
        return type(value) is bytes and len(value) <= 4096 and self.text(value.decode("latin-1"))[1] > 0

    # -- inside ------------------------------------------------------------------------------------------------------

    def _remember(self, value: str) -> bool:
        if type(value) is not str or len(value.strip()) < 6 or value.strip().lower() in _PLAIN:
            return False
        before = len(self._known)
        self._known.update(_spellings(value))
        return len(self._known) > before

    def _compile(self) -> None:
        if self._known:
            ordered = sorted(self._known, key=lambda value: (-len(value), value))
            self._pattern = re.compile(_by_first_letter((value, _edge(value)) for value in ordered))

    def _spans(self, text: str) -> list[Span]:
        spans: list[Span] = []
        if self._pattern is not None:
            match = self._pattern.search(text)
            while match is not None:
                # one character on, not to the end: two known values may overlap
                spans.append((*match.span(), "known"))
                match = self._pattern.search(text, match.start() + 1)
                if len(spans) > _MOST:
                    raise OverflowError("too many secrets")
        low = _lower(text)
        for rule in (_formats(text), _structures(text, low), _assignments(text, low)):
            for span in rule:
                spans.append(span)
                if len(spans) > _MOST:
                    raise OverflowError("too many secrets")
        return spans

    def _mask(self, text: str, spans: list[Span]) -> tuple[str, int]:
        spans.sort(key=lambda span: (span[0], -span[1]))
        merged: list[list[Any]] = []
        for start, end, kind in spans:
            if merged and start < merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end, kind])
        parts: list[str] = []
        at = count = 0
        for start, end, kind in merged:
            if _MASKED.fullmatch(text, start, end):
                continue
            parts += (text[at:start], f"<redacted:{kind}:{self._number(text[start:end])}>")
            at, count = end, count + 1
        parts.append(text[at:])
        return "".join(parts), count

    def _number(self, value: str) -> int:
        name = blake3(value.encode("utf-8", "surrogatepass"), key=self._key).digest()
        number = self._numbers.get(name)
        # no lock, which a forked child could find taken for ever: setdefault is one step
        return self._numbers.setdefault(name, next(self._next)) if number is None else number

    def _value(self, value: Any, depth: int) -> tuple[Any, int]:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if depth > 32:
            return UNREADABLE, 1
        if kind is dict:
            masked: dict[Any, Any] = {}
            total = 0
            for key, item in value.items():
                if type(key) is str and secret_name(key) and type(item) in (str, int, float, bytes):
                    if item in ("", b"") or (type(item) is str and _MASKED.fullmatch(item)):
                        masked[key] = item
                        continue
                    masked[key] = f"<redacted:assigned:{self._number(str(item))}>"
                    total += 1
                    continue
                clean, count = self._value(key, depth + 1) if type(key) in (str, tuple) else (key, 0)
                masked[clean], more = self._value(item, depth + 1)
                total += count + more
            return masked, total
        if kind in (list, tuple, set, frozenset):
            pairs = [self._value(item, depth + 1) for item in value]
            return kind(item for item, _ in pairs), sum(count for _, count in pairs)
        return value, 0


def _edge(value: str) -> str:
    """A short word is looked for as a word, so that a password ``summer`` does not mask ``summertime``."""
    return r"(?![A-Za-z0-9_])" if _wordlike(value) else ""


def _wordlike(value: str) -> bool:
    return len(value) < 12 and value.isascii() and value.isalpha() and value in (value.lower(), value.title())


def _spellings(value: str) -> Iterator[str]:
    """A value as it stands, and as it is written in a URL, in a literal, or in base64."""
    yield value
    stripped = value.strip()
    if stripped != value:
        yield stripped
    if "\n" in stripped:  # a key over several lines: each of them gives it away
        yield from (line.strip() for line in stripped.splitlines() if len(line.strip()) >= 16 and "-----" not in line)
        yield stripped.replace("\n", "\\n")
    raw = stripped.encode("utf-8", "surrogateescape")
    for other in (
        quote(raw, safe=""), quote_plus(raw), repr(stripped)[1:-1], base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="), raw.hex(),
    ):  # fmt: skip
        if other != stripped and len(other) >= 6:
            yield other


# -- what is known to be secret around here --------------------------------------------------------------------------

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
    return [value for value in found if len(value) >= 6 and value.lower() not in _PLAIN]


def _of_pair(name: str, value: str) -> Iterator[str]:
    """The secrets in one named value: the value itself, or the password of a URL in it."""
    strength = _strength(name)
    value = value.strip()
    if strength >= 2 and not _is_path(value) and not _PLACEHOLDER.fullmatch(value[:512]):
        yield value
    elif strength == 1 and _keylike(value) and not _is_path(value):
        yield value
    if "://" in value and "@" in value:
        for match in _USERINFO.finditer(value):
            user, colon, password = match[1].partition(":")
            if colon and password:
                yield from (password, unquote(password))
            elif not colon and _tokenlike(user) and len(user) >= 16:
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
    elif isinstance(value, str) and (name == "key" or _strength(name)):
        yield value


# -- addresses -------------------------------------------------------------------------------------------------------

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
        return "<redacted>" if _keylike(name) else name
    low = unquote(name).lower()
    if low in _SAFE_QUERY:
        return part
    secret = (
        _strength(low) >= 1
        or low in _SECRET_PARAMETERS
        or low.startswith(("x-amz-sig", "x-amz-cred", "x-goog-sig", "x-goog-cred"))
    )
    return f"{name}=<redacted>" if secret or _keylike(unquote(value)) else part


_SECRET_PARAMETERS: Final = frozenset(
    "sig signature code key st sas auth pw pass user_token x-amz-security-token".split()
)
