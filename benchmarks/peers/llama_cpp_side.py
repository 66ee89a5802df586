"""llama.cpp through llama-cpp-python, on a GGUF file."""

# pyright: reportMissingImports=false
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers.weights import random_model
from cgpt.bench.measure import Decoded, Skip, decoding
from cgpt.bench.shapes import NEW, PROMPT, Shape, random_prompts

if TYPE_CHECKING:
    from cgpt.models.gpt2 import GPT

# Names of a layer in a GGUF file of the architecture gpt2.
IN_GGUF = {
    "attn.ln": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.ln": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
OUTSIDE_GGUF = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def make(shape: dict[str, int], folder: str, weights: str) -> Callable[[], None]:
    """Task: write model.gguf. Raises Skip where the package gguf is missing."""
    try:
        write_gguf(random_model(shape), Path(folder) / "model.gguf", weights)
    except ImportError as error:
        raise Skip(f"the package {error.name} is missing; pip install 'cgpt[peers]'") from error
    return lambda: None


def gguf_name(name: str) -> str:
    """The name of one of our parameters in a GGUF file."""
    layer, _, kind = name.rpartition(".")
    if not layer.startswith("h."):
        return f"{OUTSIDE_GGUF[layer]}.{kind}"
    _, i, part = layer.split(".", 2)
    return f"blk.{i}.{IN_GGUF[part]}.{kind}"


def write_gguf(gpt: GPT, path: Path, weights: str) -> None:
    """A GGUF file without a vocabulary; matrices but the positions as float32, float16 or q8_0.

    Source: github.com/ggml-org/ggml, docs/gguf.md.
    """
    import gguf

    kinds = {
        "float32": gguf.GGMLQuantizationType.F32,
        "float16": gguf.GGMLQuantizationType.F16,
        "int8": gguf.GGMLQuantizationType.Q8_0,
    }
    config, kind = gpt.config, kinds[weights]
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_ff)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    for name, values in gpt.parameters().items():
        if values.ndim < 2 or name == "wpe.weight" or weights == "float32":
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(values))
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Llama:
    """llama.cpp's own loop: one llama_decode a token for all sequences, the largest logit taken.

    Raises Skip where the library or the file cannot be used.
    """

    def __init__(
        self, path: Path, prompts: np.ndarray, vocab_size: int, context: int, threads: int
    ) -> None:
        import ctypes

        import llama_cpp

        self.api, self.prompts, self.vocab_size = llama_cpp, prompts, vocab_size
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        B = len(prompts)
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_seq_max = context * B, B
        options.n_batch = options.n_ubatch = max(512, prompts.size)
        options.n_threads = options.n_threads_batch = threads
        self.context = self.model and llama_cpp.llama_init_from_model(self.model, options)
        if not self.context:
            raise Skip("llama.cpp could not load the model")
        self.batch = llama_cpp.llama_batch_init(prompts.size, 0, 1)

    def decode(self, tokens: np.ndarray, start: int) -> np.ndarray:
        """The likeliest next token (B,) after tokens (B, n) at positions from `start` on."""
        B, n = tokens.shape
        batch, i = self.batch, 0
        for row in range(B):
            for step in range(n):
                batch.token[i] = int(tokens[row, step])
                batch.pos[i], batch.n_seq_id[i] = start + step, 1
                batch.seq_id[i][0] = row
                batch.logits[i] = step == n - 1
                i += 1
        batch.n_tokens = i
        if self.api.llama_decode(self.context, batch):
            raise Skip("llama.cpp could not decode the batch")
        logits = np.ctypeslib.as_array(
            self.api.llama_get_logits(self.context), shape=(B, self.vocab_size)
        )
        best: np.ndarray = logits.argmax(1)
        return best

    def generate(self) -> np.ndarray:
        """The new tokens (B, NEW)."""
        api = self.api
        api.llama_memory_clear(api.llama_get_memory(self.context), False)
        found = [self.decode(self.prompts, 0)]
        for step in range(NEW - 1):
            found.append(self.decode(found[-1][:, None], PROMPT + step))
        return np.stack(found, axis=1)


def decode(
    shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float, threads: int
) -> Callable[[], Decoded]:
    """Task: llama.cpp on a GGUF file whose matrices are float32, float16 or q8_0."""
    form = Shape(**shape)
    llama = Llama(
        Path(folder) / "model.gguf",
        random_prompts(form, batch),
        form.vocab_size,
        form.config().block_size,
        threads,
    )
    return decoding(llama.generate, seconds)


def first_token(folder: str, threads: int) -> None:
    """One token of llama.cpp after a prompt, for a model of the shape in the file."""
    prompts = np.arange(PROMPT, dtype=np.int32)[None]
    Llama(Path(folder) / "model.gguf", prompts, 1, 2 * PROMPT, threads).decode(prompts, 0)


TASKS = {"make": make, "decode": decode}

if __name__ == "__main__":
    first_token(sys.argv[1], int(sys.argv[2]))
