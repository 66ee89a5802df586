"""Documents longer than the context: where they are cut, what is reported; what carries loss."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_llm import CHARACTERS, DIALOGUES, TEXTS, small_llm, small_tokenizer

from cgpt.cli import main
from cgpt.config import RunConfig, TrainConfig
from cgpt.corpus import documents as documents_module
from cgpt.corpus import token_cache
from cgpt.corpus.documents import Samples, encode_in_memory
from cgpt.corpus.encoding import Sample
from cgpt.corpus.records import Dialogue, Message
from cgpt.corpus.sources import Source
from cgpt.corpus.splitting import TooLong
from cgpt.errors import ConfigError, DataError
from cgpt.llm import load_model_auto
from cgpt.training.epochs import Epochs, cut, too_long
from cgpt.training.run import TrainingRun
from cgpt.training.trainer import Trainer

TOKENIZER = small_tokenizer()


def turns(*contents: str, system: str = "") -> Dialogue:
    first = (Message("system", system),) if system else ()
    return first + tuple(
        Message("assistant" if i % 2 else "user", content) for i, content in enumerate(contents)
    )


def some_dialogue(source: random.Random) -> Dialogue:
    def text(most: int) -> str:
        return "".join(source.choices(CHARACTERS, k=source.randint(1, most)))

    rounds = [text(most) for _ in range(source.randint(1, 5)) for most in (12, 25)]
    return turns(*rounds, system=text(6) if source.random() < 0.5 else "")


def words(sample: Sample) -> str:
    """A sample as text; what carries loss is in brackets."""
    names = {
        TOKENIZER.bos_id: "^",
        TOKENIZER.user_id: "U",
        TOKENIZER.assistant_id: "A",
        TOKENIZER.system_id: "S",
        TOKENIZER.eos_id: "$",
    }
    shown = "".join(names.get(one, TOKENIZER.words[one]) for one in sample.ids.tolist())
    return (
        shown
        + "|"
        + "".join(
            "." if one < 0 else names.get(one, TOKENIZER.words[one])
            for one in sample.targets.tolist()
        )
    )


def counted(samples: Samples) -> int:
    return sum(int(np.count_nonzero(sample.targets >= 0)) for sample in samples)


ONE = turns("长", "一千五六年很高见")


@pytest.mark.parametrize(
    ("dialogue", "longest", "answers", "every"),
    [
        # Whole rounds, each part behind the system message.
        (
            turns("长江", "多", "黄河", "天", "一", "有", system="好"),
            14,
            ["^S好U长江A多$U黄河A天|......多$....天$", "^S好U一A有|.....有$"],
            ["^S好U长江A多$U黄河A天|S好U长江A多$U黄河A天$", "^S好U一A有|..U一A有$"],
        ),
        (
            turns("长", "多", "黄", "天"),
            8,
            ["^U长A多|...多$", "^U黄A天|...天$"],
            ["^U长A多|U长A多$", "^U黄A天|U黄A天$"],
        ),
        # An answer that is too long: its rest stands behind the beginning and <assistant>.
        (
            ONE,
            6,
            ["^U长A一千|...一千五", "^A六年|.六年很", "^A高见|.高见$"],
            ["^U长A一千|U长A一千五", "^A六年|.六年很", "^A高见|.高见$"],
        ),
        (
            (Message("system", "好"), *ONE),
            7,
            ["^S好U长A一|.....一千", "^S好A五六年|...五六年很", "^S好A高见|...高见$"],
            ["^S好U长A一|S好U长A一千", "^S好A五六年|...五六年很", "^S好A高见|...高见$"],
        ),
        # A question that leaves no room for an answer: the round is left out, the others stay.
        (
            turns("长江有多长一年有几个季节", "多", "黄", "天"),
            6,
            ["^U黄A天|...天$"],
            ["^U长江有多|U长江有多长", "^U黄A天|U黄A天$"],
        ),
        # A system message that does: the dialogue is.
        (turns("黄", "天", system="长江有多长"), 6, [], []),
    ],
)
def test_where_dialogues_are_cut(
    dialogue: Dialogue, longest: int, answers: list[str], every: list[str]
) -> None:
    documents = encode_in_memory(TOKENIZER, [dialogue])
    for all_tokens, expected in (False, answers), (True, every):
        assert [words(one) for one in Samples(documents, longest, "cut", all_tokens)] == expected


@pytest.mark.parametrize("longest", [3, 5, 8, 16, 24, 40])
@pytest.mark.parametrize("all_tokens", [False, True])
def test_any_dialogues(longest: int, all_tokens: bool) -> None:
    """No token is counted twice or lost without being reported; no part begins in a question."""
    source = random.Random(longest)
    given = [
        some_dialogue(source) if i % 5 else "".join(source.choices(CHARACTERS, k=i))
        for i in range(1, 60)
    ]
    documents = encode_in_memory(TOKENIZER, given)
    whole = counted(Samples(documents, 10**6, "cut", all_tokens))
    for rule in "cut", "drop":
        found = Samples(documents, longest, rule, all_tokens)
        assert counted(found) + found.too_long.without_loss == whole
        assert found.lengths.tolist() == [*map(len, found)]
        assert (found.lengths <= longest).all()
        assert all((one.targets >= 0).any() for one in found)
        joinable = found.joinable(TOKENIZER)
        for number, sample, joins in zip(found._numbers, found, joinable, strict=True):
            dialogue, shown = given[number], words(sample)
            if isinstance(dialogue, str):
                continue
            system = f"S{dialogue[0].content}" if dialogue[0].role == "system" else ""
            begun = f"^{system}"
            assert shown.startswith(begun)
            assert shown[len(begun)] in "UA" or (all_tokens and shown[len(begun)] == "|")
            assert joins == (shown.startswith("^U") and shown.endswith("$"))
    long = [size > longest for size in (documents.store.sizes - 1).tolist()]
    assert (found.too_long.documents + found.too_long.dialogues, found.too_long.of) == (
        sum(long),
        len(given),
    )


@pytest.mark.parametrize("rule", ["cut", "drop", "error", "windows"])
def test_where_nothing_is_too_long_nothing_changes(rule: str) -> None:
    documents = encode_in_memory(TOKENIZER, [*TEXTS, *DIALOGUES])
    config = TrainConfig(too_long=rule)
    found, before = cut(documents, 64, config, "finetune"), Samples(documents, 64)
    assert [words(one) for one in found] == [words(one) for one in before]
    assert not found.too_long and found.too_long.of == len(documents)
    assert not too_long(documents, 64, config, "finetune")


def test_long_dialogues_may_be_joined_and_recut_beside_texts() -> None:
    source = random.Random(1)
    given = [*(some_dialogue(source) for _ in range(20)), *("长江有多长" * n for n in range(1, 9))]
    config = TrainConfig(batch_tokens=48, join_dialogues=4, epochs=3)
    samples = cut(encode_in_memory(TOKENIZER, given), 16, config, "finetune")
    epochs = Epochs(samples, TOKENIZER, config, "finetune", 16)
    for epoch in range(3):
        batches = epochs.batches(epoch)
        assert sum(batch.counted for batch in batches) == counted(samples)
        assert max(np.diff(batch.offsets).max() for batch in batches) <= 16


def test_refused() -> None:
    documents = encode_in_memory(TOKENIZER, [TEXTS[0], "长" * 70, *DIALOGUES])
    config = TrainConfig(too_long="error")
    for action in cut, too_long:
        with pytest.raises(
            DataError,
            match=r"^pretrain: 1 of 8 documents are longer than the "
            r"context of 64 tokens, the first is number 2 with 71",
        ):
            action(documents, 64, config, "pretrain")
    with pytest.raises(DataError, match="all 1 documents are longer"):
        too_long(
            encode_in_memory(TOKENIZER, ["长" * 70]),
            64,
            replace(config, too_long="drop"),
            "pretrain",
        )
    with pytest.raises(ConfigError, match="unknown too_long 'no'; known: cut, drop, error"):
        TrainConfig(too_long="no")
    with pytest.raises(ConfigError, match="unknown loss_on 'no'"):
        TrainConfig(loss_on="no")


# ---------------------------------------------------------------- training

LONG = [turns(*(f"{'长江有多长' * 3}", "天空是蓝色的。" * 2) * 3, system="你好")] * 3


def test_the_result_says_what_was_too_long() -> None:
    for rule, parts in ("cut", 3), ("drop", 0):
        llm = small_llm()
        config = TrainConfig(epochs=1, batch_tokens=64, too_long=rule, val_fraction=0.2)
        result = Trainer(llm, config, "finetune").fit([*DIALOGUES, *DIALOGUES, *LONG])
        found = result.too_long
        assert isinstance(found, TooLong) and found and found.rule == rule
        assert (found.documents, found.dialogues, found.of) == (0, 3, 15)
        assert found.parts == 3 * parts and bool(found.without_loss) == (rule == "drop")
    with pytest.raises(DataError, match="longer than the context"):
        Trainer(small_llm(), TrainConfig(too_long="error"), "finetune").fit(LONG)


def test_every_token_of_pretraining_carries_loss() -> None:
    documents = encode_in_memory(TOKENIZER, [*TEXTS, *DIALOGUES])
    tokens = int((documents.store.sizes - 1).sum())
    answers = sum(len(one[-1].content) + 1 for one in DIALOGUES)
    texts = sum(len(one) + 1 for one in TEXTS)
    for phase, loss_on, expected in (
        ("pretrain", None, tokens),
        ("finetune", None, texts + answers),
        ("pretrain", "answers", texts + answers),
        ("finetune", "all", tokens),
    ):
        config = TrainConfig(loss_on=loss_on)
        assert counted(cut(documents, 64, config, phase)) == expected
    shown = words(cut(documents, 64, TrainConfig(), "pretrain")[len(TEXTS)])
    ids, targets = shown.split("|")
    assert targets == ids[1:] + "$"


def test_pretraining_learns_the_questions() -> None:
    losses = []
    for loss_on in None, "answers":
        llm = small_llm()
        config = TrainConfig(epochs=30, batch_tokens=128, lr=1e-2, warmup=5, loss_on=loss_on)
        Trainer(llm, config, "pretrain").fit(DIALOGUES)
        ids = [TOKENIZER.bos_id, TOKENIZER.user_id, *TOKENIZER.encode(DIALOGUES[0][0].content)]
        row = np.array([ids], np.int32)
        losses.append(float(llm.gpt.losses(row[:, :-1].copy(), row[:, 1:].copy()).mean()))
    assert losses[0] < 1 < losses[1]


def test_texts_are_learnt_as_before_in_both_phases() -> None:
    weights = []
    for loss_on in None, "answers", "all":
        llm = small_llm()
        Trainer(llm, TrainConfig(epochs=2, batch_tokens=64, loss_on=loss_on), "pretrain").fit(TEXTS)
        weights.append(llm.gpt.arena.data.tobytes())
    assert len(set(weights)) == 1


def test_the_cache_trains_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "LARGE_CORPUS", 0)
    monkeypatch.setattr(documents_module, "SHARD_CHARACTERS", 40)
    items = [*DIALOGUES, *LONG]
    path = write(tmp_path / "a.jsonl", items)
    for phase in "pretrain", "finetune":
        source = Source([str(path)], phase, unique=False, cache=tmp_path / "cache")
        found = []
        for documents in source.documents(TOKENIZER), items:
            llm = small_llm()
            config = TrainConfig(epochs=2, batch_tokens=64, join_dialogues=3)
            Trainer(llm, config, phase).fit(documents)
            found.append(llm.gpt.arena.data.tobytes())
        assert found[0] == found[1]


def write(path: Path, items: list) -> Path:
    path.write_text(
        "\n".join(
            json.dumps(
                item
                if isinstance(item, str)
                else {"messages": [{"role": turn.role, "content": turn.content} for turn in item]},
                ensure_ascii=False,
            )
            for item in items
        ),
        encoding="utf-8",
    )
    return path


# ---------------------------------------------------------------- runs that are resumed


def run_of(path: Path, **changes: object) -> TrainingRun:
    train = replace(TrainConfig(epochs=3, batch_tokens=128), **changes)
    return TrainingRun.start(
        RunConfig(
            pretrain=(str(path),),
            chat=(str(path),),
            preset="tiny",
            tokenizer="chars",
            block_size=32,
            pretrain_train=train,
            finetune_train=train,
        )
    )


@pytest.mark.parametrize("rule", ["cut", "drop"])
def test_a_run_goes_on_with_its_rule(rule: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*DIALOGUES, *LONG[:1]])
    whole, parts = run_of(path, too_long=rule), run_of(path, too_long=rule)
    for phase in "pretrain", "finetune":
        whole.fit_phase(phase)
    parts.fit_phase("pretrain", should_stop=lambda: parts.llm.training_state.step >= 2)
    resumed = TrainingRun.resume(parts.llm)
    assert resumed.config.pretrain_train.too_long == rule and resumed.too_long("pretrain")
    for phase in "pretrain", "finetune":
        resumed.fit_phase(phase)
    assert whole.llm.gpt.arena.data.tobytes() == resumed.llm.gpt.arena.data.tobytes()


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_a_run_of_before_goes_on_as_it_was_begun(phase: str, tmp_path: Path) -> None:
    """What older versions recorded names neither field: windows anywhere, answers only."""
    path = write(tmp_path / "a.jsonl", [*DIALOGUES, *LONG[:1]])
    before = {"too_long": "windows", "loss_on": "answers"}
    whole, parts = run_of(path, **before), run_of(path, **before)
    for run in whole, parts:
        if phase == "finetune":
            run.fit_phase("pretrain")
    whole.fit_phase(phase)
    parts.fit_phase(phase, should_stop=lambda: parts.llm.training_state.step >= 2)
    for name in "pretrain_train", "finetune_train":
        for field in before:
            del parts.llm.training_state.run[name][field]
    resumed = TrainingRun.resume(parts.llm)
    resumed.fit_phase(phase)
    assert whole.llm.gpt.arena.data.tobytes() == resumed.llm.gpt.arena.data.tobytes()


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_a_trainer_goes_on_with_what_an_earlier_version_began(phase: str) -> None:
    given = [*DIALOGUES, *LONG, "长江有多长" * 30]
    now = TrainConfig(epochs=3, batch_tokens=64, warmup=2)
    before = replace(now, too_long="windows", loss_on="answers")
    whole, parts = small_llm(), small_llm()
    Trainer(whole, before, phase).fit(given)
    Trainer(parts, before, phase).fit(given, should_stop=lambda: parts.training_state.step >= 3)
    result = Trainer(parts, now, phase).fit(given)
    assert whole.gpt.arena.data.tobytes() == parts.gpt.arena.data.tobytes()
    assert result.too_long and result.too_long.rule == "windows"
    with pytest.raises(DataError, match="other documents"):
        other = small_llm()
        Trainer(other, before, phase).fit(given, should_stop=lambda: True)
        Trainer(other, replace(now, too_long="drop"), phase).fit(given)


def test_a_run_of_before_reads_the_files_that_it_read(tmp_path: Path) -> None:
    """A folder holds a table: older versions left it out, and named it."""
    path = write(tmp_path / "a.jsonl", DIALOGUES)
    run = run_of(tmp_path)
    run.fit_phase("pretrain", should_stop=lambda: run.llm.training_state.step >= 2)
    for name in "skip_invalid", "plain_text", "suffixes":
        del run.llm.training_state.run[name]
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="found the columns"):
        run_of(tmp_path)
    for _ in range(2):  # what is recorded then says it, too
        resumed = TrainingRun.resume(run.llm)
        files = {file.path: file.skipped for file in resumed.sources["pretrain"].files}
        assert not files[str(path)] and "begun" in files[str(tmp_path / "notes.csv")]


def test_another_rule_is_another_training() -> None:
    llm = small_llm()
    Trainer(llm, TrainConfig(epochs=2, batch_tokens=64), "finetune").fit(
        [*DIALOGUES, *LONG], should_stop=lambda: True
    )
    for change in {"too_long": "drop"}, {"loss_on": "all"}:
        config = replace(TrainConfig(epochs=2, batch_tokens=64), **change)
        with pytest.raises(DataError, match=r"other documents .* too_long, loss_on"):
            Trainer(llm, config, "finetune").fit([*DIALOGUES, *LONG])


# ---------------------------------------------------------------- commands


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*args: str) -> int:
    return main(
        [
            "train",
            "--preset",
            "tiny",
            "--block-size",
            "32",
            "--tokenizer",
            "chars",
            "--max-steps",
            "2",
            "--sample-every",
            "0",
            "--lang",
            "en",
            *args,
        ]
    )


def test_train_reports_before_training(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "a.jsonl", [*DIALOGUES, *LONG[:1], turns("长" * 50, "江", "天", "空")])
    write(here / "b.jsonl", [*TEXTS, "长" * 50])
    assert train("--pretrain", "b.jsonl", "--chat", "a.jsonl", "--json") == 0
    shown = capsys.readouterr()
    said = shown.err.splitlines()
    first = next(i for i, line in enumerate(said) if "are longer than the context" in line)
    assert said[first].startswith(
        "pre-training: 1 documents and 0 dialogues of 7 are longer than the context of 32 tokens: "
        "cut into 2 parts, 0 tokens carry no loss for it"
    )
    assert said[first + 1].startswith(
        "fine-tuning: 0 documents and 2 dialogues of 8 are longer than the context of 32 tokens: "
        "cut into 7 parts, 2 tokens carry no loss for it"
    )
    assert not any("step" in line for line in said[:first])
    found = json.loads(shown.out)["phases"]
    assert found["pretrain"]["too_long"]["parts"] == 2
    assert found["finetune"]["too_long"] == {
        "rule": "cut",
        "longest": 32,
        "documents": 0,
        "dialogues": 2,
        "of": 8,
        "parts": 7,
        "without_loss": 2,
    }


def test_train_drops_or_refuses(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "a.jsonl", [*DIALOGUES, *LONG[:1]])
    assert train("--chat", "a.jsonl", "--too-long", "drop", "--out", "m.bin") == 0
    err = capsys.readouterr().err
    assert "0 documents and 1 dialogues of 7" in err and "left out: 45 tokens carry no loss" in err
    assert load_model_auto("m.bin").training_state.run["finetune_train"]["too_long"] == "drop"
    assert train("--chat", "a.jsonl", "--too-long", "error", "--out", "n.bin") == 1
    assert "1 of 7 documents are longer" in capsys.readouterr().err
    assert not (here / "n.bin").exists()


def test_data_reports(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "a.jsonl", [*DIALOGUES, *LONG[:1]])
    write(here / "b.jsonl", [*TEXTS, "长" * 50])
    command = ["data", "a.jsonl", "b.jsonl", "--tokenizer", "chars", "--lang", "en"]
    assert main([*command, "--json", "--block-size", "32"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["too_long"] == 2 and [one["too_long"] for one in report["files"]] == [1, 1]
    assert report["lengths"] == {
        "rule": "cut",
        "longest": 32,
        "documents": 1,
        "dialogues": 1,
        "of": 14,
        "parts": 8,
        "without_loss": 0,
    }
    assert main([*command, "--block-size", "32"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "too long" in shown and "1 documents and 1 dialogues of 14 are longer" in shown
    assert main(command) == 0
    assert "too long" not in capsys.readouterr().out  # than the context of the default model
    assert main([*command, "--block-size", "32", "--too-long", "error"]) == 1


def test_data_takes_the_context_of_a_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "a.jsonl", [*DIALOGUES, *LONG[:1]])
    assert train("--chat", "a.jsonl", "--out", "m.bin") == 0
    capsys.readouterr()
    assert main(["data", "a.jsonl", "--tokenizer", "m.bin", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lengths"]["longest"] == 32
