"""Chinese of the sentences about LoRA, as error_sentences.py and error_parts.py have them."""

from __future__ import annotations

ADAPTER_SENTENCES: dict[str, str] = {
    "{path} does not fit: found {found}, expected the model that belongs to it; {advice}":
        "{path} 不配套: 发现{found}，应为与之配套的模型；{advice}",
    "{path}: the model {base} of this adapter is not there; put it back, or name both: "
    "load_with_adapter(model, adapter)":
        "{path}: 找不到这个适配器的模型 {base}；请放回原处，或同时指定二者: "
        "load_with_adapter(model, adapter)",
    "lora_layers: no matrix of the layers is named like '{pattern}'; 'h.*' adapts them all":
        "lora_layers: 各层中没有名称符合 '{pattern}' 的矩阵；'h.*' 适配全部",
    "lora_layers: found no pattern; 'h.*' adapts all matrices of the layers":
        "lora_layers: 没有给出名称；'h.*' 适配各层的全部矩阵",
    "the phase was begun with {begun} and cannot go on with {wanted}; give the same, or "
    "begin the phase anew: llm.training_state.begin(...)":
        "此阶段以 {begun} 开始，不能以 {wanted} 继续；请使用相同的设置，"
        "或重新开始此阶段: llm.training_state.begin(...)",
    "{owner}: lora_rank={rank} leaves all weights as they are, so there is nothing to freeze; "
    "choose by lora_layers":
        "{owner}: lora_rank={rank} 不改动任何权重，无需冻结；请用 lora_layers 选择",
    "{owner}: lora_rank={rank} is trained by adamw, found optimizer {value}; leave one of the two "
    "out":
        "{owner}: lora_rank={rank} 由 adamw 训练，而 optimizer 为 {value}；请去掉其中之一",
    "--init {path} brings its own shape and vocabulary; leave out --{name}":
        "--init {path} 自带形状和词汇；请去掉 --{name}",
    "--{name} is of a LoRA adapter, which has no rank here; give one by --lora-rank":
        "--{name} 属于 LoRA 适配器，而这里没有给出秩；请用 --lora-rank 指定",
    "LoRA leaves the embeddings as they are; leave out --embedding-lr":
        "LoRA 不改动词嵌入；请去掉 --embedding-lr",
    "LoRA trains on dialogues while fine-tuning, of which there is none; name files by --chat":
        "LoRA 在微调时用对话训练，而这里没有微调；请用 --chat 指定文件",
    "--out {path} is the model that the adapter needs; name another file":
        "--out {path} 是适配器所需的模型；请换一个文件名",
    "--checkpoint-dir {path} holds {name}, the model that the adapter needs, and would replace it; "
    "name another folder":
        "--checkpoint-dir {path} 中的 {name} 是适配器所需的模型，会被覆盖；请换一个文件夹",
}

ADAPTER_PARTS: dict[str, str] = {
    "the model that the adapter needs at this path": "此处已是适配器所需的模型",
    "another path": "另一个路径",
    "name another file": "请换一个文件名",
    "an adapter where a whole model is wanted": "适配器，而此处需要完整的模型",
    "load it with load_with_adapter(model, adapter) and save the two as one":
        "请用 load_with_adapter(model, adapter) 加载，再把二者存为一个模型",
    "a whole model where an adapter is wanted": "完整的模型，而此处需要适配器",
    "name the model first, the adapter second": "请先写模型，再写适配器",
    "an adapter for a model of another shape than {path}": "适配器，其模型的形状与 {path} 不同",
    "an adapter that was trained on other weights than those of {path}":
        "适配器，训练它时的权重与 {path} 的不同",
    "name the model that it was trained on": "请指定训练它时所用的模型",
    "the optimizer settings": "优化器设置",
    "the path of its model {value}": "其模型的路径 {value}",
    "a path": "路径",
    "{n} tensors of kind {kind}": "{n} 个 {kind} 类的张量",
    "those of the adapter's settings": "与适配器设置一致的张量",
}
