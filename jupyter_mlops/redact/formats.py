"""Tokens that services issue with a recognisable prefix.

Prefixes and lengths are as the services document them.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from jupyter_mlops.redact.names import tokenlike

Span = tuple[int, int, str]
"""Where a secret begins and ends, and its kind."""

MOST: Final = 5_000
"""More candidates than this in one text, and it is withheld: it is not code, and time is bounded."""


def bounded(matches: Iterator[re.Match[str]]) -> list[re.Match[str]]:
    """All matches, before any of them costs more than having been found.

    Raises
    ------
    OverflowError
        There are more than `MOST`.
    """
    found = list(itertools.islice(matches, MOST + 1))
    if len(found) > MOST:
        raise OverflowError("too many candidates")
    return found


# Kept as (kind, literal prefix, rest): the prefixes are joined into one search by first letter, so that a text without
# any of them costs one pass in C.
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


def by_first_letter(rules: Iterable[tuple[str, str]]) -> str:
    """Join (literal, rest) pairs into one alternation that branches once, on the first letter."""
    groups: dict[str, list[str]] = {}
    for literal, rest in rules:
        groups.setdefault(literal[0], []).append(re.escape(literal[1:]) + rest)
    return "|".join(f"{re.escape(letter)}(?:{'|'.join(tails)})" for letter, tails in groups.items())


# Two of them have their mark in the middle of a word. All others begin one, or follow an escape such as ``\\n``. Their
# first three characters are from few: C leaps to such a place, and only there looks at the rules.
_INNER: Final = ("Q~", ":AA")
_BEGINS: Final = by_first_letter((prefix, rest) for _, prefix, rest in _KINDS_BY_PREFIX if prefix not in _INNER)
_STARTS: Final = [prefix for _, prefix, _ in _FORMATS if len(prefix) > 2] + [
    f"SK{digit}" for digit in "0123456789abcdef"
]
_FIRST, _SECOND, _THIRD = (f"[{re.escape(''.join(sorted({start[at] for start in _STARTS})))}]" for at in range(3))
_FORMAT: Final = re.compile(
    rf"{_FIRST}(?<!(?<!\\)[A-Za-z0-9].){_SECOND}{_THIRD}(?<=(?=(?P<found>{_BEGINS}))...)", re.DOTALL
)
_ANYWHERE: Final = re.compile(by_first_letter((prefix, rest) for _, prefix, rest in _FORMATS if prefix in _INNER))


def issued_tokens(text: str) -> Iterator[Span]:
    """Find tokens by their form, wherever they stand."""
    match = _FORMAT.search(text)
    for count in itertools.count():
        if match is None:
            break
        if count > MOST:
            raise OverflowError("too many candidates")
        start, end = match.span("found")
        kind = next(kind for kind, prefix, _ in _KINDS_BY_PREFIX if text.startswith(prefix, start))
        if kind != "openai" or tokenlike(text[start:end]):
            yield start, end, kind
        match = _next().match(text, end) or _FORMAT.search(text, end)
    if any(mark in text for mark in _INNER):
        yield from _inner(text)


@functools.cache
def _next() -> re.Pattern[str]:
    """A token right behind another one; compiled when there is one, since that takes milliseconds."""
    return re.compile(f"(?P<found>{_BEGINS})")


def _inner(text: str) -> Iterator[Span]:
    for match in bounded(_ANYWHERE.finditer(text)):
        start, end = match.span()
        if text[start] == "Q":  # three characters and a digit stand before the mark
            if start >= 4 and text[start - 1].isdigit():
                yield start - 4, end, "azure"
        else:  # the bot's number stands before it
            before = text[max(0, start - 12) : start]
            digits = len(before) - len(before.rstrip("0123456789"))
            if digits >= 6:
                yield start - digits, end, "telegram"
