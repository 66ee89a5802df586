"""`cgpt chat` and `cgpt generate`: sampling options, beams, sessions kept in a file, JSON."""

# ruff: noqa: F401, F811 - fixtures of test_cli: imported here, arguments below

from __future__ import annotations

import json
from pathlib import Path

import pytest
from screen import Screen
from test_cli import MODEL, Run, place, run, trained

from cgpt.config import SamplingConfig
from cgpt.llm import load_model_auto

SHORT = ("--max-new-tokens", "9")


def test_json_tells_tokens_and_log_probabilities(run: Run, place: Path) -> None:
    code, out, err = run("generate", MODEL, "长江", *SHORT, "--seed", "1", "--num", "2", "--json")
    assert (code, err) == (0, "")
    result, llm = json.loads(out), load_model_auto(MODEL)
    assert len(result["texts"]) == 2
    for one in result["texts"]:
        assert len(one["ids"]) == len(one["logprobs"]) <= 9
        assert all(value <= 0 for value in one["logprobs"])
        text = llm.tokenizer.decode(one["ids"]).replace("\ufffd", "")
        assert one["continuation"] == text and one["text"] == "长江" + text
    sampling = SamplingConfig.from_dict(result["sampling"])
    assert sampling == SamplingConfig(max_new_tokens=9, seed=1)


def test_every_option_reaches_the_sampling(run: Run, place: Path) -> None:
    options = {
        "--temperature": 0.5,
        "--top-p": 0.7,
        "--top-k": 30,
        "--min-p": 0.01,
        "--repetition-penalty": 1.2,
        "--presence-penalty": 0.3,
        "--frequency-penalty": 0.1,
        "--no-repeat-ngram": 4,
        "--max-new-tokens": 7,
        "--seed": 5,
        "--speculate": 3,
        "--length-penalty": 0.8,
    }
    args = [str(part) for pair in options.items() for part in pair]
    code, out, _ = run(
        "generate",
        MODEL,
        "长江",
        *args,
        "--logit-bias",
        "270=-5",
        "--logit-bias",
        "9=1.5",
        "--stop",
        "。",
        "--stop",
        "a b",
        "--json",
    )
    assert code == 0
    expected = {name.lstrip("-").replace("-", "_"): value for name, value in options.items()}
    assert json.loads(out)["sampling"] == {
        **expected,
        "beam": 1,
        "stop": ["。", "a b"],
        "logit_bias": [[9, 1.5], [270, -5.0]],
    }


def test_a_stop_text_from_the_environment_keeps_its_spaces(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGPT_STOP", "a b")
    code, out, _ = run("generate", MODEL, "长江", *SHORT, "--json")
    assert code == 0 and json.loads(out)["sampling"]["stop"] == ["a b"]


def test_speculation_and_stop_at_the_command(run: Run, place: Path) -> None:
    plain = run("generate", MODEL, "长江", "--max-new-tokens", "60", "--temperature", "0")
    fast = run(
        "generate",
        MODEL,
        "长江",
        "--max-new-tokens",
        "60",
        "--temperature",
        "0",
        "--speculate",
        "8",
    )
    assert plain == fast and plain[0] == 0
    said = plain[1][2:-1]
    stopped = run(
        "generate", MODEL, "长江", "--max-new-tokens", "60", "--temperature", "0", "--stop", said[3]
    )
    assert stopped[1] == "长江" + said[: said.index(said[3])] + "\n"


def test_beams_give_the_best_with_scores(run: Run, place: Path) -> None:
    beam = ("generate", MODEL, "长江", "--beam", "4", *SHORT)
    code, out, _ = run(*beam, "--num", "3")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and len(rows) == 3 and all(len(row) == 2 for row in rows)
    scores = [float(score) for score, _ in rows]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 0
    code, out, _ = run(*beam, "--num", "3", "--json")
    found = json.loads(out)["texts"]
    assert [f"{one['score']:.4f}" for one in found] == [score for score, _ in rows]
    assert [one["continuation"].replace("\n", "\\n") for one in found] == [text for _, text in rows]
    assert run(*beam)[1] == "长江" + found[0]["continuation"] + "\n"
    code, out, _ = run(*beam, "--num", "3", "--length-penalty", "0", "--json")
    assert json.loads(out)["texts"][0]["score"] <= found[0]["score"]
    code, _, err = run(*beam, "--num", "5")
    assert code == 2 and "--num 5 大于束宽 --beam 4" in err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--logit-bias", "x=1"], "错误: --logit-bias 的值不对: 'x=1' 不是 ID=F，例如 270=-5"),
        (["--logit-bias", "5"], "错误: --logit-bias 的值不对: '' 不是有限的数"),
        (["--logit-bias", "5=nan"], "错误: --logit-bias 的值不对: 'nan' 不是有限的数"),
        (["--stop", ""], "错误: --stop 的值不对: 文本为空"),
        (["--min-p", "2"], "错误: --min-p 的值不对: 2 不在范围 [0, 1] 内"),
    ],
)
def test_wrong_options_are_usage(run: Run, place: Path, args: list[str], sentence: str) -> None:
    code, out, err = run("generate", MODEL, "长江", *args)
    assert (code, out) == (2, "") and err.splitlines()[0] == sentence


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--logit-bias", "99999=1"], "错误: logit_bias 的词 id 应在 0 到"),
        (["--beam", "2", "--speculate", "2"], "错误: SamplingConfig: speculate=2 只适用于单个续写"),
        (
            ["--logit-bias", "5=1", "--logit-bias", "5=2"],
            "错误: SamplingConfig: logit_bias 中有重复",
        ),
    ],
)
def test_options_that_cannot_be_are_one_sentence(
    run: Run, place: Path, args: list[str], sentence: str
) -> None:
    code, out, err = run("generate", MODEL, "长江", *args)
    assert (code, out) == (1, "") and err.startswith(sentence) and len(err.splitlines()) == 1


def test_a_session_is_gone_on_with(run: Run, place: Path) -> None:
    talk = ("chat", "--session", "talk.json", *SHORT, "--seed", "3", "--system", "谢谢")
    for n, question in enumerate(("你好", "长江有多长"), 1):
        code, out, err = run(*talk, "-p", question)
        assert (code, err) == (0, "")
        values = json.loads(Path("talk.json").read_text(encoding="utf-8"))
        assert values["system"] == "谢谢" and len(values["messages"]) == 2 * n
        assert values["messages"][-2]["content"] == question
        assert values["messages"][-1]["content"].strip().replace("\ufffd", "") == out.strip()
    code, _, err = run("chat", "--session", "talk.json", "--system", "别的", "-p", "你好")
    assert code == 2 and "talk.json 已有自己的系统提示" in err
    Path("bad.json").write_text("[]")
    code, _, err = run("chat", "--session", "bad.json", "-p", "你好")
    assert code == 1 and err == (
        '错误: bad.json: 不是 cgpt 保存的会话（没有 "format": "cgpt-session"）；请选择其他文件\n'
    )
    assert Path("bad.json").read_text() == "[]"


def test_json_tells_how_a_text_came_about(run: Run, place: Path) -> None:
    code, out, err = run("generate", MODEL, "长江", *SHORT, "--seed", "1", "--json")
    (one,) = json.loads(out)["texts"]
    assert (code, err) == (0, "") and one["finish_reason"] in ("stop", "length")
    assert one["usage"]["completion_tokens"] == len(one["ids"])
    assert one["dropped"] == {"tokens": 0, "turns": 0, "later": 0}
    code, out, err = run("chat", MODEL, "-p", "你好", *SHORT, "--temperature", "0", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and found["prompt"] == "你好" and found["model"] == MODEL
    assert len(found["ids"]) == len(found["logprobs"]) == found["usage"]["completion_tokens"]
    plain = run("chat", MODEL, "-p", "你好", *SHORT, "--temperature", "0")
    assert plain == (0, found["text"] + "\n", "")


def test_what_does_not_fit_is_said_on_stderr(run: Run, place: Path) -> None:
    capacity = load_model_auto(MODEL).config.block_size
    text = "长江，" * capacity
    code, out, err = run("generate", MODEL, text, *SHORT, "--json")
    n, _, later = json.loads(out)["texts"][0]["dropped"].values()
    said = (
        f"文本超出上下文: 开头的 {n} 个词未参与生成\n"
        f"回答超出上下文: 最早的 {later} 个词在生成中不再参与\n"
    )
    assert code == 0 and n > 0 and later > 0 and err == said
    for more in (("--num", "2"), ("--beam", "2")):
        code, _, err = run("generate", MODEL, text, *SHORT, *more)
        assert code == 0 and err == said
    code, out, err = run("chat", MODEL, "-p", text, *SHORT, "--json")
    n = json.loads(out)["dropped"]["tokens"]
    assert code == 0 and n > 0 and err == f"文本超出上下文: 开头的 {n} 个词未参与生成\n"
    turns = [
        one
        for i in range(40)
        for one in (
            {"role": "user", "content": f"长江{i}"},
            {"role": "assistant", "content": "黄河，" * 9},
        )
    ]
    Path("long.json").write_text(
        json.dumps(
            {
                "format": "cgpt-session",
                "version": 1,
                "system": None,
                "sampling": {},
                "drawn": 0,
                "messages": turns,
            }
        ),
        encoding="utf-8",
    )
    code, out, err = run("chat", MODEL, "-p", "你好", "--session", "long.json", *SHORT, "--json")
    _, turns, _ = dropped = json.loads(out)["dropped"].values()
    assert code == 0 and 0 < turns < 40
    assert err == "上下文已满: 最早的 {1} 轮对话 (共省去 {0} 个词) 不再参与回答\n".format(*dropped)


def test_a_chat_says_once_that_turns_are_left_out(place: Path) -> None:
    with Screen(
        "chat", "--temperature", "0", "--max-new-tokens", "3", "--logit-bias", "2=-99", cwd=place
    ) as screen:
        for _ in range(24):
            screen.answer("👤 用户: ", "长江")
            screen.expect("🤖 模型: ")
        screen.expect("👤 用户: ")
        said = screen.text.count("上下文已满: 最早的")
        assert 0 < said < 12  # a quarter of the context is freed at once
        screen.type("\x04")
        assert screen.end() == 0


def test_json_is_for_one_answer(place: Path) -> None:
    with Screen("chat", "--json", cwd=place) as screen:
        screen.expect("--json 只用于单次回答")
        assert screen.end() == 2


def test_the_commands_defaults_are_those_of_sampling(run: Run, place: Path) -> None:
    for command in (("generate", MODEL, "长江"), ("chat", MODEL, "-p", "你好")):
        _, out, _ = run(*command, "--stop", "长", "--json")
        expected = {**SamplingConfig().to_dict(), "stop": ["长"], "logit_bias": []}
        assert json.loads(out)["sampling"] == expected


def test_a_session_at_a_terminal_is_kept_after_every_turn(place: Path) -> None:
    def messages() -> int:
        return len(json.loads((place / "talk.json").read_text(encoding="utf-8"))["messages"])

    with Screen(
        "chat", "--temperature", "0", *SHORT, "--session", "talk.json", cwd=place
    ) as screen:
        screen.answer("👤 用户: ", "你好")
        screen.expect("🤖 模型: ")
        screen.answer("👤 用户: ", "谢谢")
        screen.expect("🤖 模型: ")
        screen.expect("👤 用户: ")
        assert messages() == 4 and "接着上次" not in screen.text
        screen.type("\x04")
        assert screen.end() == 0
    with Screen("chat", *SHORT, "--session", "talk.json", cwd=place) as screen:
        screen.expect("接着上次的对话，已有 2 轮")
        screen.type("CLEAR\n")
        screen.expect("✓ 对话上下文已清空")
        screen.answer("👤 用户: ", "exit")
        assert screen.end() == 0
    assert messages() == 0


def test_a_chat_without_a_model_says_which_there_are(run: Run, place: Path) -> None:
    Path(MODEL).rename("checkpoints/mine.bin")
    code, out, err = run("chat", "-p", "你好")
    assert (code, out) == (1, "")
    assert err == f"错误: {MODEL} 不存在；请指定现有的模型之一: checkpoints/mine.bin\n"
    Path("checkpoints/mine.bin").unlink()
    code, out, err = run("chat", "-p", "你好")
    assert (code, out) == (1, "")
    assert err == (f"错误: {MODEL} 不存在，这里也没有其他模型；请先训练一个（cgpt），或指定文件\n")
