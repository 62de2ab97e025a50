"""Documents are held to the code: every verb has help and is written down, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jupyter_mlops import cli
from jupyter_mlops.project import Settings

ROOT = Path(__file__).parent.parent
VERBS = [
    (name, command)
    for name, command in cli.mlops.commands.items()
    for command in (command.commands.values() if isinstance(command, click.Group) else [command])
]


@pytest.mark.parametrize(("name", "command"), VERBS, ids=lambda one: one if isinstance(one, str) else one.name)
def test_every_verb_has_help_and_is_written_down(name: str, command: click.Command) -> None:
    assert command.help
    assert command.help.rstrip().endswith((".", "?"))
    words = name if command.name == name else f"{name} {command.name}"
    assert re.search(rf"mlops {words}\b", (ROOT / "docs" / "commands.md").read_text())


@pytest.mark.parametrize("name", cli.mlops.commands)
def test_help_of_a_verb_can_be_read_and_names_its_words(name: str) -> None:
    verb = cli.mlops.commands[name]
    words = list(verb.commands) if isinstance(verb, click.Group) else []
    for more in ([], *([word] for word in words)):
        done = CliRunner().invoke(cli.mlops, [name, *more, "--help"])
        assert (done.exit_code, done.exception) == (0, None)
        assert done.output.startswith(f"Usage: mlops {' '.join([name, *more])}")
        assert more or all(re.search(rf"^  {word}\b", done.output, re.MULTILINE) for word in words)


def test_help_lists_every_verb_once() -> None:
    listed = [verb for verbs in cli.GROUPS.values() for verb in verbs]
    assert sorted(listed) == sorted(cli.mlops.commands)


def test_every_verb_of_the_readme_exists() -> None:
    table = (ROOT / "README.md").read_text().split("| words |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:])))
    assert named == set(cli.mlops.commands)


def test_every_setting_is_written_down() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    for name in Settings.__struct_encode_fields__:
        assert f"`{name}`" in text


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_listing_of_the_readme_is_the_package() -> None:
    listing = (ROOT / "README.md").read_text().split("```\njupyter_mlops/\n")[1].split("```")[0]
    named = set(re.findall(r"^ {4}(\w+(?:\.py|/))", listing, flags=re.MULTILINE))
    package = ROOT / "jupyter_mlops"
    there = {path.name for path in package.glob("*.py")} | {
        f"{path.parent.name}/" for path in package.glob("*/__init__.py")
    }
    assert named == there
