"""Chinese of the sentences about models and optimizers in memory, as error_sentences.py and
error_parts.py have them."""

from __future__ import annotations

MODEL_SENTENCES: dict[str, str] = {
    "{owner}: this model is trained by llm.optimizer ({kind}), which has the moments; use that "
    "one, or set llm.optimizer = None first to let go of them":
        "{owner}: 此模型由 llm.optimizer（{kind}）训练，动量归它所有；请使用它，"
        "或先设 llm.optimizer = None 以放弃其动量",
    "{owner}: another optimizer was made for this model later and has the moments now; use that "
    "one, or make a new one":
        "{owner}: 此后又为这个模型建立了另一个优化器，动量现归它所有；请使用它，或新建一个",
    "LLM.optimizer: this optimizer trains another model than llm.gpt; make one for that":
        "LLM.optimizer: 这个优化器训练的不是 llm.gpt；请为它新建一个",
    "{what}: found rows of unlike length, expected a rectangular array":
        "{what}: 各行长度不同，应为矩形数组",
    "{what}: found {type}, expected real numbers": "{what}: 类型为 {type}，应为实数",
    "{what}: found {value}, expected finite numbers that float32 can hold":
        "{what}: 出现 {value}，应为 float32 能表示的有限数",
    "{what}: found shape {shape}, expected {wanted} as the {like} have":
        "{what}: 形状为 {shape}，应与 {like} 相同: {wanted}",
    "dlogits: found {type}, expected float32": "dlogits: 类型为 {type}，应为 float32",
    "backward: call forward(ids, targets) first, or logits(ids, keep=True), once for each "
    "backward":
        "backward: 请先调用 forward(ids, targets) 或 logits(ids, keep=True)，每次反向传播前各一次",
    "backward: forward(ids, targets) has a loss of its own; leave dlogits out, or call logits(ids, "
    "keep=True) in its place":
        "backward: forward(ids, targets) 自带损失；请不要给 dlogits，或改用 logits(ids, keep=True)",
    "backward: logits(ids, keep=True) has no loss; pass dlogits, the gradient of yours to these "
    "logits":
        "backward: logits(ids, keep=True) 没有损失；请给出 dlogits，即您的损失对这些 logits 的梯度",
    "logits: dropout is for training; pass keep=True too":
        "logits: dropout 只用于训练；请同时给出 keep=True",
    "load: expected a path, bytes or a binary file object, found {value}":
        "加载: 应为路径、字节串或二进制文件对象，而不是 {value}",
    "save: expected a path or a binary file object, found {value}":
        "保存: 应为路径或二进制文件对象，而不是 {value}",
    "LLM.from_bytes: expected bytes, found {value}":
        "LLM.from_bytes: 应为字节串，而不是 {value}",
    "{name}: this file object is of text, expected one of bytes; open it with '{mode}'":
        "{name}: 这是文本文件对象，应为字节的；请用 '{mode}' 打开",
    "{name} could not be written: found '{reason}' after {n} bytes, expected a stream that takes "
    "the whole model; save it to another one":
        "{name} 无法写入: 写了 {n} 个字节后出错（{reason}），应能写下整个模型；请保存到别处",
    "{owner}: expected an LLM, found a GPT; a file holds its tokenizer too: save "
    "cgpt.LLM(tokenizer, gpt)":
        "{owner}: 应为 LLM，而不是 GPT；文件还要有它的分词器: 请保存 cgpt.LLM(tokenizer, gpt)",
}

MODEL_PARTS: dict[str, str] = {
    "no data yet from a stream that does not wait": "不等待的流还没有数据",
    "no room yet in a stream that does not wait": "不等待的流暂时写不下",
    "an adapter without a model, or with two": "没有模型或有两个模型的适配器",
    "the path of one or the model itself": "一个模型的路径，或模型本身",
    "a Hugging Face folder": " Hugging Face 文件夹",
    "a length of {n} bytes": "长度 {n} 个字节",
    "more than {n} bytes": "超过 {n} 个字节",
    "at most {n}, half of the memory": "至多 {n}，即内存的一半",
    "a .bin or .json that cgpt saved": " cgpt 保存的 .bin 或 .json",
    "a .bin or .json that cgpt saved, or a JSON export of RustGPT-Chinese":
        " cgpt 保存的 .bin 或 .json，或 RustGPT-Chinese 导出的 JSON",
    "load it with cgpt.load": "请用 cgpt.load 加载",
    "an optimizer (cgpt.AdamW, cgpt.Muon)": "优化器（cgpt.AdamW、cgpt.Muon）",
    "an optimizer whose moments belong to one that was made for the model later":
        "优化器的动量已归此后为该模型建立的另一个优化器所有",
    "arrays by name, as parameters() gives them": "按名称给出的数组，如 parameters() 所返回的",
    "the one that trains the model": "正在训练该模型的优化器",
    "set llm.optimizer to that one, or leave it out: optimizer=False":
        "请把 llm.optimizer 设为那个优化器，或不存优化器: optimizer=False",
}
