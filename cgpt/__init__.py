"""cgpt: train, save, load and talk to small GPT models on the CPU, Chinese first.

    import cgpt
    llm = cgpt.LLM.from_texts(texts, cgpt.GPTConfig.preset("tiny"))
    cgpt.Trainer(llm, cgpt.TrainConfig(epochs=10)).fit(texts)
    print(llm.generate("山", max_new_tokens=40))
    cgpt.save_model_binary(llm, "checkpoints/mine.bin")

To read the code, begin with model.py (the graph) and layers.py (forward beside backward), then
train.py and chat.py; docs/architecture.md shows the whole house. Names below are loaded when
they are first used, so that `import cgpt` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_PUBLIC = {
    "cgpt.errors": ("CgptError", "CheckpointError", "ConfigError", "DataError"),
    "cgpt.invalid_rows": ("InvalidRow", "InvalidRowsError"),
    "cgpt.config": ("GPTConfig", "TrainConfig"),
    "cgpt.kernels": ("get_num_threads", "instruction_set", "set_num_threads"),
    "cgpt.model": ("GPT",),
    "cgpt.kvcache": ("KVCache",),
    "cgpt.muon": ("Muon",),
    "cgpt.optim": ("AdamW",),
    "cgpt.schedules": ("schedule",),
    "cgpt.tokenizer": ("Tokenizer",),
    "cgpt.data": ("Message", "read_corpus"),
    "cgpt.llm": ("LLM",),
    "cgpt.train": ("Trainer",),
    "cgpt.sampling": ("SamplingConfig",),
    "cgpt.chat": ("ChatSession",),
    "cgpt.checkpoint": ("load", "load_model_auto", "load_model_binary", "load_model_json",
                        "load_with_adapter", "save_model_binary", "save_model_json"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "GPT",
    "LLM",
    "AdamW",
    "CgptError",
    "ChatSession",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "GPTConfig",
    "InvalidRow",
    "InvalidRowsError",
    "KVCache",
    "Message",
    "Muon",
    "SamplingConfig",
    "Tokenizer",
    "TrainConfig",
    "Trainer",
    "__version__",
    "get_num_threads",
    "instruction_set",
    "load",
    "load_model_auto",
    "load_model_binary",
    "load_model_json",
    "load_with_adapter",
    "read_corpus",
    "save_model_binary",
    "save_model_json",
    "schedule",
    "set_num_threads",
]

if TYPE_CHECKING:
    from cgpt.chat import ChatSession
    from cgpt.checkpoint import (
        load,
        load_model_auto,
        load_model_binary,
        load_model_json,
        load_with_adapter,
        save_model_binary,
        save_model_json,
    )
    from cgpt.config import GPTConfig, TrainConfig
    from cgpt.data import Message, read_corpus
    from cgpt.errors import CgptError, CheckpointError, ConfigError, DataError
    from cgpt.invalid_rows import InvalidRow, InvalidRowsError
    from cgpt.kernels import get_num_threads, instruction_set, set_num_threads
    from cgpt.kvcache import KVCache
    from cgpt.llm import LLM
    from cgpt.model import GPT
    from cgpt.muon import Muon
    from cgpt.optim import AdamW
    from cgpt.sampling import SamplingConfig
    from cgpt.schedules import schedule
    from cgpt.tokenizer import Tokenizer
    from cgpt.train import Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cgpt' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
