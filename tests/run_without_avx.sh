#!/usr/bin/env bash
# Shows that the wheel runs on a processor without AVX: builds it, installs it beside numpy in a
# fresh folder and trains a few steps on an emulated Nehalem (SSE4.2, no AVX).
# Needs Debian's qemu-user, and cython, setuptools and build in the Python that runs it.
# Usage: tests/run_without_avx.sh [PYTHON [WHEEL]]
set -euo pipefail
python=$("${1:-python3}" -c "import sys; print(sys.executable)")
qemu=$(command -v qemu-x86_64) || {
    echo "run_without_avx: qemu-x86_64 is missing (Debian/Ubuntu: apt install qemu-user)" >&2
    exit 1
}
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
wheel=${2:-}
if [ -z "$wheel" ]; then
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$root"
    wheel=$(echo "$folder"/cgpt-*.whl)
fi
"$python" -m pip install --quiet --no-deps --target "$folder/site" "$wheel"
cat >"$folder/train.py" <<'END'
import numpy as np
import cgpt
from cgpt import _kernels

gpt = cgpt.GPT(cgpt.GPTConfig(n_layer=1, n_head=2, n_embd=16, vocab_size=40, block_size=12))
optimizer = cgpt.AdamW(gpt)
ids = np.arange(24, dtype=np.int32).reshape(2, 12)
first = gpt.forward(ids, ids + 1)
for _ in range(5):
    loss = gpt.forward(ids, ids + 1)
    gpt.backward()
    optimizer.step(lr=1e-2, clip=1.0)
assert _kernels.cpu_level() == 0, "the emulated processor should have no AVX2"
assert loss < first, (first, loss)
print(f"{cgpt.instruction_set()} on a processor without AVX: loss {first:.4f} -> {loss:.4f}")
END
cd "$folder"
PYTHONPATH="$folder/site" "$qemu" -cpu Nehalem "$python" -W ignore "$folder/train.py"
