"""Peers that decode: transformers, llama.cpp and CTranslate2, each through its Python package."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.bench.measure import Decoded, Skip, decoding
from cgpt.bench.shapes import NEW, PROMPT, Shape, random_prompts
from cgpt.bench.weights import IN_TRANSFORMERS, Stored


def transformers(
    shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float, threads: int
) -> Callable[[], Decoded]:
    """Task: `generate` of GPT2LMHeadModel, greedy."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    if weights == "int8":
        raise Skip("PyTorch is not measured with int8 weights")
    form = Shape(**shape)
    config = form.config()
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_inner=config.n_ff,
            eos_token_id=None,
            bos_token_id=None,
        )
    ).eval()
    Stored(folder).fill_torch(model, IN_TRANSFORMERS, "transformer.", "h", turned=True)
    model = model.to(getattr(torch, weights))
    torch.set_num_threads(threads)
    prompts = torch.from_numpy(random_prompts(form, batch)).long()
    mask = torch.ones_like(prompts)

    def generate() -> np.ndarray:
        with torch.inference_mode():
            found = model.generate(
                prompts, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0
            )
        return np.asarray(found[:, PROMPT:])

    return decoding(generate, seconds)


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


def llama_cpp(
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


def ctranslate2(
    shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float, threads: int
) -> Callable[[], Decoded]:
    """Task: Generator.generate_batch of CTranslate2, greedy, with its own quantisation to int8."""
    import ctranslate2 as library

    if weights not in library.get_supported_compute_types("cpu"):
        raise Skip(f"CTranslate2 does not compute with {weights} on this processor")
    generator = library.Generator(
        str(Path(folder) / "ctranslate2"),
        device="cpu",
        compute_type=weights,
        inter_threads=1,
        intra_threads=threads,
    )
    prompts = [
        [str(token) for token in row] for row in random_prompts(Shape(**shape), batch).tolist()
    ]

    def generate() -> np.ndarray:
        results: Any = generator.generate_batch(
            prompts, max_length=NEW, min_length=NEW, sampling_topk=1, include_prompt_in_result=False
        )
        return np.array([result.sequences_ids[0] for result in results])

    return decoding(generate, seconds)


TASKS = {"transformers": transformers, "llama-cpp": llama_cpp, "ctranslate2": ctranslate2}
