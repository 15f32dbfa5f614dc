"""Builds the sdist and the wheel, and tries each away from the checkout: `make dist`."""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
# Nothing is downloaded: what the packages need is installed already.
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index")
TRAIN = (
    "train ppo --task CartPole-v1 --total-steps 2000 --num-envs 4 --rollout-length 32 "
    "--batch-size 64 --episodes 2 --evaluate-episodes 0 --device cpu --quiet --run-dir run"
)


def run(python: Path | str, *words: str | Path, cwd: Path) -> str:
    """What a command of one Python prints; fails with it."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=clean, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def expected() -> set[str]:
    """The files of the package, as the wheel should hold them."""
    files = {"rltransfer/py.typed"}
    for top in ("rltransfer", "agents", "envs", "experiments"):
        for path in (ROOT / top).rglob("*"):  # links in the package are not followed
            name = path.relative_to(ROOT).as_posix()
            is_zoo = path.parent.name == "zoo" and path.suffix in (".safetensors", ".json")
            if path.suffix == ".py" or is_zoo:
                files.add(name if top == "rltransfer" else f"rltransfer/{name}")
    return files


def build() -> list[Path]:
    """Builds the sdist from the checkout, and the wheel from the sdist."""
    shutil.rmtree(DIST, ignore_errors=True)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(DIST)!r})"
    run(sys.executable, "-c", code, cwd=ROOT)
    (sdist,) = DIST.glob("*.tar.gz")
    run(sys.executable, *PIP, "wheel", *OFFLINE, "--wheel-dir", DIST, sdist, cwd=DIST)
    return [sdist, *DIST.glob("*.whl")]


def check_files(wheel: Path) -> None:
    """Checks that the wheel holds each file of the package once, and no other."""
    with zipfile.ZipFile(wheel) as archive:
        names = collections.Counter(
            name for name in archive.namelist() if ".dist-info/" not in name
        )
    wrong = names - collections.Counter(expected()), collections.Counter(expected()) - names
    if any(wrong):
        sys.exit(f"{wheel.name}: too many: {sorted(wrong[0])}, missing: {sorted(wrong[1])}")


def try_out(archive: Path) -> None:
    """Installs an archive into a fresh environment and runs it there, outside the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        venv.create(here / "venv", symlinks=True)
        python = here / "venv" / "bin" / "python"
        site = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=here))
        # The fresh environment sees this one's packages, torch among them, and not the checkout:
        # Python does not read the .pth files, an editable install's included, of these folders.
        packages = [path for path in sys.path if path.endswith("site-packages")]
        Path(f"{site}".strip(), "dependencies.pth").write_text("\n".join(packages))
        run(python, *PIP, "install", *OFFLINE, "--ignore-installed", archive, cwd=here)
        code = "import rltransfer; print(rltransfer.__file__)"
        where = run(python, "-c", code, cwd=here)
        if not where.startswith(str(here)):
            sys.exit(f"{archive.name} is not what is imported, but {where}")
        rltransfer = here / "venv" / "bin" / "rltransfer"
        listed = run(rltransfer, "list", cwd=here)
        run(rltransfer, *TRAIN.split(), cwd=here)
        if "zoo:" not in listed or not (here / "run" / "result.json").exists():
            sys.exit(f"{archive.name} does not work: {listed}")
    print(f"{archive.name}: {archive.stat().st_size:,} bytes, lists and trains")


def main() -> None:
    """Builds and tries both."""
    archives = build()
    check_files(archives[-1])
    for archive in archives:
        try_out(archive)


if __name__ == "__main__":
    main()
