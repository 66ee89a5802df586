"""The file with the model that an adapter belongs to: whether it can still be relied on."""

from __future__ import annotations

import os

from cgpt.checkpoint import binary, json_file
from cgpt.checkpoint.adapter import require_whole
from cgpt.checkpoint.info import kind_of_file
from cgpt.checkpoint.reader import BinaryFile
from cgpt.checkpoint.streams import Location
from cgpt.errors import CgptError
from cgpt.llm import LLM
from cgpt.models.quantized import with_weights
from cgpt.nn.arena import read_only
from cgpt.optim.lora import Lora, fingerprint


def read_whole(path: Location) -> LLM:
    """A whole model with float32 weights that are read-only, whatever the file has.

    Raises CheckpointError as `load_model_auto` does, and where the file holds an adapter.
    """
    kind = kind_of_file(path)
    if kind == "binary":
        with BinaryFile(path) as file:
            require_whole(file)
            llm = binary.load(file, training=False)
    elif kind == "json":
        llm = json_file.load(path, training=False)
    else:
        from cgpt.interop import rustgpt as rustgpt_import

        llm = for_chat(rustgpt_import.load(path))
    llm.gpt = with_weights(llm.gpt, "float32")
    return llm


def for_chat(llm: LLM) -> LLM:
    """The same model with weights that are read-only, and without its optimizer."""
    gpt = type(llm.gpt)(llm.config, weights=read_only(llm.gpt.arena.data))
    return LLM(llm.tokenizer, gpt, training_state=llm.training_state, metadata=llm.metadata)


def is_intact(lora: Lora) -> bool:
    """Whether the file that the adapter names as its model's holds the weights it began with.

    Read whole, but once only for as long as size, time and inode of the file stay.
    """
    try:
        status = os.stat(lora.base)
    except OSError:
        return False
    mark = status.st_size, status.st_mtime_ns, status.st_ino
    if lora.base_seen is None or lora.base_seen[0] != mark:
        try:
            found = fingerprint(read_whole(lora.base).gpt)
        except CgptError:
            found = ""
        lora.base_seen = mark, found == lora.fingerprint
    return lora.base_seen[1]
