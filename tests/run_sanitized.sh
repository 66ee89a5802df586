#!/usr/bin/env bash
# Build kernels and codec with AddressSanitizer and UndefinedBehaviorSanitizer in a folder of their
# own and run their tests there.
#
#     bash tests/run_sanitized.sh PYTHON [pytest arguments]
#
# PYTHON has what the tests need (make .venv/.installed-dev). Any finding ends it with an error.
set -euo pipefail
python=${1:-.venv/bin/python}
shift || true
python=$(realpath -s "$python")
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r cgpt tests data setup.py pyproject.toml README.md LICENSE "$folder"
cd "$folder"
find cgpt \( -name '*.so' -o -name '*.c' -o -name '__pycache__' \) -exec rm -rf {} +
flags="-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined"

CC="${CC:-gcc} -fsanitize=address,undefined" CFLAGS="$flags -fno-sanitize-recover=all" \
    "$python" setup.py --quiet build_ext --inplace > build.log 2>&1 || { tail -20 build.log; exit 1; }
compiler=${CC:-gcc}
export LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)"
# The interpreter frees nothing at its end; libstdc++ is not loaded when the preload starts.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$folder"
export PYTHONMALLOC=malloc
"$python" -c "import cgpt; assert cgpt.__file__.startswith('$folder'), cgpt.__file__"
"$python" -m pytest -q -p no:cacheprovider ${@:-tests/test_kernels.py tests/test_kernel_contract.py tests/test_checkpoint_codec.py}
