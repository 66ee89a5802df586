"""What may stand in the sentence of an error of an import: English template to Chinese."""

from __future__ import annotations

IMPORT: dict[str, str] = {
    "no JSON export of RustGPT-Chinese": "不是 RustGPT-Chinese 导出的 JSON",
    "name one, or a cgpt model": "请给出这样的文件或 cgpt 模型",
    "an export of version {version}": "版本为 {version} 的导出文件",
    "the id {id} of the word {word}": "词 {word} 的编号为 {id}",
    "each of 0 to {n} once": "0 到 {n} 各一次",
    "vocab.decode that is not vocab.encode turned round":
        "vocab.decode 与 vocab.encode 不互逆",
    "the same words and ids": "相同的词和编号",
    "no special token '{word}'": "没有特殊词 '{word}'",
    "its id": "它的编号",
    "the layers {layers}": "各层为 {layers}",
    "Embeddings, TransformerBlock at least once, OutputProjection":
        "Embeddings、至少一个 TransformerBlock、OutputProjection",
    "{name} with {moment} of another shape": "{name} 的 {moment} 形状不同",
    "{name} of the shape {shape}": "{name} 的形状为 {shape}",
    "{name} ({parameter}) of the shape {shape}": "{name}（{parameter}）的形状为 {shape}",
    "two whole numbers, and as many numbers as they say": "两个整数，以及相应个数的数",
    "the setting {name} as {value}": "设置 {name} 为 {value}",
    "a number of at least 0": "不小于 0 的数",
    "block {n} with another epsilon or number of heads": "第 {n} 个块的 epsilon 或头数不同",
    "those of block 0": "第 0 个块的值",
    "in {name} ({parameter}) {reason}": "{name}（{parameter}）中{reason}",
}
