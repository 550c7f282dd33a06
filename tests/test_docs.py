"""The pages of the documentation: their code runs, and uses public paths only."""

import ast
import re
import textwrap
from pathlib import Path

import pytest

import skgeo

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.rst")) + sorted(
    (ROOT / "docs" / "mathematics").glob("*.rst")
)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SUBJECTS = ("chain", "fiber", "fisher", "quotient", "symmetry")


def blocks(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8") + "\n"
    found = re.findall(r"^\.\. code-block:: python\n\n((?:(?: +.*)?\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one page caches its features
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)


def sources():
    for page in PAGES:
        for block in blocks(page):
            yield page, block
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL):
        yield ROOT / "README.md", block
    for example in EXAMPLES:
        yield example, example.read_text(encoding="utf-8")


def test_only_public_paths_are_shown():
    public = {"skgeo", "skgeo.datasets", "skgeo.jacobian", "skgeo.likelihood", "skgeo.exceptions"}
    public |= {f"skgeo.{subject}" for subject in (*SUBJECTS, "training")}
    for page, code in sources():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skgeo":
                assert node.module in public, f"{page.name} imports from {node.module}"
                for alias in node.names:
                    assert not alias.name.startswith("_"), f"{page.name} imports {alias.name}"


def test_references_are_to_public_paths():
    for page in [*PAGES, *sorted((ROOT / "docs" / "api").glob("*.rst")), *EXAMPLES]:
        private = re.findall(r"skgeo(?:\.\w+)*\._\w+", page.read_text(encoding="utf-8"))
        assert private == [], page.name


@pytest.mark.parametrize("subject", [*SUBJECTS, "training"])
def test_api_page_lists_what_is_public(subject):
    page = (ROOT / "docs" / "api" / f"{subject}.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(getattr(skgeo, subject).__all__)
