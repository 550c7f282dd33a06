"""Rules of the code base that no single module can check: layers, names, sizes, and the README."""

import ast
import graphlib
import importlib
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import skgeo
from skgeo.network._activation import ACTIVATION_NAMES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "skgeo"
SOURCES = sorted(PACKAGE.rglob("*.py"))

SUBJECTS = {"chain", "fiber", "fisher", "quotient", "symmetry"}
# Components from the bottom to the top; those in one row may import each other.
LAYERS = [
    {
        *("_arguments", "_cached", "_progress", "_random_state", "_results"),
        *("exceptions", "_show_versions", "_version"),
    },
    {"linalg"},
    {"data", "likelihood"},
    {"models"},
    {"network"},
    {"jacobian"},
    {"_axes", "_depth", "_sklearn", "base", "pairs"},
    SUBJECTS,
    {"training"},
    {"__init__", "__main__", "_command"},
]
# Which subject may import which other.
ARROWS = {("symmetry", "fisher")}
# Beside the estimators: it sees what is in this list, and only the top sees it.
BESIDE = {"datasets": {"_arguments", "_results", "exceptions", "linalg", "data"}}
# networkx is optional for skgeo; torch itself may import it.
OPTIONAL = {
    "lightning",
    "matplotlib",
    "pytorch_lightning",
    "rich",
    "safetensors",
    "skorch",
    "transformers",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def component(module: str) -> str:
    """Part of the package that a dotted name belongs to: ``fisher`` for ``skgeo.fisher.x``."""
    for part in module.split(".")[1:2]:
        if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file():
            return part
    return "__init__"  # where `from skgeo import Name` finds it


def level(name: str) -> int:
    for i, layer in enumerate(LAYERS):
        if name in layer:
            return i
    raise AssertionError(f"skgeo/{name} has no place in LAYERS: decide what it may import")


def imported(tree: ast.AST, path: Path) -> set[str]:
    """Full names that a piece of code imports, wherever in it the statement stands."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{stem}.{alias.name}" for alias in node.names)
    return names


def at_import_time(tree: ast.Module) -> ast.Module:
    """Module without the bodies of its functions, which run later."""

    class WithoutFunctions(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        visit_AsyncFunctionDef = visit_FunctionDef

    return WithoutFunctions().visit(tree)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def source_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_imports_point_downwards(path):
    here = component(module_name(path))
    for name in imported(parse(path), path):
        if name.split(".")[0] != "skgeo":
            continue
        there = component(name)
        if there == here:
            continue
        if here in BESIDE:
            allowed = there in BESIDE[here]
        elif there in BESIDE:
            allowed = level(here) == len(LAYERS) - 1
        elif {here, there} <= SUBJECTS:
            allowed = (here, there) in ARROWS
        else:
            allowed = level(there) <= level(here)
        assert allowed, f"{source_id(path)} imports {name}: {here} must not see {there}"


def test_no_import_goes_round_in_a_circle():
    modules = {module_name(path): path for path in SOURCES}

    def home(name: str) -> str | None:
        """The module that a full name is imported from."""
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name or None

    graph = {}
    for name, path in modules.items():
        found = {home(each) for each in imported(at_import_time(parse(path)), path)}
        # A package's list of names is read after the modules that it lists.
        graph[name] = {each for each in found if each and not name.startswith(f"{each}.")} - {name}
    graphlib.TopologicalSorter(graph).prepare()


# Which classes of torch are activations, read off torch itself.
ACTIVATION_CLASSES = {
    name
    for name in torch.nn.modules.activation.__all__
    if not name.startswith(("Softm", "LogSoftm", "Softmin")) and name != "MultiheadAttention"
} - {"GLU"}
ALL_NAMES = set(ACTIVATION_NAMES) - {"identity", "threshold"}
# Who may name one: the table's reader, networks with known answers, and scikit-learn's own names.
NAME_ACTIVATIONS = {
    "skgeo/network/_activation_reading.py",
    "skgeo/models/_sklearn_models.py",
}


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_one_table_knows_the_activations(path):
    if source_id(path) in NAME_ACTIVATIONS or "datasets" in path.parts:
        return
    tree = parse(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ACTIVATION_CLASSES, f"line {node.lineno} names nn.{node.attr}"
        if isinstance(node, (ast.Dict, ast.Tuple, ast.List, ast.Set)):
            items = node.keys if isinstance(node, ast.Dict) else node.elts
            named = {item.value for item in items if isinstance(item, ast.Constant)} & ALL_NAMES
            table = source_id(path).startswith("skgeo/network/_activation")
            assert table or len(named) < 2, f"line {node.lineno} lists {sorted(named)}"


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_private_and_experimental_sklearn_names_stay_in_one_file(path):
    if path == PACKAGE / "_sklearn.py":
        return
    text = path.read_text(encoding="utf-8")
    names = {name for name in imported(parse(path), path) if name.split(".")[0] == "sklearn"}
    names.update(re.findall(r"\bsklearn(?:\.\w+)+", text))
    for name in names:
        private = any(re.match("_(?!_)", part) for part in name.split("."))
        experimental = {"callback", "experimental"} & set(name.split("."))
        assert not private, f"{name} is private: it belongs in _sklearn.py"
        assert not experimental, f"{name} is experimental: it belongs in _sklearn.py"


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_optional_packages_are_imported_when_used(path):
    names = imported(at_import_time(parse(path)), path)
    assert not {name.split(".")[0] for name in names} & OPTIONAL


def test_importing_skgeo_needs_no_optional_package():
    code = (
        "import sys\n"
        f"for name in {sorted(OPTIONAL)}: sys.modules[name] = None\n"
        "import skgeo\n"
        "for name in skgeo.__all__: getattr(skgeo, name)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def is_private(path: Path) -> bool:
    return any(re.match("_(?!_)", part) for part in module_name(path).split("."))


PUBLIC = [path for path in SOURCES if not is_private(path) and path.stem != "__main__"]


@pytest.mark.parametrize("path", PUBLIC, ids=source_id)
def test_public_modules_list_their_names(path):
    module = importlib.import_module(module_name(path))
    names = module.__all__

    def order(name: str) -> tuple[int, str]:  # CONSTANTS, Classes, functions
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert list(names) == sorted(set(names), key=order)
    for name in names:
        assert hasattr(module, name), f"{module.__name__}.__all__ names {name}, which is missing"


def test_files_that_users_do_not_import_are_private():
    names = {module_name(path).removeprefix("skgeo.") for path in PUBLIC}
    packages = {path.parent.name for path in PUBLIC if path.stem == "__init__"} - {"skgeo"}
    rooms = {f"{subject}.{room}" for subject in SUBJECTS for room in ("display", "estimator")}
    datasets = {"datasets.linear", "datasets.networks", "datasets.training"}
    assert names - packages - rooms - datasets == {
        "training.display",
        "skgeo",
        "base",
        "exceptions",
        "pairs",
    }


@pytest.mark.parametrize("path", [p for p in SOURCES if p.stem == "__init__"], ids=source_id)
def test_no_package_binds_the_name_of_a_submodule(path):
    package = importlib.import_module(module_name(path))
    for child in path.parent.iterdir():
        module = child.suffix == ".py" and child.stem != "__init__"
        if module or (child / "__init__.py").is_file():
            found = getattr(package, child.stem, None)
            assert found is None or found is sys.modules[f"{package.__name__}.{child.stem}"]


@pytest.mark.parametrize(
    "package", sorted(p.parent for p in PACKAGE.glob("*/__init__.py")), ids=lambda p: p.name
)
def test_no_file_name_occurs_twice_in_a_package(package):
    names = [path.stem.lstrip("_") for path in package.rglob("*.py") if path.stem != "__init__"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("subject", sorted(SUBJECTS))
def test_every_subject_has_its_rooms(subject):
    for name in (f"skgeo/{subject}/estimator.py", f"skgeo/{subject}/display.py"):
        assert (ROOT / name).is_file()
    for name in ("test_estimator.py", "test_display.py", "test_sklearn_checks.py"):
        assert (ROOT / "tests" / subject / name).is_file()
    assert (ROOT / "docs" / "mathematics" / f"{subject}.rst").is_file()
    assert (ROOT / "docs" / "api" / f"{subject}.rst").is_file()


def test_public_names_fit_a_screen():
    assert 0 < len(skgeo.__all__) <= 40


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert skgeo.__version__ == project["version"]
    assert f"\nversion: {skgeo.__version__}\n" in citation


def test_files_are_small():
    sizes = {
        source_id(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    tests = {
        source_id(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "tests").rglob("*.py")
    }
    assert {name: size for name, size in (sizes | tests).items() if size > 600} == {}
    assert statistics.median(size for size in sizes.values() if size) <= 200


def test_no_paths_of_one_machine():
    folders = "|".join(["tmp", "work", "opt", "root", "home", "Users"])
    absolute = re.compile(rf"(?<![\w.)}}/-])/(?:{folders})/")
    suffixes = {".cff", ".cfg", ".md", ".py", ".rst", ".toml", ".txt", ".yml", ""}
    generated = {"_build", "auto_examples", "generated", "__pycache__"}
    for folder in ("skgeo", "tests", "docs", "examples", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if not path.is_file() or path.suffix not in suffixes or generated & set(path.parts):
                continue
            found = absolute.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{source_id(path)} mentions {found and found.group()}"
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in suffixes and path.name != ".git":
            found = absolute.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.name} mentions {found and found.group()}"


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (
            "main",
            'python -m pip install -c constraints.txt ".[plot,progress]" && python -m skgeo',
        ),
        ("test", 'python -m pip install -c constraints.txt ".[test]" && python -m pytest'),
    ],
)
def test_readme_commands_are_marked_for_ci(name, command):
    block = rf"^<!-- command: {name} -->\n```bash\n([^\n]+)\n```$"
    assert re.findall(block, readme(), re.MULTILINE) == [command]
    assert f"readme_command {name}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_readme_code_runs():
    blocks = re.findall(r"^```python\n(.*?)^```$", readme(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["leverage"].shape == (300, names["fisher"].fisher_rank_)
    assert names["features"].shape == (3, 8)
