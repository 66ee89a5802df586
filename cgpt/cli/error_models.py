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
}

MODEL_PARTS: dict[str, str] = {
    "an optimizer (cgpt.AdamW, cgpt.Muon)": "优化器（cgpt.AdamW、cgpt.Muon）",
    "an optimizer whose moments belong to one that was made for the model later":
        "优化器的动量已归此后为该模型建立的另一个优化器所有",
    "the one that trains the model": "正在训练该模型的优化器",
    "set llm.optimizer to that one, or leave it out: optimizer=False":
        "请把 llm.optimizer 设为那个优化器，或不存优化器: optimizer=False",
}
