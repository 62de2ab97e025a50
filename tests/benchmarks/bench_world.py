"""What looking at the surroundings costs: per cell, per line of text, and once per kernel."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from random import Random

from report import interleaved, row

from jupyter_mlops import environment, git
from jupyter_mlops.records import digest_of
from jupyter_mlops.redact import Redactor

TOPIC = "world"
LINES = (
    "import pandas as pd",
    "df = pd.read_csv('data/flights.csv', parse_dates=['time_hour'])",
    "df['late'] = (df['arr_delay'] > 15).astype('int8')",
    "features = df.groupby(['carrier', 'origin'])['dep_delay'].agg(['mean', 'std', 'count']).reset_index()",
    "tokens = tokenizer(texts, max_length=128, truncation=True, padding='max_length')",
    "model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(X_train, y_train)",
    "print(f'accuracy: {accuracy_score(y_test, model.predict(X_test)):.4f}')",
)


def per_call(function: Callable[[], object], number: int = 2000) -> float:
    """Microseconds, the median of seven rounds."""
    return sorted(timeit.repeat(function, number=number, repeat=7))[3] / number * 1e6


def observed() -> None:
    """The environment: first observation and re-check."""
    ours, theirs = interleaved(
        lambda: environment.Observer().current(),
        lambda: [(one.metadata["Name"], one.version) for one in metadata.distributions()],
    )
    goal = "≤ 60 ms, in a thread"
    row(TOPIC, "environment, first observation", ours * 1e3, theirs * 1e3, "ms", goal, against="importlib.metadata")
    observer = environment.Observer()
    observer.current()
    ours = per_call(observer.changed)
    theirs = per_call(lambda: [os.stat(folder) for folder in sys.path if os.path.isdir(folder)])
    row(TOPIC, "environment, asked again before a cell", ours, theirs, "µs", "≤ 20 µs", against="stat of sys.path")
    environment.observing._owners_cache = None
    began = timeit.default_timer()
    environment.requirements(list(sys.modules))
    first = (timeit.default_timer() - began) * 1e3
    began = timeit.default_timer()
    metadata.packages_distributions()
    theirs = (timeit.default_timer() - began) * 1e3
    row(TOPIC, "requirements of what is imported, first", first, theirs, "ms", "—", against="packages_distributions")


def code() -> None:
    """A repository of 2,000 files: first look and re-check."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(2000):
            path = root / f"d{number % 40}" / f"f{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"x = {number}\n")
        words = ["git", "-c", "user.name=B", "-c", "user.email=b@example.org", "-C", folder]
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
            subprocess.run([*words, *command], check=True)
        for number in range(5):
            (root / f"d{number}" / f"f{number}.py").write_text("changed = True\n")
        redactor = Redactor()
        ours, theirs = interleaved(
            lambda: git.Observer(root, redactor, digest_of).current(),
            lambda: subprocess.run([*words, "status", "--porcelain"], capture_output=True, check=True),
        )
        row(
            TOPIC,
            "code state, first look, 2,000 files, in a thread",
            ours * 1e3,
            theirs * 1e3,
            "ms",
            "—",
            against="git status",
        )
        observer = git.Observer(root, redactor, digest_of)
        observer.current()
        head = root / ".git" / "HEAD"
        ours, theirs = per_call(observer.changed), per_call(head.stat)
        row(TOPIC, "code state, asked again before a cell", ours, theirs, "µs", "≤ 30 µs", against="one stat")


def redaction() -> None:
    """Texts without secrets, per line and as one megabyte."""
    random = Random(7)
    known = ["".join(random.choices(string.ascii_letters + string.digits, k=24)) for _ in range(20)]
    redactor = Redactor(known)
    ours = max(per_call(lambda line=line: redactor.text(line)) for line in LINES)
    row(
        TOPIC,
        "secrets, the slowest of ordinary lines",
        ours,
        per_call(lambda: LINES[3].lower()),
        "µs",
        "≤ 500 µs",
        against="lower()",
    )
    row(
        TOPIC,
        "secrets, a trivial cell",
        per_call(lambda: redactor.text("x = 1")),
        per_call("x = 1".lower),
        "µs",
        "≤ 10 µs",
        against="lower()",
    )
    texts = {
        "code on one line": "; ".join(LINES),
        "base64": "".join(random.choices(string.ascii_letters + string.digits + "+/", k=5000)),
        "one letter": "a" * 1000,
        "unclosed literals": 'password="',
        "words of one letter": "-a",
        "numbers": "[0.123, 4.5e-10, 17], ",
        "secret-named parts of words": "pass_",
        "long values": "key=" + "a" * 511 + " ",
        "tokens but for a digit": "sk-" + "a" * 25 + " ",
        "pairs never closed": "auth=(" + "a" * 126,
        "queries": "&key=abcdef",
        "addresses": "://@",
        "options": " -u " + "a" * 127,
        "capital I with a dot": "İ",
    }
    for what, piece in texts.items():
        text = piece * (1_000_000 // len(piece))
        ours, theirs = interleaved(lambda text=text: redactor.text(text), lambda text=text: text.lower())
        row(TOPIC, f"secrets, one line of 1 MB: {what}", ours * 1e3, theirs * 1e3, "ms", "≤ 50 ms", against="lower()")


def main() -> None:
    """Print everything."""
    observed()
    code()
    redaction()


if __name__ == "__main__":
    main()
