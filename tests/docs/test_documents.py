"""Documents lead to what is there: links, headings, named files, and the tree of the package."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"(?<![\w/.~-])(?:lmsys_ray|tests|jobs|docs)/[\w/.-]+\.(?:py|md|yaml)\b")
TREE = re.compile(r"```\nlmsys_ray/\n(.*?)```", re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Returns the anchors that GitHub gives the headings of a document."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tree_files(tree: str) -> Iterator[str]:
    """Yields the files of a tree of two spaces a level, each line a name and what it is."""
    folders: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, meaning = line.strip().partition(" ")
        folders[depth - 1 :] = []
        if name.endswith("/"):
            folders.append(name)
        else:
            assert meaning.strip(), f"{name} has no description"
            yield "lmsys_ray/" + "".join(folders) + name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    dead = [name for name in NAMED_FILE.findall(text) if not (ROOT / name).is_file()]
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_the_tree_of_the_package_has_a_line_for_each_file() -> None:
    tree = TREE.search((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert tree
    listed = list(tree_files(tree[1]))
    modules = (ROOT / "lmsys_ray").rglob("*.py")
    there = {str(path.relative_to(ROOT)) for path in modules if path.name != "__init__.py"}
    assert sorted(there - set(listed)) == [], "files without a line in docs/architecture.md"
    assert sorted(set(listed) - there) == [], "lines in docs/architecture.md without a file"
    assert len(listed) == len(set(listed))


def test_the_lab_has_an_index() -> None:
    lab = ROOT / "docs" / "lab"
    listed = set(LINK.findall((lab / "README.md").read_text(encoding="utf-8")))
    assert {path.name for path in lab.glob("*.md")} - {"README.md"} <= listed
