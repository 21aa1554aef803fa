"""Write everything to build/gpu that a machine without a network needs for benchmarks/gpu/run.sh.

    python -m benchmarks.gpu.prepare --photos FOLDER FOLDER --golden ../shared/golden/checkpoints

Writes wheels/ (packages that the machine lacks), shards/ (photographs for the loader) and golden/ (published
checkpoints with reference features). Run it in the project's environment, with the project's root as the current
folder. At the end it prints the folders to carry in each call, and fails if a call is too large.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
MACHINE = Path(__file__).with_name("machine.txt")
EXTRAS = ("train",)
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# Packages of which the project needs versions of this year.
RECENT = {"timm", "pillow"}
# Methods whose files in golden/checkpoints are small.
METHODS = ("mae", "dino", "dbot", "tinymim", "beit")
# Files that numerics.py reads.
GOLDEN_FILES = ("checkpoint.pth", "expected.npz")
# Limit of a lent machine for the working tree and the folders that are carried.
MAX_MIB = 64
# Folders of build/gpu by call; the experiment has a call of its own, because all together are too large.
CALLS = {"checks and speed": ("golden", "shards", "wheels"), "the experiment": ("wheels", "pack.npz")}
# Two batches of `run.sh train`.
PHOTOS = 256
SHORT_SIDE_PX = 256


def installed_on(machine: Path) -> dict[str, Version | None]:
    """Read the packages of a machine; the version is None if it is unknown."""
    lines = (line.partition("#")[0].strip() for line in machine.read_text("utf-8").splitlines())
    packages: dict[str, Version | None] = {}
    for line in filter(None, lines):
        name, _, version = line.partition("==")
        packages[canonicalize_name(name)] = Version(version) if version else None
    return packages


def lacking(requirements: Iterable[Requirement], installed: Mapping[str, Version | None]) -> list[str]:
    """Return the names of packages that the machine needs: it lacks them, or has a version that is too old.

    The requirements of a package are looked up in this environment, and only if the machine needs the package.
    """
    environment = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "extra": ""}
    waiting = list(requirements)
    missing = set[str]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        if name in missing or is_satisfied(requirement, installed):
            continue
        missing.add(name)
        waiting += map(Requirement, distribution(name).requires or ())
    return sorted(missing)


def is_satisfied(requirement: Requirement, installed: Mapping[str, Version | None]) -> bool:
    """Return True if the machine has the package in a version that the requirement accepts.

    An unknown version is accepted, except of packages that the project needs in a recent version.
    """
    name = canonicalize_name(requirement.name)
    if name not in installed:
        return False
    version = installed[name]
    if version is None:
        return name not in RECENT
    return requirement.specifier.contains(version, prereleases=True)


def project_requirements() -> list[Requirement]:
    """Read the requirements of the core and of the extras from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


def pinned(names: Iterable[str]) -> list[str]:
    """Return NAME==VERSION from constraints.txt."""
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    by_name = {canonicalize_name(name): version for name, version in versions.items()}
    return [f"{name}=={by_name[canonicalize_name(name)]}" for name in names]


def download(packages: Iterable[str], folder: Path) -> None:
    """Download wheels for the machine's Python, without their requirements."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    words += ["--python-version", PYTHON, "--implementation", "cp", "--dest", str(folder)]
    words += [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*words, *packages], check=True)


def pack(photos: Iterable[Path], shards: Path) -> None:
    """Pack the first photographs of some folders as shards."""
    shutil.rmtree(shards, ignore_errors=True)
    chosen: list[Path] = []
    for source in photos:
        chosen += sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    with tempfile.TemporaryDirectory() as folder:
        for i, path in enumerate(chosen[:PHOTOS]):
            # Folders may have files of the same name.
            shutil.copy(path, Path(folder) / f"{i:03}{path.suffix}")
        words = [sys.executable, "-m", "uniemox", "data", "shard", f"folder:{folder}", str(shards)]
        subprocess.run([*words, "--short-side", str(SHORT_SIDE_PX)], check=True)


def copy_golden(golden: Path, folder: Path) -> None:
    """Copy the files of published checkpoints that the checks read."""
    shutil.rmtree(folder, ignore_errors=True)
    for method in METHODS:
        (folder / method).mkdir(parents=True)
        for name in GOLDEN_FILES:
            shutil.copyfile(golden / method / name, folder / method / name)


def tree_files() -> list[Path]:
    """Return the files of the working tree that travel: tracked ones, and others that git does not ignore."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True).stdout.decode("utf-8", "surrogateescape")
    paths = (ROOT / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file()]


def check_calls(out: Path) -> bool:
    """Print what each call carries, and its size with the working tree; return False if one is too large."""
    tree_mib = sum(path.stat().st_size for path in tree_files()) / 2**20
    print(f"working tree: {tree_mib:.1f} MiB")
    fits = True
    for call, names in CALLS.items():
        carried = [out / name for name in names if (out / name).exists()]
        total_mib = tree_mib + sum(map(mebibytes, carried))
        words = " ".join(map(str, carried)) or "nothing"
        print(f"{call}: carry {words}: {total_mib:.1f} MiB with the working tree, of {MAX_MIB}")
        fits = fits and total_mib <= MAX_MIB
    return fits


def main() -> None:
    """Write the folder and print the size of its parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", help="folders of photographs for the loader; default: none")
    parser.add_argument("--golden", type=Path, help="folder of published checkpoints with their features")
    parser.add_argument("--machine", type=Path, default=MACHINE, help="packages of the machine")
    parser.add_argument("--out", type=Path, default=Path("build") / "gpu")
    parser.add_argument("--no-wheels", action="store_true", help="download nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.no_wheels:
        shutil.rmtree(args.out / "wheels", ignore_errors=True)
        names = lacking(project_requirements(), installed_on(args.machine))
        download(pinned(names), args.out / "wheels")
    if args.golden is not None:
        copy_golden(args.golden, args.out / "golden")
    if args.photos is not None:
        pack(args.photos, args.out / "shards")
    for part in sorted(args.out.iterdir()):
        print(f"{part}: {mebibytes(part):.1f} MiB")
    if not check_calls(args.out):
        sys.exit(f"a call may carry {MAX_MIB} MiB with the working tree: give smaller photographs")


def mebibytes(path: Path) -> float:
    """Return the size of a file, or of all files below a folder, in MiB."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 2**20


if __name__ == "__main__":
    main()
