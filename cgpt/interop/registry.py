"""The formats of other programs, by the name that `fileio.file_kind` tells: a line for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cgpt.fileio.open_file import Location, OpenFile
from cgpt.interop import rustgpt
from cgpt.language_model import LanguageModel


@dataclass(frozen=True)
class Format:
    """How files of a format are read.

    version      of the format that is read
    load         the model of a file, with weights that may be written
    looks_whole  whether an open file that begins like one also ends like one
    """

    version: int
    load: Callable[[Location], LanguageModel]
    looks_whole: Callable[[OpenFile], bool]


FORMATS = {"rustgpt": Format(rustgpt.VERSION, rustgpt.load, rustgpt.looks_whole)}
