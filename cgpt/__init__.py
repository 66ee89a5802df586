"""cgpt: train, save, load and talk to small GPT models on the CPU, Chinese first.

    import cgpt
    llm = cgpt.LLM.from_texts(texts, cgpt.GPTConfig.preset("tiny"))
    cgpt.Trainer(llm, cgpt.TrainConfig(epochs=10)).fit(texts)
    print(llm.generate("山", max_new_tokens=40))
    cgpt.save_model_binary(llm, "checkpoints/mine.bin")

To read the code, begin with models/gpt2.py (a graph), nn/linear.py (forward beside backward) and
training/trainer.py; docs/architecture.md lists the packages. Names below are loaded when they are
first used, so that `import cgpt` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cgpt.version import __version__ as __version__

# Public name -> module that defines it.
_PUBLIC = {
    "cgpt.errors": ("CgptError", "CgptWarning", "CheckpointError", "ConfigError", "DataError"),
    "cgpt.corpus.invalid_rows": ("InvalidRow", "InvalidRows", "InvalidRowsError"),
    "cgpt.corpus.splitting": ("TooLong",),
    "cgpt.config": ("GPTConfig", "RunConfig", "SamplingConfig", "TrainConfig"),
    "cgpt.kernels": ("get_num_threads", "instruction_set", "set_num_threads"),
    "cgpt.models.base": ("Model",),
    "cgpt.models.gpt2": ("GPT",),
    "cgpt.nn.kv_cache": ("KVCache",),
    "cgpt.optim.muon": ("Muon",),
    "cgpt.optim.adamw": ("AdamW",),
    "cgpt.optim.schedules": ("schedule",),
    "cgpt.tokenizers.tokenizer": ("StreamDecoder", "Tokenizer"),
    "cgpt.corpus.reader": ("Corpus", "FileReport", "read_corpus"),
    "cgpt.corpus.records": ("Dialogue", "Message"),
    "cgpt.language_model": ("TrainingState",),
    "cgpt.llm": (
        "Continuation",
        "LLM",
        "Score",
        "load",
        "load_model_auto",
        "load_model_binary",
        "load_model_json",
        "load_with_adapter",
    ),
    "cgpt.training.callbacks": ("Callback", "FitResult", "Progress", "StopTraining"),
    "cgpt.training.trainer": ("Trainer",),
    "cgpt.generation.sampling": ("LogitsProcessor",),
    "cgpt.chat.session": ("ChatSession",),
    "cgpt.checkpoint.manager": ("CheckpointManager",),
    "cgpt.checkpoint.saving": ("save_model_binary", "save_model_json"),
    "cgpt.corpus.documents": ("Documents",),
    "cgpt.corpus.sources": ("Source",),
    "cgpt.evaluation.perplexity": ("EvalResult", "evaluate"),
    "cgpt.training.run": ("continue_training", "TrainingRun"),
    "cgpt.optim.lora": ("Lora",),
    "cgpt.generation.streaming": ("Piece", "PieceStream", "TextStream"),
    "cgpt.evaluation.predictions": ("Prediction",),
    "cgpt.models.inspection": ("Inspection",),
    "cgpt.generation.results": ("Dropped", "Generation", "TopLogprob", "Usage"),
    "cgpt.generation.keywords": (
        "FurtherOptions",
        "LimitOptions",
        "SamplingOptions",
        "TokenOptions",
    ),
    "cgpt.runtime.cancellation": ("Cancelled", "CancelToken"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "GPT",
    "LLM",
    "AdamW",
    "Callback",
    "CancelToken",
    "Cancelled",
    "CgptError",
    "CgptWarning",
    "ChatSession",
    "CheckpointError",
    "CheckpointManager",
    "ConfigError",
    "Continuation",
    "Corpus",
    "DataError",
    "Dialogue",
    "Documents",
    "Dropped",
    "EvalResult",
    "FileReport",
    "FitResult",
    "FurtherOptions",
    "GPTConfig",
    "Generation",
    "Inspection",
    "InvalidRow",
    "InvalidRows",
    "InvalidRowsError",
    "KVCache",
    "LimitOptions",
    "LogitsProcessor",
    "Lora",
    "Message",
    "Model",
    "Muon",
    "Piece",
    "PieceStream",
    "Prediction",
    "Progress",
    "RunConfig",
    "SamplingConfig",
    "SamplingOptions",
    "Score",
    "Source",
    "StopTraining",
    "StreamDecoder",
    "TextStream",
    "TokenOptions",
    "Tokenizer",
    "TooLong",
    "TopLogprob",
    "TrainConfig",
    "Trainer",
    "TrainingRun",
    "TrainingState",
    "Usage",
    "__version__",
    "continue_training",
    "evaluate",
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
    from cgpt.chat.session import ChatSession
    from cgpt.checkpoint.manager import CheckpointManager
    from cgpt.checkpoint.saving import save_model_binary, save_model_json
    from cgpt.config import GPTConfig, RunConfig, SamplingConfig, TrainConfig
    from cgpt.corpus.documents import Documents
    from cgpt.corpus.invalid_rows import InvalidRow, InvalidRows, InvalidRowsError
    from cgpt.corpus.reader import Corpus, FileReport, read_corpus
    from cgpt.corpus.records import Dialogue, Message
    from cgpt.corpus.sources import Source
    from cgpt.corpus.splitting import TooLong
    from cgpt.errors import CgptError, CgptWarning, CheckpointError, ConfigError, DataError
    from cgpt.evaluation.perplexity import EvalResult, evaluate
    from cgpt.evaluation.predictions import Prediction
    from cgpt.generation.keywords import FurtherOptions, LimitOptions, SamplingOptions, TokenOptions
    from cgpt.generation.results import Dropped, Generation, TopLogprob, Usage
    from cgpt.generation.sampling import LogitsProcessor
    from cgpt.generation.streaming import Piece, PieceStream, TextStream
    from cgpt.kernels import get_num_threads, instruction_set, set_num_threads
    from cgpt.language_model import TrainingState
    from cgpt.llm import (
        LLM,
        Continuation,
        Score,
        load,
        load_model_auto,
        load_model_binary,
        load_model_json,
        load_with_adapter,
    )
    from cgpt.models.base import Model
    from cgpt.models.gpt2 import GPT
    from cgpt.models.inspection import Inspection
    from cgpt.nn.kv_cache import KVCache
    from cgpt.optim.adamw import AdamW
    from cgpt.optim.lora import Lora
    from cgpt.optim.muon import Muon
    from cgpt.optim.schedules import schedule
    from cgpt.runtime.cancellation import Cancelled, CancelToken
    from cgpt.tokenizers.tokenizer import StreamDecoder, Tokenizer
    from cgpt.training.callbacks import Callback, FitResult, Progress, StopTraining
    from cgpt.training.run import TrainingRun, continue_training
    from cgpt.training.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cgpt' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
