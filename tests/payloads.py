"""Texts that would run, load or hide something where a page took them for more than text."""

from __future__ import annotations

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "<svg onload=alert(3)>",
    "javascript:alert(4)",
    '"><iframe src="http://evil.example/5">',
    "'-alert(6)-'",
    "{{constructor.constructor('alert(7)')()}}",
    "${alert(8)}",
    "<style>@import 'http://evil.example/9'</style>",
    "<a href='javascript:alert(10)'>x</a>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(11)>",
    "</title></textarea><img src=http://evil.example/12.png>",
    "\u202e<b>13</b>\x1b[31m\u2066",
]
