"""CTranslate2: Generator.generate_batch, on a model written with its own converters."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.weights import random_model
from cgpt.bench.measure import Decoded, Skip, decoding
from cgpt.bench.shapes import NEW, Shape, random_prompts

if TYPE_CHECKING:
    from cgpt.models.gpt2 import GPT


def make(shape: dict[str, int], folder: str, weights: str) -> Callable[[], None]:
    """Task: write the model; its weights are float32, whatever they are computed with."""
    write_ctranslate2(random_model(shape), Path(folder) / "ctranslate2")
    return lambda: None


def write_ctranslate2(gpt: GPT, folder: Path) -> None:
    """A float32 model of CTranslate2 whose tokens are the numbers 0, 1, ... as text."""
    from ctranslate2.specs import common_spec, transformer_spec

    config, values = gpt.config, gpt.parameters()
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        config.n_layer, config.n_head, activation=common_spec.Activation.GELUTanh
    )

    def linear(part: Any, name: str) -> None:
        part.weight, part.bias = values[f"{name}.weight"], values[f"{name}.bias"]

    def norm(part: Any, name: str) -> None:
        part.gamma, part.beta = values[f"{name}.weight"], values[f"{name}.bias"]

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = values["wte.weight"]
    decoder.position_encodings.encodings = values["wpe.weight"]
    norm(decoder.layer_norm, "ln_f")
    for i, layer in enumerate(decoder.layer):
        norm(layer.self_attention.layer_norm, f"h.{i}.attn.ln")
        linear(layer.self_attention.linear[0], f"h.{i}.attn.c_attn")
        linear(layer.self_attention.linear[1], f"h.{i}.attn.c_proj")
        norm(layer.ffn.layer_norm, f"h.{i}.mlp.ln")
        linear(layer.ffn.linear_0, f"h.{i}.mlp.c_fc")
        linear(layer.ffn.linear_1, f"h.{i}.mlp.c_proj")
    spec.register_vocabulary([str(i) for i in range(config.vocab_size)])
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "0", "1", "2"
    spec.validate()
    spec.optimize()
    folder.mkdir()
    spec.save(str(folder))


def decode(
    shape: dict[str, int], folder: str, weights: str, batch: int, seconds: float, threads: int
) -> Callable[[], Decoded]:
    """Task: greedy decoding, with its own quantisation to int8."""
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


TASKS = {"make": make, "decode": decode}
