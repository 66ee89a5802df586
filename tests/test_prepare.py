"""A corpus in the cache trains to the bits of one in memory; killed preparations go on; mix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS, small_llm, small_tokenizer

from cgpt.cli import main
from cgpt.cli.run_config import run_config
from cgpt.config import RunConfig, TrainConfig
from cgpt.corpus import documents as documents_module
from cgpt.corpus import sources, token_cache
from cgpt.corpus.documents import Documents, Samples, TokenStore, encode_documents, encode_in_memory
from cgpt.corpus.encoding import encode_dialogue, encode_document
from cgpt.corpus.reader import Reading
from cgpt.corpus.records import Message
from cgpt.corpus.sources import Source
from cgpt.errors import ConfigError, DataError
from cgpt.llm import load_model_auto
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.training.epochs import Epochs
from cgpt.training.recipe import split_by_kind
from cgpt.training.run import TrainingRun
from cgpt.training.trainer import Trainer

LONG = (
    Message("system", "好"),
    Message("user", "问" * 30),
    Message("assistant", "答"),
    Message("user", "问"),
    Message("assistant", "答" * 9),
)
MIXED = [*TEXTS, *DIALOGUES, LONG, "山" * 100, ""]


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


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything is large, and a shard holds a few documents."""
    monkeypatch.setattr(token_cache, "LARGE_CORPUS", 0)
    monkeypatch.setattr(documents_module, "SHARD_CHARACTERS", 20)
    monkeypatch.setattr(documents_module, "_READS", 3)
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("longest", [4, 9, 64])
def test_samples_are_those_of_the_documents(longest: int) -> None:
    llm = small_llm()
    documents = encode_in_memory(llm.tokenizer, MIXED)
    found, expected = Samples(documents, longest), llm.samples(MIXED, longest)
    assert len(found) == len(expected) and found.lengths.tolist() == [*map(len, expected)]
    for one, other in zip(found, expected, strict=True):
        assert one.ids.dtype == other.ids.dtype == one.targets.dtype == np.int32
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.targets, other.targets)
    assert [len(one) for one in found[1:3]] == [*map(len, expected[1:3])]


def test_shards_follow_one_another_and_wide_vocabularies_fit() -> None:
    tokenizer = small_tokenizer()
    wide = Tokenizer(
        [*tokenizer.words[262:], *map(chr, range(0x20000, 0x20000 + 32768))],
        [-9.0] * (len(tokenizer) - 262 + 32768),
    )
    for one, dtype in (tokenizer, np.int16), (wide, np.int32):
        shards = [encode_documents(one, MIXED[i : i + 3]) for i in range(0, len(MIXED), 3)]
        shards.insert(1, encode_documents(one, []))
        assert {shard.tokens.dtype for shard in shards} == {np.dtype(dtype)}
        store = TokenStore(shards, one)
        assert len(store) == len(MIXED)
        assert np.array_equal(store.dialogues, [not isinstance(one, str) for one in MIXED])
        found = Samples(Documents(store, np.arange(len(store))), 1000)
        for number, document in enumerate(MIXED):
            sample = (
                encode_document(one, document)
                if isinstance(document, str)
                else encode_dialogue(one, document)
            )
            assert np.array_equal(found[number].ids, sample.ids)
            assert np.array_equal(found[number].targets, sample.targets)
    with pytest.raises(DataError, match="turns go"):
        encode_documents(tokenizer, [(Message("user", "a"), Message("user", "b"))])


def trained(documents: object, phase: str, **changes: object) -> tuple[bytes, list]:
    llm = small_llm()
    config = replace(TrainConfig(epochs=2, batch_tokens=64, grad_accum=2, seed=3), **changes)
    Trainer(llm, config, phase).fit(documents)
    return llm.gpt.arena.data.tobytes(), llm.training_state.history


@pytest.mark.parametrize("changes", [{}, {"val_fraction": 0.2, "dropout": 0.1}])
@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_the_cache_trains_to_the_same_bits(
    phase: str, changes: dict, small_shards: None, tmp_path: Path
) -> None:
    items = [*TEXTS, *DIALOGUES] if phase == "pretrain" else DIALOGUES
    path = write(tmp_path / "a.jsonl", items)
    if phase == "finetune":
        changes = {**changes, "join_dialogues": 3}
    for _ in range(2):  # made, then found
        source = Source([str(path)], phase, unique=False)
        assert trained(source.documents(small_tokenizer()), phase, **changes) == trained(
            items, phase, **changes
        )
    assert source.large and source.cached
    assert len(list((tmp_path / "cache").glob("*/*.shard"))) > 2


def test_a_phase_that_is_not_trained_is_not_prepared(small_shards: None, tmp_path: Path) -> None:
    texts, chat = write(tmp_path / "a.jsonl", TEXTS), write(tmp_path / "b.jsonl", DIALOGUES)
    run = TrainingRun.start(
        RunConfig(
            pretrain=(str(texts),),
            chat=(str(chat),),
            preset="tiny",
            tokenizer="chars",
            pretrain_train=TrainConfig(epochs=0),
        )
    )
    assert run.phases == ["finetune"]
    assert run.sources["finetune"].entry and not run.sources["pretrain"].entry


def test_more_shards_than_files_may_be_open(small_shards: None, tmp_path: Path) -> None:
    """A map keeps a descriptor: the limit is raised for them, or the cache could not be read."""
    resource = pytest.importorskip("resource")
    path = write(
        tmp_path / "a.jsonl", [f"第{number}条，一段二十个字以上的文字。" for number in range(300)]
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = len(os.listdir("/proc/self/fd")) + 60 if os.path.isdir("/proc/self/fd") else 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        source = Source([str(path)], "pretrain")
        assert len(source.documents(small_tokenizer())) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(list((tmp_path / "cache").glob("*/*.shard"))) > 100


def test_a_run_is_stopped_and_resumed_from_the_cache(
    small_shards: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgpt.tokenizers.vocabulary._jieba_cut", lambda: list)
    path = write(tmp_path / "a.jsonl", [*TEXTS, TEXTS[0], *DIALOGUES])
    config = RunConfig(
        pretrain=(str(path),),
        preset="tiny",
        vocab_size=400,
        mix=((str(path), 1.5),),
        pretrain_train=TrainConfig(epochs=3, batch_tokens=96),
    )
    whole, parts = TrainingRun.start(config), TrainingRun.start(config)
    assert whole.sources["pretrain"].files[0].duplicates == 1 and parts.sources["pretrain"].cached
    whole.fit_phase("pretrain")
    parts.fit_phase("pretrain", should_stop=lambda: parts.llm.training_state.step >= 3)
    resumed = TrainingRun.resume(parts.llm)
    resumed.fit_phase("pretrain")
    assert whole.llm.gpt.arena.data.tobytes() == resumed.llm.gpt.arena.data.tobytes()
    state = whole.llm.training_state
    assert RunConfig.from_dict(json.loads(json.dumps(state.run))) == whole.config


def test_a_run_of_before_duplicates_were_left_out_goes_on_with_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*TEXTS, *TEXTS])
    run = TrainingRun.start(
        RunConfig(
            pretrain=(str(path),),
            preset="tiny",
            tokenizer="chars",
            keep_duplicates=True,
            pretrain_train=TrainConfig(epochs=3, batch_tokens=96),
        )
    )
    run.fit_phase("pretrain", should_stop=lambda: run.llm.training_state.step >= 2)
    del run.llm.training_state.run["keep_duplicates"]
    resumed = TrainingRun.resume(run.llm)
    assert len(resumed.documents("pretrain")) == 2 * len(TEXTS)
    assert resumed.fit_phase("pretrain").stopped == "done"


def test_another_mix_is_another_training() -> None:
    llm, config = small_llm(), TrainConfig(epochs=2, batch_tokens=64)
    store = encode_in_memory(llm.tokenizer, TEXTS).store
    weights = np.ones(len(TEXTS))
    trainer = Trainer(llm, config)
    trainer.fit(Documents(store, np.arange(len(TEXTS)), 2 * weights), should_stop=lambda: True)
    with pytest.raises(DataError, match="other documents"):
        trainer.fit(Documents(store, np.arange(len(TEXTS)), 3 * weights))
    assert trainer.fit(Documents(store, np.arange(len(TEXTS)), 2 * weights)).stopped == "done"


def test_a_vocabulary_of_a_large_corpus_is_kept_and_of_a_sample(
    small_shards: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"第{number}句话" for number in range(400)]
    first, second = (
        write(tmp_path / name, items)
        for name, items in (("a.jsonl", texts), ("b.jsonl", texts[::-1]))
    )
    picked = [sorted(token_cache.sampled(Reading(path), 0.3)) for path in (first, second)]
    assert picked[0] == picked[1] and 60 < len(picked[0]) < 180
    source = Source([str(first)], "pretrain")
    made = sources.learn_vocabulary([source], 300, "chars")
    monkeypatch.setattr(Tokenizer, "train", lambda *_: pytest.fail("learnt again"))
    assert sources.learn_vocabulary([source], 300, "chars").to_state() == made.to_state()


def test_documents_of_another_vocabulary_are_refused() -> None:
    other = Tokenizer.from_state({"words": ["山"], "scores": [-1.0]})
    with pytest.raises(DataError, match="another vocabulary"):
        trained(encode_in_memory(other, TEXTS), "pretrain")
    assert trained(encode_in_memory(small_tokenizer(), TEXTS), "pretrain") == trained(
        TEXTS, "pretrain"
    )


KILLED = """
import sys
from pathlib import Path
from cgpt.corpus import documents, token_cache
from cgpt.corpus.reader import Reading, fingerprint_of
from cgpt.tokenizers.tokenizer import Tokenizer
documents.SHARD_CHARACTERS = 4000
path, folder = sys.argv[1:]
tokenizer = Tokenizer.from_state({"words": ["山", "水"], "scores": [-1.0, -2.0]})
found = token_cache.prepare(Reading(path), fingerprint_of([path]), tokenizer, Path(folder),
                        unique=True, threads=2)
print(found.store.digests)
"""


def test_a_killed_preparation_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [f"{number}山水" * 40 for number in range(3000)])

    def run(folder: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )

    whole = run(tmp_path / "whole").communicate()[0]
    folder = tmp_path / "killed"
    for wanted in 3, 20, 60:
        process = run(folder)
        while process.poll() is None and len(list(folder.glob("*/*.shard"))) < wanted:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    old = {one: one.stat().st_mtime_ns for one in folder.glob("*/*.shard")}
    assert len(old) >= 60
    assert run(folder).communicate()[0] == whole != ""
    assert {one: one.stat().st_mtime_ns for one in old} == old  # they are not made again
    assert not list(folder.glob("*/.*"))  # nothing half done is left


def test_a_cache_that_cannot_be_written_is_told(small_shards: None, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="the cache cannot be written"):
        Source([str(write(tmp_path / "a.jsonl", TEXTS))], "pretrain").documents(small_tokenizer())


def epochs_of(weights: list[float], epochs: int = 4) -> list[np.ndarray]:
    """How often each of 40 documents is trained in each epoch."""
    tokenizer = small_tokenizer()
    store = encode_in_memory(tokenizer, [f"{number:02}" for number in range(40)]).store
    documents = Documents(store, np.arange(40), np.repeat(weights, 40 // len(weights)))
    made = Epochs(Samples(documents, 64), tokenizer, TrainConfig(batch_tokens=64), "pretrain", 64)
    return [np.bincount(made.plan(epoch).order, minlength=40) for epoch in range(epochs)]


def test_weights_say_how_often_an_epoch_takes_a_document() -> None:
    found = epochs_of([0.0, 1.0, 2.0, 1.5])
    for counts in found:
        assert not counts[:10].any() and (counts[10:20] == 1).all() and (counts[20:30] == 2).all()
        assert sorted(counts[30:]) == [1] * 5 + [2] * 5
    assert any((found[0] != counts).any() for counts in found[1:])  # another half has its turn
    assert all(map(np.array_equal, found, epochs_of([0.0, 1.0, 2.0, 1.5])))


def test_weights_of_one_change_nothing() -> None:
    documents = encode_in_memory(small_tokenizer(), TEXTS)
    ones = Documents(documents.store, documents.numbers, np.ones(len(TEXTS)))
    assert trained(ones, "pretrain")[0] == trained(TEXTS, "pretrain")[0]


def test_mix_goes_by_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "d.jsonl", [TEXTS[0], *DIALOGUES[:2]])
    write(tmp_path / "b.jsonl", [TEXTS[1]])
    source = Source([str(tmp_path)], "pretrain", mix=[(str(tmp_path / "a"), 3.0)])
    found = source.documents(small_tokenizer())
    assert found.weights is not None
    assert found.weights.tolist() == [3.0, 1.0, 3.0, 3.0]  # texts first, then dialogues
    assert found.weights[found.store.dialogues].tolist() == [3.0, 3.0]
    assert (
        sum(
            tokens * weight
            for tokens, weight in zip(
                source.tokens_by_file(small_tokenizer()), source.weights(), strict=True
            )
        )
        == found.n_tokens
    )
    without = Source([str(tmp_path)], "pretrain", mix=[(str(tmp_path / "a"), 0.0)])
    assert without.documents(small_tokenizer()).n_tokens == len(TEXTS[1]) + 2
    assert without.tokens_by_file(small_tokenizer()) == [0, len(TEXTS[1]) + 2]
    with pytest.raises(DataError, match="nothing to train on"):
        Source([str(tmp_path)], "pretrain", mix=[(str(tmp_path), 0.0)]).documents(small_tokenizer())
    with pytest.raises(ConfigError, match="no file of the data"):
        TrainingRun.start(RunConfig(pretrain=(str(tmp_path),), mix=(("elsewhere", 1.0),)))
    for wrong in 5, (("a", -1.0),), (("a", "x"),), (("a", float("nan")),):
        with pytest.raises(ConfigError, match="mix"):
            RunConfig(mix=wrong)  # type: ignore[arg-type]


def test_data_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", [TEXTS[0], TEXTS[0], "", *DIALOGUES[:2]])
    write(tmp_path / "b.jsonl", [TEXTS[0], TEXTS[1]])
    (tmp_path / "notes.md").write_text("x")
    assert main(["data", ".", "--tokenizer", "chars", "--vocab-size", "300", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [report[key] for key in ("documents", "dialogues", "dropped", "duplicates")] == [
        2,
        2,
        1,
        2,
    ]
    assert report["tokens"] == sum(file["tokens"] for file in report["files"]) > 20
    assert [file["duplicates"] for file in report["files"]] == [1, 1, 0]
    assert report["files"][2]["skipped"] and report["tokenizer"] == "chars"
    assert main(["data", ".", "--tokenizer", "chars", "--keep-duplicates", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 4
    for language, words in ("zh", ("重复", "没有读取")), ("en", ("duplicates", "not read")):
        for width in "40", "100":
            monkeypatch.setenv("COLUMNS", width)
            assert main(["--lang", language, "data", ".", "--tokenizer", "chars"]) == 0
            shown = capsys.readouterr().out
            assert all(word in shown for word in words) and "a.jsonl" in shown
    assert main(["data", "none.txt"]) == 1
    assert main(["data", ".", "--mix", "a.jsonl"]) == 2
    assert "PATH=F" in capsys.readouterr().err


def test_training_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", [*TEXTS, TEXTS[0]])
    common = [
        "train",
        "--pretrain",
        "a.jsonl",
        "--preset",
        "tiny",
        "--max-steps",
        "1",
        "--tokenizer",
        "chars",
        "--out",
        "m.bin",
        "--overwrite",
    ]
    assert main([*common, "--mix", "a.jsonl=2"]) == 0
    shown = capsys.readouterr().err
    assert "去掉重复 1 条" in shown and "每轮词数" in shown
    assert main([*common, "--keep-duplicates", "--cache", "c d"]) == 0
    shown = capsys.readouterr().err
    assert "去掉重复" not in shown and "cgpt resume m.bin --cache 'c d'" in shown


def test_data_goes_to_the_phases_by_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", TEXTS)
    write(tmp_path / "b.jsonl", DIALOGUES)
    write(tmp_path / "c.jsonl", [*TEXTS[:2], DIALOGUES[0]])
    assert split_by_kind(["."]) == (("./a.jsonl", "./c.jsonl"), ("./b.jsonl", "./c.jsonl"))
    config = run_config({"data": ("b.jsonl",), "pretrain": ("a.jsonl",)})
    assert (config.pretrain, config.chat) == (("a.jsonl",), ("b.jsonl",))
    monkeypatch.setattr("cgpt.corpus.reader.LARGE", 0)
    monkeypatch.setattr("cgpt.training.recipe.BEGINNING", 1)
    assert split_by_kind(["c.jsonl"]) == (("c.jsonl",), ())  # its third item is not read


def test_a_run_with_a_mix_is_repeated_from_toml(
    small_shards: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", [*TEXTS, TEXTS[0]])
    write(tmp_path / "b.jsonl", [f"{number}" for number in range(30)])
    common = [
        "--pretrain",
        "a.jsonl",
        "b.jsonl",
        "--preset",
        "tiny",
        "--max-steps",
        "3",
        "--pretrain-epochs",
        "3",
        "--batch-size",
        "1",
        "--tokenizer",
        "chars",
    ]
    assert main(["train", *common, "--mix", "b.jsonl=0.5", "--out", "m.bin"]) == 0
    capsys.readouterr()
    assert main(["info", "m.bin", "--toml"]) == 0
    (tmp_path / "run.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["train", "--config", "run.toml", "--out", "again.bin"]) == 0
    assert weights("again.bin") == weights("m.bin")
    (tmp_path / "run.toml").write_text('tokenizer = "chars"\n[mix]\n"b.jsonl" = 0.5\n')
    assert main(["train", "--config", "run.toml", *common, "--out", "table.bin"]) == 0
    assert weights("table.bin") == weights("m.bin")
    (tmp_path / "run.toml").write_text('tokenizer = "chars"\n[mix]\n"b.jsonl" = 0.1\n')
    assert (
        main(
            ["train", "--config", "run.toml", *common, "--mix", "b.jsonl=0.5", "--out", "over.bin"]
        )
        == 0
    )
    assert weights("over.bin") == weights("m.bin")  # an option comes on top of the table
    assert main(["train", *common, "--out", "without.bin"]) == 0
    assert weights("without.bin") != weights("m.bin")


def weights(path: str) -> bytes:
    return load_model_auto(path).gpt.arena.data.tobytes()


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_cache.cache_folder("given") == Path("given")
    monkeypatch.setenv("CGPT_CACHE", "chosen")
    assert token_cache.cache_folder() == Path("chosen")
    monkeypatch.setenv("CGPT_CACHE", "")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
        assert token_cache.cache_folder() == Path("/somewhere/cgpt")
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/somebody")
        assert token_cache.cache_folder() == Path("/somebody/.cache/cgpt")
