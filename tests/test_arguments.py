"""Every public call refuses what it cannot use by a CgptError: no other exception, no silence.

Each parameter of every public callable gets each of the WRONG values in its turn, all others being
good. What a call may take of them is said in its case; anything else is a fault.
"""

from __future__ import annotations

import inspect
import json
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS, small_llm, small_tokenizer

import cgpt
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.errors import CgptError
from cgpt.evaluation.answers import Answer, accuracy, answer
from cgpt.evaluation.perplexity import difference, evaluate, score_documents, total_of
from cgpt.evaluation.predictions import predictions
from cgpt.generation.generate import generate_tokens
from cgpt.llm import LLM
from cgpt.models.quantized import with_weights

WRONG: dict[str, Any] = {
    "None": None,
    "3.5": 3.5,
    "x": "x",
    "[]": [],
    "{}": {},
    "object": object(),
    "b'x'": b"x",
    "nan": math.nan,
    "inf": math.inf,
    "-1": -1,
    "0": 0,
    "huge": 10**400,
    "True": True,
    "array": np.zeros((2, 2)),
    "[None]": [None],
    "(3,)": (3,),
    "1j": 1j,
}
NUMBERS = {"3.5", "0"}
ANY_FLOAT = {"3.5", "-1", "0"}
FLAGS = {"True"}
OPTIONAL = {"None"}


@dataclass
class Case:
    """A call, its good arguments, and which wrong ones each parameter takes all the same.

    skipped  parameters that are not tried, with the reason
    """

    make: Callable[[], Callable[..., Any]]
    good: Callable[[], dict[str, Any]]
    takes: dict[str, set[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def shared(names: tuple[str, ...], taken: set[str]) -> dict[str, set[str]]:
    """The same for several parameters."""
    return dict.fromkeys(names, taken)


def gpt() -> cgpt.GPT:
    return small_llm(n_layer=1, n_head=1, n_embd=8, block_size=16).gpt


def llm() -> LLM:
    return small_llm(n_layer=1, n_head=1, n_embd=8, block_size=16)


def consumed(found: Any) -> Any:
    """What a call gives, an iterator to its end."""
    return list(found) if isinstance(found, Iterator) else found


def faults_of(case: Case) -> list[str]:
    found: list[str] = []
    consumed(case.make()(**case.good()))
    for name in inspect.signature(case.make()).parameters:
        if name in case.skipped or name in ("options", "changes"):
            continue
        for label, value in WRONG.items():
            arguments = {**case.good(), name: value}
            try:
                consumed(case.make()(**arguments))
            except CgptError as error:
                if not 0 < len(str(error)) < 1000:
                    found.append(f"{name}={label}: a sentence of {len(str(error))} characters")
                if label in case.takes.get(name, ()):
                    found.append(f"{name}={label}: should be taken, {error}")
            except Exception as error:
                found.append(f"{name}={label}: {type(error).__name__}: {error}")
            else:
                if label not in case.takes.get(name, ()):
                    found.append(f"{name}={label}: taken without a word")
    return found


IDS = [[5, 6, 7, 8]]
SAMPLING = {"max_new_tokens": 2}
MESSAGES = [{"role": "user", "content": "a"}]

CASES: dict[str, Case] = {
    "GPTConfig": Case(lambda: cgpt.GPTConfig, lambda: {}, {"n_ff": {"0"}}),
    "GPTConfig.from_dict": Case(
        lambda: cgpt.GPTConfig.from_dict, lambda: {"values": {}}, {"values": {"{}"}}
    ),
    "GPTConfig.preset": Case(lambda: cgpt.GPTConfig.preset, lambda: {"name": "tiny"}),
    "TrainConfig.from_dict": Case(
        lambda: cgpt.TrainConfig.from_dict, lambda: {"values": {}}, {"values": {"{}"}}
    ),
    "SamplingConfig.from_dict": Case(
        lambda: cgpt.SamplingConfig.from_dict, lambda: {"values": {}}, {"values": {"{}"}}
    ),
    "TrainConfig": Case(
        lambda: cgpt.TrainConfig,
        lambda: {},
        {
            **shared(
                (
                    "epochs",
                    "patience",
                    "seed",
                    "max_steps",
                    "schedule_steps",
                    "lora_rank",
                    "eval_every",
                ),
                {"0"},
            ),
            "warmup": {"None", "0"},
            **shared(("lr", "embedding_lr"), {"3.5", "None"}),
            **shared(("eps", "lora_alpha"), {"3.5"}),
            **shared(("weight_decay", "clip", "max_minutes"), NUMBERS),
            **shared(
                (
                    "beta1",
                    "beta2",
                    "dropout",
                    "val_fraction",
                    "momentum",
                    "label_smoothing",
                    "ema",
                    "min_lr_ratio",
                ),
                {"0"},
            ),
            "recompute": FLAGS,
            "optimizer": OPTIONAL,
            "loss_on": OPTIONAL,
            "freeze": {"[]"},
            "lora_layers": {"[]"},
        },
    ),
    "TrainConfig.resolved": Case(
        lambda: cgpt.TrainConfig().resolved,
        lambda: {"width": 8},
        {"begun": {"None", "{}"}, "steps": {"0"}},
    ),
    "SamplingConfig": Case(
        lambda: cgpt.SamplingConfig,
        lambda: {},
        {
            "temperature": NUMBERS,
            "top_k": {"0"},
            "min_p": {"0"},
            "repetition_penalty": {"3.5"},
            "max_new_tokens": {"0"},
            "seed": {"None", "0", "huge"},
            "presence_penalty": ANY_FLOAT,
            "frequency_penalty": ANY_FLOAT,
            "no_repeat_ngram": {"0"},
            "logit_bias": {"[]", "{}"},
            "stop": {"x", "[]", "None"},
            "length_penalty": ANY_FLOAT,
            "speculate": {"0"},
        },
    ),
    "schedule": Case(
        lambda: cgpt.schedule,
        lambda: {"step": 1, "lr": 1.0, "warmup": 1, "total": 3},
        {"step": {"0"}, "lr": NUMBERS, "warmup": {"0"}, "total": {"0"}, "min_lr_ratio": {"0"}},
    ),
    "set_num_threads": Case(lambda: cgpt.set_num_threads, lambda: {"n": cgpt.get_num_threads()}),
    "Message": Case(
        lambda: cgpt.Message, lambda: {"role": "user", "content": "a"}, {"content": {"x"}}
    ),
    "KVCache": Case(lambda: cgpt.KVCache, lambda: {"config": gpt().config}),
    "KVCache.truncate": Case(
        lambda: gpt().new_cache().truncate, lambda: {"length": 0}, {"length": {"0"}}
    ),
    "GPT": Case(
        lambda: cgpt.GPT,
        lambda: {"config": gpt().config},
        {"seed": {"0", "huge"}, "weights": OPTIONAL, "recompute": FLAGS},
    ),
    "GPT.layout": Case(lambda: cgpt.GPT.layout, lambda: {"config": gpt().config}),
    "GPT.forward": Case(
        lambda: gpt().forward,
        lambda: {"ids": IDS, "targets": IDS},
        {
            "offsets": OPTIONAL,
            "positions": OPTIONAL,
            "dropout": {"0"},
            "dropout_key": {"0"},
            "scale": {"None", "3.5", "-1", "0"},
            "backward": FLAGS,
            "label_smoothing": {"0"},
            "weights": OPTIONAL,
        },
    ),
    "GPT.loss": Case(
        lambda: gpt().loss,
        lambda: {"ids": IDS, "targets": IDS},
        {"weights": OPTIONAL, "offsets": OPTIONAL, "positions": OPTIONAL},
    ),
    "GPT.losses": Case(
        lambda: gpt().losses,
        lambda: {"ids": IDS, "targets": IDS},
        {"offsets": OPTIONAL, "positions": OPTIONAL},
    ),
    "GPT.logits": Case(
        lambda: gpt().logits,
        lambda: {"ids": IDS},
        {
            "offsets": OPTIONAL,
            "positions": OPTIONAL,
            "keep": FLAGS,
            "dropout": {"0"},
            "dropout_key": {"0"},
        },
    ),
    "GPT.hidden": Case(lambda: gpt().hidden, lambda: {"ids": IDS}, {"offsets": OPTIONAL}),
    "GPT.inspect": Case(lambda: gpt().inspect, lambda: {"ids": IDS[0]}, {"ids": {"(3,)"}}),
    "GPT.infer": Case(
        lambda: gpt().infer,
        lambda: {"ids": IDS[0], "cache": gpt().new_cache()},
        {"ids": {"0", "(3,)"}, "request": OPTIONAL},
        {"request": "made by the sampler"},
    ),
    "GPT.infer_all": Case(
        lambda: gpt().infer_all,
        lambda: {"ids": IDS[0], "cache": gpt().new_cache()},
        {"ids": {"0", "(3,)"}, "request": OPTIONAL},
        {"request": "made by the sampler"},
    ),
    "GPT.load_parameters": Case(
        lambda: gpt().load_parameters, lambda: {"values": gpt().parameters()}
    ),
    "GPT.generate": Case(
        lambda: gpt().generate,
        lambda: {"ids": IDS[0], **SAMPLING},
        {
            "ids": {"0", "(3,)"},
            "max_new_tokens": {"0"},
            "temperature": NUMBERS,
            "top_k": {"0"},
            "seed": {"None", "0", "huge"},
        },
    ),
    "GPT.stream": Case(
        lambda: gpt().stream,
        lambda: {"ids": IDS[0], **SAMPLING},
        {
            "ids": {"0", "(3,)"},
            "max_new_tokens": {"0"},
            "temperature": NUMBERS,
            "top_k": {"0"},
            "seed": {"None", "0", "huge"},
        },
    ),
    "GPT.reserve": Case(lambda: gpt().reserve, lambda: {"rows": 4}, {"training": FLAGS}),
    "GPT.backward": Case(
        lambda: trained(), lambda: {}, {"dlogits": OPTIONAL, "finished": OPTIONAL}
    ),
    "GPT.train_only": Case(
        lambda: gpt().train_only,
        lambda: {"wanted": lambda name: True, "adapters": {}},
        {"adapters": {"{}"}},
    ),
    "AdamW": Case(
        lambda: cgpt.AdamW,
        lambda: {"gpt": gpt()},
        {
            "eps": {"3.5"},
            "weight_decay": NUMBERS,
            "freeze": {"[]"},
            "embedding_lr": {"3.5"},
            "fresh": FLAGS,
            "replaces": OPTIONAL,
            "waits": FLAGS,
        },
    ),
    "AdamW.step": Case(
        lambda: stepping(cgpt.AdamW),
        lambda: {"lr": 1e-3},
        {"lr": NUMBERS, "clip": {"3.5", "0", "inf"}},
    ),
    "AdamW.from_dict": Case(
        lambda: cgpt.AdamW.from_dict, lambda: {"gpt": gpt(), "values": cgpt.AdamW(gpt()).to_dict()}
    ),
    "Muon": Case(
        lambda: cgpt.Muon,
        lambda: {"gpt": gpt()},
        {
            "eps": {"3.5"},
            "weight_decay": NUMBERS,
            "freeze": {"[]"},
            "embedding_lr": {"3.5"},
            "momentum": {"0"},
            "fresh": FLAGS,
            "replaces": OPTIONAL,
            "waits": FLAGS,
        },
    ),
    "Muon.from_dict": Case(
        lambda: cgpt.Muon.from_dict, lambda: {"gpt": gpt(), "values": cgpt.Muon(gpt()).to_dict()}
    ),
    "Muon.step": Case(
        lambda: stepping(cgpt.Muon),
        lambda: {"lr": 1e-3},
        {"lr": NUMBERS, "clip": {"3.5", "0", "inf"}},
    ),
    "Trainer.fit": Case(
        lambda: cgpt.Trainer(llm(), cgpt.TrainConfig(epochs=1)).fit,
        lambda: {"documents": TEXTS},
        {
            **shared(("on_progress", "should_stop", "on_checkpoint", "validation"), OPTIONAL),
            "eval_every": {"None", "0"},
            "callbacks": {"[]"},
        },
    ),
    "Tokenizer": Case(lambda: cgpt.Tokenizer, lambda: {"words": ["a"], "scores": [-1.0]}),
    "Tokenizer.train": Case(
        lambda: cgpt.Tokenizer.train, lambda: {"texts": TEXTS, "vocab_size": 300, "kind": "chars"}
    ),
    "Tokenizer.encode": Case(
        lambda: small_tokenizer().encode, lambda: {"text": "a"}, {"text": {"x"}, "specials": FLAGS}
    ),
    "Tokenizer.encode_bytes": Case(
        lambda: small_tokenizer().encode_bytes, lambda: {"text": "a"}, {"text": {"x"}}
    ),
    "Tokenizer.encode_many": Case(
        lambda: small_tokenizer().encode_many, lambda: {"texts": ["a"]}, {"texts": {"[]"}}
    ),
    "Tokenizer.decode": Case(
        lambda: small_tokenizer().decode,
        lambda: {"ids": [9]},
        {"ids": {"[]", "(3,)"}, "specials": FLAGS},
    ),
    "Tokenizer.decoder": Case(lambda: small_tokenizer().decoder, lambda: {}, {"specials": FLAGS}),
    "Tokenizer.token_to_id": Case(
        lambda: small_tokenizer().token_to_id, lambda: {"token": "a"}, {"token": {"x"}}
    ),
    "Tokenizer.id_to_token": Case(
        lambda: small_tokenizer().id_to_token, lambda: {"id": 9}, {"id": {"0"}}
    ),
    "Tokenizer.from_state": Case(
        lambda: cgpt.Tokenizer.from_state, lambda: {"state": small_tokenizer().to_state()}
    ),
    "LLM": Case(
        lambda: LLM,
        lambda: {"tokenizer": small_tokenizer(), "gpt": llm().gpt},
        {"optimizer": OPTIONAL, "training_state": OPTIONAL, "metadata": {"None", "{}"}},
    ),
    "LLM.fresh": Case(
        lambda: LLM.fresh,
        lambda: {"tokenizer": small_tokenizer(), "config": gpt().config},
        {"seed": {"0", "huge"}},
    ),
    "LLM.from_texts": Case(
        lambda: LLM.from_texts,
        lambda: {"texts": TEXTS, "config": gpt().config, "kind": "chars"},
        {"seed": {"0", "huge"}},
    ),
    "LLM.score": Case(
        lambda: llm().score,
        lambda: {"text": "a"},
        {"text": {"x", "[]"}, "prompt": {"x", "None"}, "end": FLAGS, "stride": OPTIONAL},
    ),
    "LLM.embed": Case(
        lambda: llm().embed,
        lambda: {"texts": ["a"]},
        {"texts": {"x", "[]"}, "normalize": FLAGS, "stride": OPTIONAL},
    ),
    "LLM.loss": Case(lambda: llm().loss, lambda: {"texts": TEXTS}, {"stride": OPTIONAL}),
    "LLM.samples": Case(
        lambda: llm().samples, lambda: {"documents": TEXTS}, {"documents": {"[]"}, "longest": {"0"}}
    ),
    "generate_tokens": Case(
        lambda: generate_tokens,
        lambda: {"gpt": gpt(), "ids": [5, 6], "sampling": cgpt.SamplingConfig(**SAMPLING)},
        {
            "ids": {"(3,)"},
            "sampling": OPTIONAL,
            "cache": OPTIONAL,
            "stop": {"[]", "(3,)"},
            "banned": {"[]", "(3,)"},
        },
    ),
    "predictions": Case(
        lambda: predictions, lambda: {"gpt": gpt(), "ids": [5, 6]}, {"ids": {"(3,)"}, "top": {"0"}}
    ),
    "with_weights": Case(lambda: with_weights, lambda: {"gpt": gpt(), "form": "int8"}),
    "evaluate": Case(
        lambda: evaluate, lambda: {"llm": llm(), "samples": TEXTS}, {"stride": OPTIONAL}
    ),
    "score_documents": Case(
        lambda: score_documents,
        lambda: {"llm": llm(), "documents": TEXTS},
        {"documents": {"[]"}, "stride": OPTIONAL},
    ),
    "total_of": Case(lambda: total_of, lambda: {"scores": score_documents(llm(), TEXTS)}),
    "difference": Case(
        lambda: difference,
        lambda: {"first": score_documents(llm(), TEXTS), "second": score_documents(llm(), TEXTS)},
    ),
    "answer": Case(
        lambda: answer,
        lambda: {"llm": small_llm(), "dialogues": DIALOGUES, "max_new_tokens": 1},
        {"dialogues": {"[]"}, "max_new_tokens": {"0"}, "most": {"0"}},
    ),
    "accuracy": Case(lambda: accuracy, lambda: {"answers": [Answer("a", "b", "b", True, True)]}),
    "LLM.generate": Case(
        lambda: llm().generate,
        lambda: {"text": "a", **SAMPLING},
        {"text": {"x", "[]"}, "max_new_tokens": {"0"}, "temperature": NUMBERS},
    ),
    "LLM.stream": Case(
        lambda: llm().stream,
        lambda: {"text": "a", **SAMPLING},
        {"text": {"x"}, "max_new_tokens": {"0"}, "temperature": NUMBERS},
    ),
    "LLM.continuation": Case(
        lambda: llm().continuation,
        lambda: {"text": "a", "sampling": cgpt.SamplingConfig(**SAMPLING)},
        {"text": {"x"}},
    ),
    "LLM.beam_search": Case(
        lambda: llm().beam_search,
        lambda: {"text": "a", "sampling": cgpt.SamplingConfig(**SAMPLING)},
        {"text": {"x"}},
    ),
    "LLM.chat": Case(lambda: small_llm().chat, lambda: {"messages": MESSAGES, **SAMPLING}),
    "LLM.chat_stream": Case(
        lambda: small_llm().chat_stream, lambda: {"messages": MESSAGES, **SAMPLING}
    ),
    "ChatSession": Case(
        lambda: cgpt.ChatSession,
        lambda: {"llm": small_llm()},
        {"sampling": OPTIONAL, "system": {"None", "x"}},
    ),
    "ChatSession.from_dict": Case(
        lambda: cgpt.ChatSession.from_dict,
        lambda: {"llm": small_llm(), "values": session(1).to_dict()},
        {"sampling": OPTIONAL},
    ),
    "ChatSession.from_messages": Case(
        lambda: cgpt.ChatSession.from_messages,
        lambda: {"llm": small_llm(), "messages": DIALOGUES[0]},
        {"messages": {"[]"}, "sampling": OPTIONAL},
    ),
    "ChatSession.reply": Case(lambda: session().reply, lambda: {"text": "a"}, {"text": {"x"}}),
    "ChatSession.stream": Case(lambda: session().stream, lambda: {"text": "a"}, {"text": {"x"}}),
    "ChatSession.edit": Case(
        lambda: session(1).edit,
        lambda: {"turn": 0, "text": "a"},
        {"turn": {"0", "-1"}, "text": {"x"}},
    ),
    "ChatSession.regenerate": Case(lambda: session(1).regenerate, lambda: {}),
    "ChatSession.restore": Case(lambda: SESSION.restore, lambda: {"snapshot": SESSION.snapshot()}),
    "Trainer": Case(
        lambda: cgpt.Trainer,
        lambda: {"llm": llm()},
        {"config": OPTIONAL},
        {"parallel": "the processes of a training"},
    ),
    "continue_training": Case(
        lambda: cgpt.continue_training,
        lambda: {"llm": llm(), "epochs": 1, "lr": 1e-3, "documents": DIALOGUES},
        {
            "lr": {"None", "3.5"},
            "skip_invalid": {"None", "True"},
            **shared(("on_data", "on_progress", "should_stop", "on_checkpoint"), OPTIONAL),
        },
        {"chat": "files", "documents": "None reads the packaged data"},
    ),
    "Lora": Case(
        lambda: cgpt.Lora,
        lambda: {"gpt": gpt(), "rank": 1, "alpha": 1.0},
        {
            "alpha": {"3.5"},
            "weight_decay": NUMBERS,
            "eps": {"3.5"},
            "seed": {"0", "huge"},
            "base": {"x"},
            "replaces": OPTIONAL,
            "waits": FLAGS,
        },
    ),
    "Lora.from_dict": Case(
        lambda: cgpt.Lora.from_dict,
        lambda: {"gpt": gpt(), "values": cgpt.Lora(gpt(), 1, 1.0).to_dict()},
    ),
    "Lora.step": Case(
        lambda: cgpt.Lora(gpt(), 1, 1.0).step,
        lambda: {"lr": 1e-3},
        {"lr": NUMBERS, "clip": {"3.5", "0", "inf"}},
    ),
    "RunConfig.from_dict": Case(
        lambda: cgpt.RunConfig.from_dict, lambda: {"values": {}}, {"values": {"{}"}}
    ),
    "RunConfig": Case(
        lambda: cgpt.RunConfig,
        lambda: {},
        {
            **shared(("pretrain", "chat", "validation"), {"x", "[]"}),
            "init": {"x"},
            "vocab_size": OPTIONAL,
            **shared(("keep_duplicates", "skip_invalid"), FLAGS),
            "plain_text": {"x", "[]"},
            "suffixes": {"[]"},
            **shared(("n_layer", "n_head", "n_embd", "block_size"), OPTIONAL),
            "n_ff": {"None", "0"},
            "mix": {"[]", "{}"},
            "seed": {"0"},
            **shared(("pretrain_train", "finetune_train"), {"{}"}),
        },
    ),
    "TrainingState.from_dict": Case(
        lambda: cgpt.TrainingState.from_dict, lambda: {"values": {}}, {"values": {"{}"}}
    ),
    "StreamDecoder.push": Case(
        lambda: small_tokenizer().decoder().push, lambda: {"token": 9}, {"token": {"0"}}
    ),
    "CheckpointManager": Case(
        lambda: cgpt.CheckpointManager,
        lambda: {},
        {"folder": {"x"}, "strategy": OPTIONAL, "every": {"0"}, "minutes": NUMBERS},
    ),
}


def trained() -> Callable[..., Any]:
    found = gpt()
    found.forward(IDS, IDS)
    return found.backward


def stepping(kind: Any) -> Callable[..., Any]:
    found = gpt()
    found.gradients()
    step: Callable[..., Any] = kind(found).step
    return step


def session(turns: int = 0) -> cgpt.ChatSession:
    found = cgpt.ChatSession(small_llm(), cgpt.SamplingConfig(seed=0, **SAMPLING))
    for _ in range(turns):
        list(found.reply("你好"))
    return found


SESSION = session()


@pytest.mark.parametrize("name", CASES)
def test_wrong_arguments_are_refused(name: str) -> None:
    assert not faults_of(CASES[name])


OPTIONS: dict[str, set[str]] = {
    **CASES["SamplingConfig"].takes,
    "cancel": OPTIONAL,
    "timeout": {"None", "3.5", "0"},
    "logprobs": FLAGS,
    "top_logprobs": {"0"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_options_are_refused(name: str) -> None:
    """Of everything that generates; the names are those of SamplingOptions."""

    def generate(**options: Any) -> Any:
        return small_llm().generate("a", **{**SAMPLING, **options})

    generate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)]
    )
    assert not faults_of(Case(lambda: generate, lambda: {}, {name: OPTIONS[name]}))


class Text(str):
    """A str as an application may have it."""


def as_numpy(value: Any) -> Any:
    """Numbers, flags and texts as NumPy or a subclass has them."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, str):
        return Text(value)
    if type(value) in (list, tuple):
        return type(value)(map(as_numpy, value))
    return value


@pytest.mark.parametrize("name", CASES)
def test_numpy_values_and_subclasses_are_taken(name: str) -> None:
    """Those of the good arguments, and the defaults."""
    call = CASES[name].make()
    defaults = {
        key: one.default
        for key, one in inspect.signature(call).parameters.items()
        if one.default is not one.empty
        and one.default is not None
        and key not in CASES[name].skipped
    }
    arguments = {**defaults, **CASES[name].good()}
    consumed(call(**{key: as_numpy(value) for key, value in arguments.items()}))


def test_options_of_a_text_may_be_numpys() -> None:
    llm = small_llm()
    found = llm.generate(
        Text("你好"),
        max_new_tokens=np.int64(2),
        temperature=np.float32(0.5),
        top_k=np.int64(3),
        top_p=np.float64(0.9),
        stop=Text("x"),
        logprobs=np.bool_(True),
        top_logprobs=np.int8(2),
        timeout=np.float32(99),
        seed=np.uint32(3),
        logit_bias={np.int64(3): np.float32(1)},
    )
    assert found == llm.generate("你好", 2, 0.5, top_k=3, seed=3, top_p=0.9, logit_bias={3: 1.0})
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def public_calls() -> set[str]:
    """Every function of cgpt.__all__, every class and its public methods."""
    found = set()
    for name in cgpt.__all__:
        thing = getattr(cgpt, name)
        if (
            name in RESULTS
            or typing.is_typeddict(thing)
            or (inspect.isclass(thing) and issubclass(thing, BaseException))
        ):
            continue
        if inspect.isclass(thing):
            found.add(name)
            found |= {
                f"{name}.{method}"
                for method in dir(thing)
                if not method.startswith("_")
                and getattr(getattr(thing, method), "__module__", "").startswith("cgpt")
                and callable(getattr(thing, method))
            }
        elif inspect.isfunction(thing):
            found.add(name)
    return found


def takes_arguments(name: str) -> bool:
    thing = cgpt
    for part in name.split("."):
        thing = getattr(thing, part)
    return any(one != "self" for one in inspect.signature(thing).parameters)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    save_model_binary(small_llm(), folder / "m.bin")
    save_model_json(small_llm(), folder / "m.json")
    (folder / "a.txt").write_text("山水\n", "utf-8")
    small_tokenizer().save(folder / "t.json")
    session(1).save(folder / "s.json")
    adapted = cgpt.load(folder / "m.bin")
    config = cgpt.TrainConfig(epochs=1, warmup=0, lora_rank=1)
    cgpt.Trainer(adapted, config, "finetune").fit(DIALOGUES)
    save_model_binary(adapted, folder / "a.bin")
    return folder


LOADING = {"training": FLAGS, "progress": OPTIONAL, "weights": OPTIONAL}


def started(folder: Path) -> dict[str, Any]:
    """Arguments of a run over one small text."""
    return {
        "config": cgpt.RunConfig(
            pretrain=(str(folder / "a.txt"),),
            preset="tiny",
            n_layer=1,
            tokenizer=str(folder / "t.json"),
        )
    }


@cache
def begun(folder: Path) -> bytes:
    return cgpt.TrainingRun.start(**started(folder)).llm.to_bytes()


FILES: dict[str, tuple[Any, Any, dict[str, set[str]]]] = {
    "load": (lambda f: cgpt.load, lambda f: {"source": f / "m.bin"}, LOADING),
    "load_model_auto": (lambda f: cgpt.load_model_auto, lambda f: {"path": f / "m.bin"}, LOADING),
    "load_model_binary": (
        lambda f: cgpt.load_model_binary,
        lambda f: {"path": f / "m.bin"},
        LOADING,
    ),
    "load_model_json": (lambda f: cgpt.load_model_json, lambda f: {"path": f / "m.json"}, LOADING),
    "load_with_adapter": (
        lambda f: cgpt.load_with_adapter,
        lambda f: {"model": f / "m.bin", "adapter": f / "a.bin"},
        {"training": FLAGS},
    ),
    "save_model_binary": (
        lambda f: cgpt.save_model_binary,
        lambda f: {"llm": small_llm(), "path": f / "n.bin"},
        {"path": {"x"}, "optimizer": FLAGS, "weights": OPTIONAL},
    ),
    "save_model_json": (
        lambda f: cgpt.save_model_json,
        lambda f: {"llm": small_llm(), "path": f / "n.json"},
        {"path": {"x"}, "optimizer": FLAGS},
    ),
    "CheckpointManager.save_last": (
        lambda f: cgpt.CheckpointManager(f / "c").save_last,
        lambda f: {"llm": small_llm()},
        {"learning_rate": OPTIONAL | NUMBERS},
    ),
    "CheckpointManager.step_done": (
        lambda f: cgpt.CheckpointManager(f / "c").step_done,
        lambda f: {"llm": small_llm()},
        {"learning_rate": OPTIONAL | NUMBERS},
    ),
    "CheckpointManager.holds_last": (
        lambda f: cgpt.CheckpointManager(f / "c").holds_last,
        lambda f: {"llm": small_llm()},
        {},
    ),
    "CheckpointManager.latest": (
        lambda f: cgpt.CheckpointManager(f / "none").latest,
        lambda f: {},
        {"warn": OPTIONAL, "run_id": {"None", "x"}},
    ),
    "TrainingRun.start": (
        lambda f: cgpt.TrainingRun.start,
        started,
        {"cache": {"None", "x"}, "progress": OPTIONAL},
    ),
    "TrainingRun.resume": (
        lambda f: cgpt.TrainingRun.resume,
        lambda f: {"llm": LLM.from_bytes(begun(f))},
        {
            "epochs": OPTIONAL,
            "lr": {"None", "3.5"},
            "new_data": FLAGS,
            "max_steps": {"None", "0"},
            "max_minutes": OPTIONAL | NUMBERS,
            "cache": {"None", "x"},
            "progress": OPTIONAL,
        },
    ),
    "LLM.from_bytes": (
        lambda f: LLM.from_bytes,
        lambda f: {"data": small_llm().to_bytes()},
        {"training": FLAGS, "weights": OPTIONAL},
    ),
    "LLM.to_bytes": (
        lambda f: small_llm().to_bytes,
        lambda f: {},
        {"optimizer": FLAGS, "weights": OPTIONAL},
    ),
    "read_corpus": (
        lambda f: cgpt.read_corpus,
        lambda f: {"paths": [f / "a.txt"]},
        {
            "unique": FLAGS,
            "skip_invalid": FLAGS,
            "as_text": {"True", "x", "[]"},
            "suffixes": {"[]"},
        },
    ),
    "ChatSession.load": (
        lambda f: cgpt.ChatSession.load,
        lambda f: {"llm": small_llm(), "path": f / "s.json"},
        {"sampling": OPTIONAL},
    ),
    "ChatSession.save": (
        lambda f: session().save,
        lambda f: {"path": f / "u.json"},
        {"path": {"x"}},
    ),
    "Tokenizer.load": (lambda f: cgpt.Tokenizer.load, lambda f: {"path": f / "t.json"}, {}),
    "Tokenizer.save": (
        lambda f: small_tokenizer().save,
        lambda f: {"path": f / "v.json"},
        {"path": {"x"}},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_wrong_arguments_of_what_reads_and_writes(
    name: str, files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    make, good, takes = FILES[name]
    assert not faults_of(Case(lambda: make(files), lambda: good(files), takes))


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "", ".", "no/such/file", "a" * 5000])
@pytest.mark.parametrize("name", FILES)
def test_paths_of_no_file_are_told(
    name: str, path: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save makes folders."""
    monkeypatch.chdir(tmp_path)
    make, good, _ = FILES[name]
    arguments = good(files)
    for one in {"path", "source", "paths", "model", "adapter"} & set(arguments):
        if "save" in name and path == "no/such/file":
            make(files)(**{**arguments, one: path})
            continue
        with pytest.raises(CgptError):
            make(files)(**{**arguments, one: path})


# Types of what calls give back; nobody makes them.
RESULTS = {
    "CancelToken",
    "Continuation",
    "Corpus",
    "Documents",
    "Dropped",
    "EvalResult",
    "FileReport",
    "FitResult",
    "FurtherOptions",
    "Generation",
    "Inspection",
    "Model",  # its methods are tried as those of GPT
    "InvalidRow",
    "InvalidRows",
    "LimitOptions",
    "Piece",
    "PieceStream",
    "Prediction",
    "Progress",
    "SamplingOptions",
    "Score",
    "Source",
    "StreamDecoder",
    "TextStream",
    "TooLong",
    "TopLogprob",
    "TrainingState",
    "Usage",
}
# Not tried, and why.
EXEMPT = {
    "GPT.decode_n": "arrays and picks that the decoding loop makes",
    "GPT.graph_class": "called by the model",
    "GPT.prefill": "as GPT.infer, for the decoding loop",
    **dict.fromkeys(
        (
            "TrainingRun",
            "TrainingRun.documents",
            "TrainingRun.epoch_tokens",
            "TrainingRun.fit_phase",
            "TrainingRun.too_long",
            "TrainingRun.validation_documents",
        ),
        "reads files: tests/test_run.py",
    ),
    **{
        f"{kind}.{method}": "called by what trains"
        for kind in ("AdamW", "Muon", "Lora")
        for method in ("keep", "prepared", "replacing", "taking_over")
    },
    **{
        f"Callback.on_{event}": "called by fit"
        for event in ("step", "evaluation", "epoch_end", "end")
    },
    **dict.fromkeys(("LLM.changing_optimizer", "Lora.configure"), "called by what trains"),
    **dict.fromkeys(
        (
            "Lora.base_weights",
            "RunConfig.data",
            "RunConfig.phase",
            "RunConfig.resolved",
            "RunConfig.with_phases",
            "TrainConfig.require_validation",
        ),
        "asked by a run",
    ),
    "KVCache.copy": "called by a context",
    "LLM.default": "reads the packaged data, a second each time; its seed is that of LLM.fresh",
    "LLM.of": "called by what loads",
    "LLM.summed_loss": "takes the processes of a training",
    "TrainConfig.learns_all": "asked by the trainer",
}


def test_every_public_call_is_tried() -> None:
    calls = {name for name in public_calls() if takes_arguments(name)}
    assert not calls - set(CASES) - set(FILES) - set(EXEMPT)
    assert not set(EXEMPT) - calls
