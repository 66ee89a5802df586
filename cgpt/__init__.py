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
    "cgpt.errors": ("CgptError", "CgptWarning", "CheckpointError", "ConfigError", "DataError"),
    "cgpt.invalid_rows": ("InvalidRow", "InvalidRows", "InvalidRowsError"),
    "cgpt.cutting": ("TooLong",),
    "cgpt.config": ("GPTConfig", "TrainConfig"),
    "cgpt.kernels": ("get_num_threads", "instruction_set", "set_num_threads"),
    "cgpt.model": ("GPT",),
    "cgpt.kvcache": ("KVCache",),
    "cgpt.muon": ("Muon",),
    "cgpt.optim": ("AdamW",),
    "cgpt.schedules": ("schedule",),
    "cgpt.tokenizer": ("StreamDecoder", "Tokenizer"),
    "cgpt.data": ("Corpus", "Dialogue", "FileReport", "Message", "read_corpus"),
    "cgpt.llm": ("Continuation", "LLM", "Score", "TrainingState"),
    "cgpt.callbacks": ("Callback", "FitResult", "Progress", "StopTraining"),
    "cgpt.train": ("Trainer",),
    "cgpt.sampling": ("LogitsProcessor", "SamplingConfig"),
    "cgpt.chat": ("ChatSession",),
    "cgpt.checkpoint": ("CheckpointManager", "load", "load_model_auto", "load_model_binary",
                        "load_model_json", "load_with_adapter", "save_model_binary",
                        "save_model_json"),
    "cgpt.documents": ("Documents",),
    "cgpt.sources": ("Source",),
    "cgpt.evaluation": ("EvalResult", "evaluate"),
    "cgpt.run": ("continue_training", "TrainingRun"),
    "cgpt.run_config": ("RunConfig",),
    "cgpt.lora": ("Lora",),
    "cgpt.streaming": ("Piece", "PieceStream", "TextStream"),
    "cgpt.inspection": ("Inspection", "Prediction"),
    "cgpt.results": ("Dropped", "Generation", "TopLogprob", "Usage"),
    "cgpt.options": ("FurtherOptions", "LimitOptions", "SamplingOptions", "TokenOptions"),
    "cgpt.limits": ("Cancelled", "CancelToken"),
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
    from cgpt.callbacks import Callback, FitResult, Progress, StopTraining
    from cgpt.chat import ChatSession
    from cgpt.checkpoint import (
        CheckpointManager,
        load,
        load_model_auto,
        load_model_binary,
        load_model_json,
        load_with_adapter,
        save_model_binary,
        save_model_json,
    )
    from cgpt.config import GPTConfig, TrainConfig
    from cgpt.cutting import TooLong
    from cgpt.data import Corpus, Dialogue, FileReport, Message, read_corpus
    from cgpt.documents import Documents
    from cgpt.errors import CgptError, CgptWarning, CheckpointError, ConfigError, DataError
    from cgpt.evaluation import EvalResult, evaluate
    from cgpt.inspection import Inspection, Prediction
    from cgpt.invalid_rows import InvalidRow, InvalidRows, InvalidRowsError
    from cgpt.kernels import get_num_threads, instruction_set, set_num_threads
    from cgpt.kvcache import KVCache
    from cgpt.limits import Cancelled, CancelToken
    from cgpt.llm import LLM, Continuation, Score, TrainingState
    from cgpt.lora import Lora
    from cgpt.model import GPT
    from cgpt.muon import Muon
    from cgpt.optim import AdamW
    from cgpt.options import FurtherOptions, LimitOptions, SamplingOptions, TokenOptions
    from cgpt.results import Dropped, Generation, TopLogprob, Usage
    from cgpt.run import TrainingRun, continue_training
    from cgpt.run_config import RunConfig
    from cgpt.sampling import LogitsProcessor, SamplingConfig
    from cgpt.schedules import schedule
    from cgpt.sources import Source
    from cgpt.streaming import Piece, PieceStream, TextStream
    from cgpt.tokenizer import StreamDecoder, Tokenizer
    from cgpt.train import Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cgpt' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
