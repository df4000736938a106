"""docs/reference says where everything is: pages name modules that exist, and nothing that users import is forgotten."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: re.findall(r"^::: (\S+)$", path.read_text(), re.MULTILINE) for path in (ROOT / "docs/reference").glob("*.md")}
# Rooms below, which users know by the names of others.
INSIDE = {"backend", "ops", "tensor", "printing", "version"}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_pages_name_modules(page):
    assert PAGES[page]
    for name in PAGES[page]:
        assert importlib.import_module(name).__doc__, f"{name} does not say what it is for"


def test_every_page_is_found():
    nav = (ROOT / "mkdocs.yml").read_text()
    assert sorted(re.findall(r"reference/(\S+\.md)", nav)) == sorted(PAGES)


def test_what_users_import_is_on_a_page():
    public = {path.stem for path in (ROOT / "disttorch").iterdir() if (path.is_dir() or path.suffix == ".py") and path.stem[0] != "_"}
    written = {name.split(".")[1] for names in PAGES.values() for name in names if name.startswith("disttorch.")}
    assert sorted(public - INSIDE - written) == []
