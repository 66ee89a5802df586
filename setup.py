"""Build of the compiled kernels; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import platform
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, ExecError, LinkError, PlatformError

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
DEPENDS = [os.path.join("cgpt", "kernels", name) for name in sorted(os.listdir("cgpt/kernels"))
           if name.endswith((".pxi", ".h"))] + ["cgpt/_kernels.pyx"]
MSVC = sys.platform == "win32"
X86 = platform.machine().lower() in ("x86_64", "amd64") and "arm64" not in os.environ.get(
    "ARCHFLAGS", "")
# No -march=native: what is built here may run elsewhere. No -ffast-math: a NaN must be seen.
FLAGS = ["/O2", "/fp:precise"] if MSVC else (
    ["-O1", "-g"] if DEBUG else ["-O3", "-g0"]) + ["-fno-math-errno", "-fno-trapping-math"]
ISA_FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma",
               "-mprefer-vector-width=512", "-mtune=skylake-avx512"],
}


def extension(name: str, source: str, flags: list[str]) -> Extension:
    return Extension(name, [source], include_dirs=["cgpt/kernels"], depends=DEPENDS,
                     extra_compile_args=FLAGS + flags)


def extensions() -> list[Extension]:
    """The baseline module, and one more for each instruction set that this compiler can target."""
    modules = [extension("cgpt._kernels", "cgpt/_kernels.pyx", [])]
    if X86 and not MSVC:
        modules += [extension(f"cgpt.kernels.{isa}", f"cgpt/kernels/{isa}.pyx", flags)
                    for isa, flags in ISA_FLAGS.items()]
    return modules


class BuildKernels(build_ext):
    """build_ext that finds out whether OpenMP works and speaks plainly without a compiler."""

    def build_extensions(self) -> None:
        try:
            compile_flags, link_flags = self.openmp_flags()
            for module in self.extensions:
                module.extra_compile_args += compile_flags
                module.extra_link_args += link_flags
            super().build_extensions()
        except (CCompilerError, CompileError, ExecError, LinkError, PlatformError) as error:
            compiler = getattr(self.compiler, "compiler_so", None) or ["?"]
            raise SystemExit(
                f"cgpt: the C compiler '{compiler[0]}' could not build the kernels ({error}); "
                "install one (Debian/Ubuntu: apt install gcc python3-dev; macOS: "
                "xcode-select --install; Windows: Visual Studio Build Tools) or set CC to a "
                "working one, then install again") from None

    def openmp_flags(self) -> tuple[list[str], list[str]]:
        """Flags with which a small OpenMP program compiles and links; none where none does."""
        if os.environ.get("CGPT_OPENMP", "1") == "0":
            return [], []
        candidates = [(["/openmp"], [])] if MSVC else [
            (["-fopenmp"], ["-fopenmp"]),
            (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),
        ]
        folder = os.path.join(self.build_temp, "openmp")
        os.makedirs(folder, exist_ok=True)
        source = os.path.join(folder, "probe.c")
        with open(source, "w", encoding="ascii") as file:
            file.write("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
        self.probe("int main(void) { return 0; }\n", folder, [], [])
        for compile_flags, link_flags in candidates:
            try:
                self.compile_probe(source, folder, compile_flags, link_flags)
            except (CompileError, LinkError):
                continue
            return compile_flags, link_flags
        print("cgpt: no OpenMP found; the kernels will use one thread", file=sys.stderr)
        return [], []

    def probe(self, text: str, folder: str, compile_flags: list[str],
              link_flags: list[str]) -> None:
        """Compile and link a small program; the compiler's own complaint comes out as it is."""
        source = os.path.join(folder, "plain.c")
        with open(source, "w", encoding="ascii") as file:
            file.write(text)
        self.compile_probe(source, folder, compile_flags, link_flags)

    def compile_probe(self, source: str, folder: str, compile_flags: list[str],
                      link_flags: list[str]) -> None:
        objects = self.compiler.compile([source], output_dir=folder,
                                        extra_postargs=compile_flags)
        self.compiler.link_executable(objects, os.path.join(folder, "probe"),
                                      extra_postargs=link_flags)


setup(
    ext_modules=cythonize(extensions(), compiler_directives=DIRECTIVES,
                          include_path=["cgpt", "cgpt/kernels"]),
    cmdclass={"build_ext": BuildKernels},
)
