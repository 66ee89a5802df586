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
compiler=${CC:-gcc}
preload=""
for name in libasan.so libubsan.so; do
    path=$("$compiler" -print-file-name=$name)
    [ -e "$path" ] || { echo "skipped: $compiler has no $name"; exit 0; }
    preload="$preload $path"
done
flags="-g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
CC="$compiler -fsanitize=address,undefined" CFLAGS="$flags" \
    CGPT_DEBUG=1 "$python" setup.py --quiet build_ext --inplace -j2 > build.log 2>&1 \
    || { tail -20 build.log; exit 1; }
# The interpreter frees little at its end, so leaks are not looked for; its own allocator would hide
# small overruns. The symbolizer, itself under the preload, may hang.
export ASAN_OPTIONS=detect_leaks=0:symbolize=0:log_path="$folder/report" PYTHONMALLOC=malloc
export UBSAN_OPTIONS=symbolize=0:log_path="$folder/report"
export LD_PRELOAD="$preload" PYTHONPATH="$folder"
"$python" -c "import cgpt; assert cgpt.__file__.startswith('$folder'), cgpt.__file__"
[ $# -gt 0 ] || set -- tests/test_kernels.py tests/test_kernel_contract.py \
    tests/test_checkpoint_codec.py tests/test_checkpoint_json.py \
    -k "not base_model and not takes_little_memory"
"$python" -m pytest -q -p no:cacheprovider "$@" || { head -30 "$folder"/report* >&2; exit 1; }
