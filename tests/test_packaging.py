"""What is built: a wheel of kernels and data alone, also without OpenMP, and plain speech."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the generic kernels without OpenMP, from a copy of the sources.

    The C files that lie beside them are copied too: they are not translated again, and must not
    get into the wheel.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = ["cgpt", "data", "pyproject.toml", "setup.py", "README.md", "LICENSE"]
    source.mkdir()
    for name in names:
        subprocess.run(["cp", "-rp", str(ROOT / name), str(source / name)], check=True)
    for path in [*source.rglob("*.so"), *source.rglob("__pycache__/*")]:
        path.unlink()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(folder),
            str(source),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "CGPT_OPENMP": "0", "CGPT_BUILD_ISA": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("*.whl"))


def test_wheel_contains_kernels_and_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if ".dist-info/" not in name]
    assert "cgpt/_data/chat_training_data.json" in names
    assert "cgpt/_data/pretraining_data.json" in names
    compiled = {name.partition(".")[0] for name in names if name.endswith((".so", ".pyd"))}
    assert {"cgpt/_kernels", "cgpt/tokenizers/_lattice", "cgpt/fileio/_codec"} <= compiled
    assert not compiled & {"cgpt/kernels/avx2", "cgpt/kernels/avx512"}  # as CGPT_BUILD_ISA says
    assert "cgpt/py.typed" in names and "cgpt/_kernels.pyi" in names
    assert {Path(name).suffix for name in names} <= {
        ".py",
        ".pyi",
        ".so",
        ".pyd",
        ".json",
        ".mo",
        ".typed",
    }
    assert all(name.startswith("cgpt/") for name in names)
    assert wheel.stat().st_size < 4_000_000


def test_wheel_works_without_openmp(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    code = (
        "import cgpt, numpy as np; from cgpt import kernels as K; "
        "assert 'site' not in cgpt.__file__; cgpt.set_num_threads(2); "
        "g = cgpt.GPT(cgpt.GPTConfig.preset('tiny'), seed=3); i = np.arange(99)[None]; "
        "print(cgpt.__file__, K.has_openmp(), cgpt.get_num_threads(), "
        "g.forward(i, i).hex())"
    )

    def told(path: Path, **more: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=path,
            env={**os.environ, "PYTHONPATH": str(path), **more},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    where, openmp, threads, loss = told(tmp_path)
    assert where.startswith(str(tmp_path)) and openmp == "False" and threads == "1"
    where, openmp, threads, other = told(ROOT, CGPT_ISA="generic")
    assert where.startswith(str(ROOT)) and (openmp, threads) in (("True", "2"), ("False", "1"))
    assert loss == other  # the same bits as with threads


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-user is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the wheel is not for x86-64")
def test_wheel_runs_without_avx(wheel: Path) -> None:
    done = run(["bash", "tests/run_without_avx.sh", sys.executable, str(wheel)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("generic on a processor without AVX")


def test_a_missing_compiler_gets_a_sentence(tmp_path: Path) -> None:
    done = run(
        [
            sys.executable,
            "setup.py",
            "--quiet",
            "build_ext",
            "--force",
            "--build-temp",
            str(tmp_path),
            "--build-lib",
            str(tmp_path),
        ],
        CC="no-such-compiler",
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("cgpt: the C compiler 'no-such-compiler' could not build")
    assert "install" in last


def test_without_sanitizers_the_sanitized_run_fails(tmp_path: Path) -> None:
    """It is never passed over: a run without them would say nothing."""
    compiler = tmp_path / "cc"  # as gcc answers for a file that it does not have
    compiler.write_text('#!/bin/sh\necho "${1#-print-file-name=}"\n')
    compiler.chmod(0o755)
    done = run(["bash", "tests/run_sanitized.sh", sys.executable], CC=str(compiler))
    assert done.returncode == 1 and done.stdout == ""
    assert "has no libasan.so; install gcc's sanitizers" in done.stderr
