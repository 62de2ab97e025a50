"""What a digest costs, beside the bare hash of the same bytes.

Frames are held against BLAKE3, on one thread, over the very buffers they are made of; texts kept as objects against
what any digest of them must do at least, turning them into one Arrow array and hashing that; a file against `b3sum`,
one thread, reading as we do; a folder that did not change against one `stat` per file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import pandas as pd
import pyarrow as pa
from blake3 import blake3
from report import interleaved, row

from jupyter_mlops.fingerprints import file_digest, fingerprint, folder_digest

TOPIC = "fingerprints"


def _hash(buffers: list[Any]) -> None:
    hasher = blake3(max_threads=1)
    for one in buffers:
        hasher.update(one)
    hasher.digest()


def numbers_and_texts(rows: int = 10_000_000) -> pd.DataFrame:
    """About 720 MB: six columns of 64-bit numbers, and two of short Arrow texts."""
    rng = np.random.default_rng(0)
    held: dict[str, Any] = {f"n{place}": rng.normal(size=rows) for place in range(4)}
    held |= {f"i{place}": rng.integers(0, 1 << 40, rows) for place in range(2)}
    codes = pa.array(rng.integers(0, 1000, rows).astype("int32"))
    words = pa.array([f"{word:04d}"[: 3 + word % 2] for word in range(1000)], pa.large_string())
    for name in ("s0", "s1"):
        texts = pa.DictionaryArray.from_arrays(codes, words).dictionary_decode()
        held[name] = pd.Series(texts, dtype=pd.StringDtype("pyarrow", na_value=np.nan))
    return pd.DataFrame(held)


def frames() -> None:
    frame = numbers_and_texts()
    buffers = [
        memoryview(block.values.reshape(-1).view("u1")) for block in frame._mgr.blocks if hasattr(block.values, "base")
    ]
    for name in ("s0", "s1"):
        for chunk in frame[name].array._pa_array.chunks:
            buffers += [memoryview(one) for one in chunk.buffers()[1:]]
    size = sum(one.nbytes for one in buffers)
    assert fingerprint(frame).digest is not None
    ours, bare = interleaved(lambda: fingerprint(frame), lambda: _hash(buffers), repeats=7)
    row(TOPIC, f"frame of {size / 1e6:.0f} MB, numbers and Arrow texts", ours, bare, "s", "≤ 1.15", against="blake3")


def objects(rows: int = 2_000_000) -> None:
    rng = np.random.default_rng(0)
    texts = np.array([f"customer-{n:07d}" for n in rng.integers(0, 10**7, rows)], object)

    def peer() -> None:
        converted = pa.array(texts, pa.large_string())
        _hash([memoryview(one) for one in converted.buffers()[1:]])

    ours, bare = interleaved(lambda: fingerprint(texts), peer)
    row(TOPIC, f"{rows / 1e6:.0f} M texts as objects", ours * 1e3, bare * 1e3, "ms", "≤ 1.3", against="arrow+blake3")


def files(folder: Path) -> None:
    path = folder / "big"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20) * 16)
    program = shutil.which("b3sum")

    def peer() -> None:
        if program:
            subprocess.run([program, "--no-mmap", "--num-threads", "1", str(path)], check=True, capture_output=True)
            return
        hasher = blake3(max_threads=1)
        with path.open("rb") as file:
            while block := file.read(1 << 16):
                hasher.update(block)

    ours, bare = interleaved(lambda: file_digest(path), peer)
    row(TOPIC, "file of 1 GiB, cached", ours, bare, "s", "≤ 1", against="b3sum" if program else "read+blake3")


def folders(folder: Path, count: int = 10_000) -> None:
    root = folder / "many"
    for number in range(count):
        place = root / f"{number % 100:02d}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number}.txt"
        path.write_text(str(number))
        os.utime(path, ns=(10**18, 10**18))
    memo: dict[str, Any] = {}
    first = folder_digest(root, memo=memo)
    import time

    time.sleep(2.2)  # a file changed a moment ago is not remembered
    folder_digest(root, memo=memo)
    assert len(memo) == count
    assert folder_digest(root, memo=memo) == first

    def stats() -> None:
        for inner in os.scandir(root):
            for one in os.scandir(inner):
                one.stat(follow_symlinks=False)

    ours, bare = interleaved(lambda: folder_digest(root, memo=memo), stats, repeats=15)
    row(TOPIC, f"folder of {count:,} unchanged files", ours * 1e3, bare * 1e3, "ms", "≤ 70 ms", against="stat")


def small() -> None:
    for what, value, raw in (("an int", 123_456, b"i1e240;"), ("a text", "a name", b"s6:a name")):

        def ours(value: object = value) -> None:
            for _ in range(1000):
                fingerprint(value)

        def bare(raw: bytes = raw) -> None:
            for _ in range(1000):
                blake3(raw).hexdigest()

        mine, other = interleaved(ours, bare, repeats=31)
        row(TOPIC, what, mine * 1e3, other * 1e3, "µs", "≤ 5 µs", against="blake3")


def main() -> None:
    small()
    with tempfile.TemporaryDirectory() as folder:
        folders(Path(folder))
        files(Path(folder))
    objects()
    frames()


if __name__ == "__main__":
    main()
