"""Every command that the documentation shows exists with these options, and the settings it names are settings."""

import re
import shlex
from pathlib import Path

import click
import pytest

from tcvq_runner.cli import cli
from tcvq_runner.layers import builtin_recipes
from tcvq_runner.recipe import flat_recipe, load_recipe

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:uv run )?(tcvq [^#\n|>]+)")
REPRODUCING = (ROOT / "docs/reproducing.md").read_text(encoding="utf-8")


def commands(text):
    """Return the commands of a page: lines of its blocks, and spans."""
    shown = [block for language, block in BLOCK.findall(text) if language in ("", "sh", "bash")]
    lines = [line for block in shown for line in block.replace("\\\n", "").splitlines()]
    pieces = [*lines, *SPAN.findall(BLOCK.sub("", text))]
    found = [match[1].strip() for piece in pieces if (match := COMMAND.fullmatch(re.split("#| > ", piece)[0].strip()))]
    return [each for each in dict.fromkeys(found) if not re.search(r"[…$]|\.\.\.|\\$", each)]


SHOWN = {command: page.name for page in PAGES for command in commands(page.read_text(encoding="utf-8"))}


def parsed(words):
    """Return what a command understands of its words; nothing if they only name it.

    Raises:
        click.UsageError: There is no such command or option, or an argument is missing.
    """
    command, context = cli, click.Context(cli)
    while words and isinstance(command, click.Group):
        _, command, words = command.resolve_command(context, words)
        context = click.Context(command, context)
    return command.make_context(command.name, words, parent=context.parent).params if words else {}


@pytest.mark.parametrize("command", list(SHOWN))
def test_a_command_of_the_documentation_is_understood(command):
    try:
        found = parsed(shlex.split(command)[1:])
    except click.UsageError as error:
        if "does not exist" in error.message:  # a file of the reader's
            return
        pytest.fail(f"{SHOWN[command]}: {command}: {error.format_message()}")
    source, *settings = found.get("items") or [found.get("recipe"), *found.get("settings", ())]
    if source in builtin_recipes():
        load_recipe(source, settings)


def test_the_commands_of_a_page_are_found_whatever_blocks_stand_beside_them():
    page = "```text\ntcvq runs\n```\n`tcvq doctor`\n```bash\ntcvq run debug > log\n```\n```\ntcvq sample \\\nRUN\n```\n"
    assert commands(page) == ["tcvq run debug", "tcvq sample RUN", "tcvq doctor"]
    assert sum(name == "quickstart.md" for name in SHOWN.values()) >= 10


def test_an_option_that_does_not_exist_is_not_understood():
    with pytest.raises(click.NoSuchOption):
        parsed(["sample", "RUN", "--beautiful"])
    with pytest.raises(click.UsageError):
        parsed(["draw", "RUN"])


def test_the_keys_that_replace_the_papers_are_settings():
    keys = flat_recipe(load_recipe("bedroom"))
    sections = {key.partition(".")[0] for key in keys if "." in key}
    spans = SPAN.findall(REPRODUCING)
    named = {match[0] for span in spans if (match := re.match(rf"(?:{'|'.join(sections)})\.\w+", span))}
    named -= {"model.target", "data.target", "data.data_root", "data.batch_size"}  # the paper's
    assert len(named) > 25
    assert named <= set(keys)
    settings = re.findall(r"\b[a-z0-9]+\.\w+=[\w.-]+", REPRODUCING)
    assert len(set(settings)) == 6
    for each in settings:
        load_recipe("bedroom", [each])
