"""docs/api-coverage.md says what is there."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("api_coverage", ROOT / "docs" / "api_coverage.py")
coverage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coverage)


def test_the_page_is_true():
    assert coverage.PAGE.read_text() == coverage.page(), "run: python docs/api_coverage.py"


def test_what_is_looked_up():
    import disttorch

    assert coverage.forms_of(disttorch, "add") == {"function", "method", "in place", "out="}
    assert coverage.forms_of(disttorch, "requires_grad_") == {"method"}
    assert coverage.forms_of(disttorch, "nn.functional.relu") == {"function", "in place"}
    assert coverage.forms_of(disttorch, "float") == {"method"}  # disttorch.float is a dtype
    assert coverage.forms_of(disttorch, "no.such.name") == set()
    assert coverage.exists(disttorch, "first: utils.data", "DataLoader")
    assert not coverage.exists(disttorch, "first: utils.data", "DataSaver")


def test_every_operation_has_forms():
    forms = json.loads(coverage.FORMS.read_text())
    names = [n for title, names in coverage.sections().items() if "operations" in title for n in names]
    assert sorted(set(names)) == sorted(forms)
    assert forms["add"] == ["function", "method", "in place", "out="]
    assert forms["nn.functional.relu"] == ["function", "in place"]


def test_the_forms_are_pytorchs():
    pytest.importorskip("torch")
    pytest.importorskip("expecttest")
    assert coverage.pytorchs_forms() == json.loads(coverage.FORMS.read_text())


def test_the_titles_count_right():
    title = [line for line in coverage.NAMES.read_text().splitlines() if line.startswith(("# first", "# second"))]
    assert [int(t.rpartition("(")[2].rstrip(")")) for t in title] == [len(names) for names in coverage.sections().values()]
