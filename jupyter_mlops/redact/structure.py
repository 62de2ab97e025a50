"""Secrets known by where they stand: assigned, in an address, in a header, in a key file.

The search runs over the text in lower case, of the same length, and takes the values from the text itself. Repetition
in the patterns is possessive or bounded, so that no text takes longer than its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from jupyter_mlops.redact.formats import MOST, Span, bounded, by_first_letter
from jupyter_mlops.redact.names import MASKED, PLACEHOLDER, strength_of, tokenlike, worth_masking


def lowered(text: str) -> str:
    """Lower case of the same length, so that positions agree."""
    return text.replace("İ", "I").lower()  # it alone grows when lowered


_TYPES: Final = re.compile(r"[A-Za-z_][A-Za-z_.]*")
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
    return re.compile(f"(?:{by_first_letter((word, '') for word in words)}){_TARGET}")


_NAMED: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
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


def assignments(text: str, low: str) -> Iterator[Span]:
    """Literals given to a secret-named target, in whichever language."""
    passes = "pass" in low  # in four of them
    words = tuple(word for word in _ANCHORS if (passes and word in low if word[:4] == "pass" else word in low))
    if not words:
        return
    done = 0
    for match in bounded(_anchor(words).finditer(low)):
        start = match.start()
        if start < done:  # within a literal that was dealt with
            continue
        begin = start - 64 if start > 64 else 0
        begin += len(text[begin:start].rstrip(_NAMED))
        tail = re.match(r"[A-Za-z0-9_\-]*", text[start : start + 64])
        name = text[begin:start] + (tail[0] if tail else "")
        strength = strength_of(name.strip("-_"))
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
        if worth_masking(strength, value):
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
            tokenlike(value) and not _TYPES.fullmatch(value) and after in ("", "\n", "\r", "\\") and "." not in value
        )
    elif op == ":" and match["gap"]:
        place = after in ("", " ", "\n", "\r", '"', "'", "}", ",", "\\", "#") and (
            _TYPES.fullmatch(value) is None or _is_mapping_line(text, begin, end)
        )
    elif op == "" and spaced and not value.startswith("-"):
        place = name.startswith("--") or before.endswith(_OPTIONS) or _LOGIN.search(before) is not None
    else:
        place = False
    if place and value not in ("None", "True", "False") and not _expression(value) and worth_masking(strength, value):
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


_ADDRESSES: Final = 50_000
_URL: Final = re.compile(r"""://(?P<user>[^\s/?#"'<>@:`]{0,256}+):?(?P<rest>[^\s/?#"'<>`]{0,1024}+)""")
_QUERY: Final = re.compile(
    r"[?&;](?:sig|signature|x-amz-signature|x-amz-security-token|x-goog-signature|access_token|code|key|apikey|api-key|"
    r"sv_sig|st|jwt|auth)=(?P<value>[^\s&\"'<>`#]{6,4096}+)",
)
_HEADER: Final = re.compile(
    r"b(?:earer[ \t]{1,4}+(?P<bearer>[a-z0-9._~+/=\-]{8,}+)|asic[ \t]{1,4}+(?P<basic>[a-z0-9+/=]{8,}+))"
    r"|authorization[\"'\\]{0,2}[ \t]{0,4}+[:=,][ \t]{0,4}+[\"'\\]{0,2}"
    r"[a-z]{3,12}[ \t]{1,4}+(?P<scheme>[a-z0-9._~+/=\-]{8,}+)"
)
_CURL: Final = re.compile(r"""(?:[ \t]-u|--user)[ \t=]{1,4}+["']?[^\s:"']{1,128}+:(?P<value>[^\s"']{1,256}+)""")
_TUPLE: Final = re.compile(r"auth[ \t]{0,2}=[ \t]{0,2}(?:httpbasicauth)?\(")
_PAIR: Final = re.compile(r"""[^\n,]{1,128}+,[ \t]{0,4}+["'](?P<value>[^"'\n]{1,256}+)["']""")
_PEM_END: Final = re.compile(r"-----end [a-z ]{0,64}-----")


def structures(text: str, low: str) -> Iterator[Span]:
    """Find what addresses, queries, headers and key files give away."""
    if "://" in text and "@" in text:
        yield from _url_passwords(text)
    if "=" in text and ("?" in text or "&" in text):
        for match in bounded(_QUERY.finditer(low)):
            value = text[match.start("value") : match.end("value")]
            if worth_masking(3, value) and (tokenlike(value) or "%" in value):
                yield *match.span("value"), "query"
    if "bearer" in low or "basic" in low or "authorization" in low:
        for match in bounded(_HEADER.finditer(low)):
            group = str(match.lastgroup)
            value = text[match.start(group) : match.end(group)]
            if not value.isalpha() or (value != value.lower() and len(value) > 16):
                yield *match.span(group), "header"
    if "-u" in text or "--user" in text:
        for match in bounded(_CURL.finditer(text)):
            if worth_masking(3, match["value"]):
                yield *match.span("value"), "header"
    if "auth" in low and "(" in low:
        for begun in bounded(_TUPLE.finditer(low)):
            pair = _PAIR.match(low, begun.end())
            if pair is not None:
                yield *pair.span("value"), "assigned"
    if "-----begin" in low:
        yield from _private_keys(text, low)


def _url_passwords(text: str) -> Iterator[Span]:
    named = 0
    for count, match in enumerate(_URL.finditer(text)):
        if count > _ADDRESSES or named > MOST:
            raise OverflowError("too many addresses")
        user, rest = match["user"], match["rest"]
        at = rest.rfind("@")
        if at < 0:
            continue
        named += 1
        colon = text[match.end("user") : match.end("user") + 1] == ":"
        start = match.start("rest")
        if colon:
            if at and not PLACEHOLDER.fullmatch(rest[:at]) and not MASKED.fullmatch(rest[:at]):
                yield start, start + at, "url"
            if tokenlike(user) and len(user) >= 20:
                yield *match.span("user"), "url"
        elif tokenlike(user) and len(user) >= 16 and not at:
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
