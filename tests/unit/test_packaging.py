"""The built wheel holds what the folders hold, and the Makefile's files agree with each other."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "prompts", "tools", "agent", "evals", "tui")
SHIPPED = {".py", ".md", ".tcss", ".json", ".yaml", ".j2", ".css", ".js"}


def lost_links(root: Path) -> list[str]:
    """The links below `src/dragoman` that a checkout turned into something else."""
    package = root / "src" / "dragoman"
    return [
        name
        for name in FOLDERS
        if not (package / name).is_symlink() or not (package / name / "__init__.py").is_file()
    ]


def test_the_checkout_kept_its_links() -> None:
    lost = lost_links(ROOT)
    assert lost == [], (
        f"src/dragoman/{{{','.join(lost)}}} should be links to the folders of the same name; this "
        "checkout lost them: clone again with `git clone -c core.symlinks=true`, on a file system "
        "that has symbolic links"
    )


def test_a_lost_link_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "src" / "dragoman"
    package.mkdir(parents=True)
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (package / name).symlink_to(f"../../{name}")
    (package / "tools").unlink()
    (package / "tools").write_text("../../tools")  # what git writes where links are switched off
    assert lost_links(tmp_path) == ["tools"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A copy of the tracked files, and the names in the wheel built from it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files are tracked is not known")
    copy = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\0"):
        source = ROOT / name
        if not name or not (source.is_symlink() or source.is_file()):
            continue  # deleted in the working tree
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy / name, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "out"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = (copy / "out").glob("dragoman-*.whl")
    return copy, set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_shipped_file_of_the_folders(built: tuple[Path, set[str]]) -> None:
    copy, names = built
    expected = {
        f"dragoman/{path.relative_to(copy)}"
        for folder in FOLDERS
        for path in (copy / folder).rglob("*")
        if path.is_file() and path.suffix in SHIPPED
    }
    expected |= {"dragoman/__init__.py", "dragoman/__main__.py", "dragoman/py.typed"}
    inside = {name for name in names if name.startswith("dragoman/")}
    assert inside == expected


def test_nothing_but_the_package_reaches_site_packages(built: tuple[Path, set[str]]) -> None:
    _, names = built
    assert {name.split("/")[0] for name in names} == {"dragoman", "dragoman-0.1.0.dist-info"}


def test_every_folder_with_modules_is_a_package() -> None:
    for folder in FOLDERS:
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), f"{module.parent} has no __init__.py"


def test_every_direct_dependency_is_pinned() -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[canonicalize_name(name)] = version
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for text in wanted:
        requirement = Requirement(text)
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} has no line in constraints.txt"
        assert requirement.specifier.contains(pin), f"constraints.txt pins {text} to {pin}"
