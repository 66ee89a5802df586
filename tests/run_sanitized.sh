#!/usr/bin/env bash
# Build the compiled parts with AddressSanitizer and UndefinedBehaviorSanitizer in a folder of their
# own and run their tests there: every kernel at every size, the decoder, tokenizers, checksums,
# number texts and the import of RustGPT-Chinese exports. Any finding ends it with an error.
#
#     make sanitized
#     bash tests/run_sanitized.sh [PYTHON [pytest arguments]]
#
# PYTHON has what the tests need (make .venv/.installed-dev). The generic kernels and those for AVX2
# are built; CGPT_BUILD_ISA="avx2 avx512" takes all.
set -euo pipefail
python=${1:-.venv/bin/python}
shift || true
python=$(realpath -s "$python")
cd "$(dirname "$0")/.."
compiler=${CC:-gcc}
preload=""
for name in libasan.so libubsan.so; do
    path=$("$compiler" -print-file-name=$name 2>/dev/null || true)
    if [ ! -e "$path" ]; then
        echo "run_sanitized: $compiler has no $name; install gcc's sanitizers (Debian/Ubuntu:" \
            "libasan and libubsan of its version come with gcc; Fedora: dnf install libasan" \
            "libubsan), or name another compiler with CC" >&2
        exit 1
    fi
    preload="$preload $path"
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r cgpt tests data setup.py pyproject.toml README.md LICENSE "$folder"
cd "$folder"
find cgpt \( -name '*.so' -o -name '*.c' -o -name '__pycache__' \) -exec rm -rf {} +
flags="-g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
CC="$compiler -fsanitize=address,undefined" CFLAGS="$flags" CGPT_DEBUG=1 \
    CGPT_BUILD_ISA="${CGPT_BUILD_ISA-avx2}" "$python" setup.py --quiet build_ext --inplace -j2 \
    > build.log 2>&1 || { tail -20 build.log; exit 1; }
# The interpreter frees little at its end, so leaks are not looked for; its own allocator would hide
# small overruns. The symbolizer, itself under the preload, may hang.
export ASAN_OPTIONS=detect_leaks=0:symbolize=0:log_path="$folder/report" PYTHONMALLOC=malloc
export UBSAN_OPTIONS=print_stacktrace=1:symbolize=0:log_path="$folder/report"
export LD_PRELOAD="$preload" PYTHONPATH="$folder"
"$python" -c "import cgpt; assert cgpt.__file__.startswith('$folder'), cgpt.__file__"
# Left out: what measures memory, and what puts arrays at pages without access in other processes.
[ $# -gt 0 ] || set -- tests/test_kernels.py tests/test_kernel_contract.py tests/test_decoder.py \
    tests/test_stored.py tests/test_token_sampling.py tests/test_branches.py \
    tests/test_tokenizer_kinds.py tests/test_checkpoint_codec.py \
    tests/test_checkpoint_json.py tests/test_rustgpt.py tests/test_reading.py::test_seen \
    tests/test_data.py::test_packing_keeps_everything_in_order \
    -k "not base_model and not little_memory and not outside_an_array"
# A finding ends the process at once: the last line of the log then names the test.
"$python" -m pytest -v -p no:cacheprovider "$@" > tests.log 2>&1 || {
    unset LD_PRELOAD
    tail -40 tests.log >&2
    head -12 "$folder"/report* >&2 || true
    sed -n "s:.*($folder/\(cgpt[^+]*\)+\(0x[0-9a-f]*\)).*:\1 \2:p" "$folder"/report* 2> none \
        | head -8 | while read -r module place; do addr2line -fpse "$module" "$place" >&2; done
    exit 1
}
tail -1 tests.log
