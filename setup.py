"""Build of the compiled kernels; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from datetime import datetime, timezone
from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, LinkError, PlatformError

from distutils import ccompiler, sysconfig  # isort: skip  (setuptools' own copy of it)

DEBUG = os.environ.get("CGPT_DEBUG", "") not in ("", "0")
DIRECTIVES = {
    "language_level": 3,
    "embedsignature": True,
    "freethreading_compatible": True,
    "cdivision": True,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
}
DEPENDS = [
    os.path.join("cgpt", "kernels", name)
    for name in sorted(os.listdir("cgpt/kernels"))
    if name.endswith((".pxi", ".h"))
] + ["cgpt/_kernels.pyx"]
MSVC = sys.platform == "win32"
X86 = platform.machine().lower() in ("x86_64", "amd64") and "arm64" not in os.environ.get(
    "ARCHFLAGS", ""
)
# No -march=native: what is built here may run elsewhere. No -ffast-math: a NaN must be seen.
FLAGS = (
    ["/O2", "/fp:precise"]
    if MSVC
    else (["-O1", "-g"] if DEBUG else ["-O3", "-g0"]) + ["-fno-math-errno", "-fno-trapping-math"]
)
ISA_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
        "-mfma",
        "-mprefer-vector-width=512",
        "-mtune=skylake-avx512",
    ],
}
# CGPT_BUILD_ISA: which of them to build, "avx2 avx512" where it is not set; a smaller build.
WANTED = os.environ.get("CGPT_BUILD_ISA", " ".join(ISA_FLAGS)).replace(",", " ").split()
if not set(WANTED) <= set(ISA_FLAGS):
    raise SystemExit(
        f"cgpt: CGPT_BUILD_ISA: found '{os.environ['CGPT_BUILD_ISA']}', expected none "
        f"or some of {', '.join(ISA_FLAGS)} beside the generic kernels"
    )


def extension(name: str, source: str, flags: list[str]) -> Extension:
    return Extension(
        name,
        [source],
        include_dirs=["cgpt/kernels"],
        depends=DEPENDS,
        extra_compile_args=FLAGS + flags,
    )


def beside_what_uses_it(source: str, *includes: str) -> Extension:
    """A module of one package, and what its source includes from the same folder."""
    folder = os.path.dirname(source)
    return Extension(
        source.removesuffix(".pyx").replace("/", "."),
        [source],
        include_dirs=[folder],
        depends=[f"{folder}/{name}" for name in includes],
        extra_compile_args=list(FLAGS),
    )


def extensions() -> list[Extension]:
    """The baseline module, and one more for each wanted set that this compiler can target."""
    modules = [extension("cgpt._kernels", "cgpt/_kernels.pyx", [])]
    modules += [
        beside_what_uses_it(*module)
        for module in (
            ("cgpt/fileio/_codec.pyx", "crc32.h", "decimal.h", "reading.h"),
            ("cgpt/tokenizers/_lattice.pyx", "encoding.pxi"),
            ("cgpt/tokenizers/_bpe.pyx", "encoding.pxi"),
            ("cgpt/tokenizers/_merging.pyx",),
            ("cgpt/corpus/_digest_set.pyx",),
            ("cgpt/corpus/_packing.pyx",),
        )
    ]
    if X86 and not MSVC:
        modules += [
            extension(f"cgpt.kernels.{isa}", f"cgpt/kernels/{isa}.pyx", flags)
            for isa, flags in ISA_FLAGS.items()
            if isa in WANTED
        ]
    return modules


def missing_compiler(compiler: Any, error: Exception) -> SystemExit:
    """The one sentence for a compiler that is missing or does not work."""
    command = (getattr(compiler, "compiler_so", None) or ["cl"])[0]
    reason = " ".join(str(error).split())
    return SystemExit(
        f"cgpt: the C compiler '{command}' could not build the kernels ({reason}); install one "
        "(Debian/Ubuntu: apt install gcc python3-dev; macOS: xcode-select --install; Windows: "
        "Visual Studio Build Tools) or set CC to a working one, then install again"
    )


def try_out(compiler: Any, text: str, flags: list[str], link_flags: list[str]) -> None:
    """Compile and link a small program. Raises CompileError or LinkError."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w", encoding="ascii") as file:
            file.write(text)
        objects = compiler.compile([source], output_dir=folder, extra_postargs=flags)
        compiler.link_executable(objects, os.path.join(folder, "probe"), extra_postargs=link_flags)


def openmp_flags(compiler: Any) -> tuple[list[str], list[str]]:
    """Flags with which a small OpenMP program compiles and links; none where none does."""
    if os.environ.get("CGPT_OPENMP", "1") == "0":
        return [], []
    candidates = (
        [(["/openmp"], [])]
        if MSVC
        else [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])]
    )
    program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
    for flags, link_flags in candidates:
        try:
            try_out(compiler, program, flags, link_flags)
        except (CompileError, LinkError):
            continue
        return flags, link_flags
    print("cgpt: no OpenMP found; the kernels will use one thread", file=sys.stderr)
    return [], []


class BuildKernels(build_ext):
    """build_ext that adds OpenMP where it works."""

    def build_extensions(self) -> None:
        flags, link_flags = openmp_flags(self.compiler)
        for module in self.extensions:
            module.extra_compile_args += flags
            module.extra_link_args += link_flags
        try:
            super().build_extensions()
        except (CCompilerError, PlatformError) as error:
            raise missing_compiler(self.compiler, error) from None


def compile_catalogue() -> None:
    """cgpt/locale/zh.mo of zh.po, which Python's gettext reads; the same bytes every time."""
    with open("cgpt/locale/zh.po", "rb") as source:
        catalogue = read_po(source)
    catalogue.creation_date = datetime.fromtimestamp(0, timezone.utc)
    with open("cgpt/locale/zh.mo", "wb") as target:
        write_mo(target, catalogue)


compile_catalogue()
if {"build", "build_ext", "bdist_wheel", "editable_wheel", "install"} & set(sys.argv):
    # Said first, before anything else has filled the screen.
    compiler = ccompiler.new_compiler()
    sysconfig.customize_compiler(compiler)
    try:
        try_out(
            compiler,
            "#include <Python.h>\nint main(void) { return 0; }\n",
            ["-I" + sysconfig.get_python_inc()],
            [],
        )
    except (CCompilerError, PlatformError) as error:
        raise missing_compiler(compiler, error) from None

setup(
    # The data of the project itself is shipped as a package of its own.
    packages=[*find_packages(include=["cgpt*"]), "cgpt._data"],
    ext_modules=cythonize(extensions(), compiler_directives=DIRECTIVES, quiet=True),
    cmdclass={"build_ext": BuildKernels},
)
