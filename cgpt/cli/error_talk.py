"""Chinese of what can go wrong where a model talks: template of the English text -> Chinese."""

from __future__ import annotations

TALK_SENTENCES: dict[str, str] = {
    # options of a call
    "{owner}: unknown field '{name}'; did you mean '{near}'?":
        "{owner}: 未知的字段 '{name}'；是否想用 '{near}'？",
    "{owner}: unknown option '{name}'; did you mean '{near}'?":
        "{owner}: 未知的选项 '{name}'；是否想用 '{near}'？",
    "{owner}: unknown option '{name}'; known: {known}":
        "{owner}: 未知的选项 '{name}'；可用的选项: {known}",
    "{owner}: there is no option 'stream'; the methods stream and chat_stream give a text as it is "
    "generated":
        "{owner}: 没有选项 'stream'；请用 stream 和 chat_stream 方法边生成边读取",
    "{owner}: cancel must have a method is_set, as threading.Event has, found {kind}":
        "{owner}: cancel 应有 is_set 方法（如 threading.Event），而不是 {kind}",
    "{owner}: logprobs must be true or false, found {value}; give the number of alternatives by "
    "top_logprobs":
        "{owner}: logprobs 应为 true 或 false，而不是 {value}；备选词的个数请用 top_logprobs 给出",
    "{owner}: a beam search has no top_logprobs, found top_logprobs={n} and beam={beam}; set one "
    "of them to its default":
        "{owner}: 束搜索没有 top_logprobs，而现在 top_logprobs={n}，beam={beam}；"
        "请将其中之一设为默认值",
    "{owner}: ended by its cancel token or timeout before it was done; give it more time or less "
    "to do":
        "{owner}: 未完成就被取消或超时；请给出更多时间，或减少任务",
    "{owner}: logits_processors must be a list of functions, found {value}":
        "{owner}: logits_processors 应为函数的列表，而不是 {value}",
    "logits_processors: {name} returned {kind} of shape {shape}, expected {wanted} numbers, or "
    "None where it changes them in place":
        "logits_processors: {name} 返回了形状 {shape} 的 {kind}，应为 {wanted} 个数；"
        "若就地修改则应返回 None",
    "the logits_processors leave no token that could follow, or make NaN or infinity; leave a "
    "finite logit for at least one token":
        "logits_processors 使得没有词可选，或产生了 NaN 或无穷大；请至少为一个词留下有限的 logit",
    # streams
    "result: the answer has not ended yet; read it to its end, or close it first":
        "result: 回答还没有结束；请先读完或关闭",
    "stream: another thread is reading it; read each stream in one thread at a time":
        "stream: 另一个线程正在读取；同一时刻请只在一个线程中读取",
    # chat
    "ChatSession: an answer is under way in another thread; wait for it, close it, or use a "
    "session for each conversation":
        "ChatSession: 另一个线程中的回答尚未结束；请等待或关闭它，或为每个对话使用单独的会话",
    "ChatSession.from_dict: not a session as to_dict gives it ({reason}); give what it gave":
        "ChatSession.from_dict: 不是 to_dict 给出的会话（{reason}）；请给出它的结果",
    "{owner}: messages: {reason}": "{owner}: messages 有误: {reason}",
    "{owner}: messages[{n}] is of a tool or calls one, which no model here has learnt; leave it "
    "out":
        "{owner}: messages[{n}] 来自工具或调用工具，这里的模型没有学过；请去掉它",
}
