"""The same random model in the format of every side that decodes; runs in a process of its own."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.bench.measure import Skip
from cgpt.bench.shapes import Shape
from cgpt.bench.weights import randomise, store
from cgpt.checkpoint import save_model_binary
from cgpt.config import GPTConfig
from cgpt.corpus.batches import packaged_data, read_corpus
from cgpt.llm import LLM
from cgpt.models.gpt2 import GPT
from cgpt.tokenizers.tokenizer import Tokenizer

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


def write_cgpt(gpt: GPT, path: Path, weights: str = "float32") -> None:
    """A weights-only checkpoint; its vocabulary is smaller than the model's, which is fine."""
    llm = LLM(Tokenizer.train(["山高水长，天地之间。"] * 4, 300), gpt)
    save_model_binary(llm, path, optimizer=False, weights=weights)


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


def random_model(config: GPTConfig) -> GPT:
    """A model with random weights, none of them 0 or 1 throughout."""
    gpt = GPT(config, seed=0)
    randomise(gpt)
    return gpt


def make(shape: dict[str, int], folder: str, peers: list[str], weights: str) -> Callable[[], None]:
    """Task: write what cgpt and these peers read. Raises Skip where a writer is missing."""
    gpt, place = random_model(Shape(**shape).config()), Path(folder)
    write_cgpt(gpt, place / "model.bin", weights)
    try:
        if {"torch", "transformers"} & set(peers):
            store(gpt, place)
        if "llama-cpp" in peers:
            write_gguf(gpt, place / "model.gguf", weights)
        if "ctranslate2" in peers:
            write_ctranslate2(gpt, place / "ctranslate2")
    except ImportError as error:
        raise Skip(f"the package {error.name} is missing; pip install 'cgpt[peers]'") from error
    return lambda: None


def make_chat(folder: str, preset: str) -> Callable[[], None]:
    """Task: chat.bin, an untrained model of that preset that knows the packaged data's words."""
    texts = read_corpus(packaged_data()).texts()
    llm = LLM.from_texts(texts, GPTConfig.preset(preset))
    save_model_binary(llm, Path(folder) / "chat.bin", optimizer=False)
    return lambda: None


TASKS = {"make": make, "make_chat": make_chat}
