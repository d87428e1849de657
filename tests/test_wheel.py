"""The wheel that users install works outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    maturin = Path(sys.executable).with_name("maturin")
    subprocess.run(
        [maturin, "build", "--release", "--locked", "--offline", "--quiet", "--out", out],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = out.iterdir()
    return built


def test_one_stable_abi_wheel_carries_types_and_license(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert {"flyball/py.typed", "flyball/_native.pyi", "flyball/_native.abi3.so"} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benches"))]


def test_the_installed_wheel_runs_the_demo_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "an environment"
    venv.create(home, with_pip=True)
    # The dependencies come from the environment of the tests, which is on the path of the new one but is no site
    # folder of it: its own link to the checkout is not followed.
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    python = home / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True, env=environment)
    where = "import flyball, flyball._native; print(flyball.__file__, flyball._native.__file__, sep=chr(10))"
    found = subprocess.run(
        [python, "-c", where],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert all(Path(line).is_relative_to(home) for line in found.stdout.splitlines())
    done = subprocess.run(
        [home / "bin" / "flyball", "demo", "training.epochs=1", "--run", "run"],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "training.png").stat().st_size > 10_000
