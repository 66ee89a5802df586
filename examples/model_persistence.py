"""Save a model, load it, go on training it.

    python examples/model_persistence.py save       train a small model and save it in both formats
    python examples/model_persistence.py load       load it and let it speak
    python examples/model_persistence.py continue   load it, train it further, save it again

The files go to checkpoints/example.bin and exports/example.json of the current folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cgpt

BINARY = Path("checkpoints/example.bin")
JSON = Path("exports/example.json")
TEXTS = [
    "长江是中国最长的河流，全长约六千三百公里。",
    "黄河是中国第二长的河流，因水中泥沙多而呈黄色。",
    "泰山位于山东省，海拔一千五百多米。",
    "太阳从东方升起，从西方落下。",
    "一年有春、夏、秋、冬四个季节。",
    "水在零摄氏度时结冰，在一百摄氏度时沸腾。",
] * 4


def save() -> None:
    """Learn a vocabulary, train for a few seconds, save."""
    llm = cgpt.LLM.from_texts(TEXTS, cgpt.GPTConfig.preset("tiny"))
    result = cgpt.Trainer(llm, cgpt.TrainConfig(epochs=60, batch_tokens=256, lr=3e-3)).fit(TEXTS)
    llm.metadata["note"] = "made by examples/model_persistence.py"
    print(f"trained {result.steps} steps, loss {llm.loss(TEXTS):.4f}")
    for path in (cgpt.save_model_binary(llm, BINARY), cgpt.save_model_json(llm, JSON)):
        print(f"saved {path} ({path.stat().st_size / 1e6:.1f} MB)")


def load() -> None:
    """Load for speaking only: the weights are mapped from the file, nothing is copied."""
    llm = cgpt.load_model_binary(BINARY, training=False)
    print(
        f"{BINARY}: {len(llm.tokenizer)} words, {llm.n_parameters} parameters, "
        f"loss {llm.loss(TEXTS):.4f}, {llm.metadata['note']}"
    )
    for start in ("长江", "太阳", "水在"):
        print(start + llm.generate(start, max_new_tokens=30))


def go_on() -> None:
    """Load with the optimizer's state, train further, save over the old file."""
    llm = cgpt.load_model_binary(BINARY)
    before = llm.loss(TEXTS)
    cgpt.Trainer(llm, cgpt.TrainConfig(epochs=10, batch_tokens=256, lr=5e-4)).fit(TEXTS)
    print(f"loss {before:.4f} -> {llm.loss(TEXTS):.4f}")
    print(f"saved {cgpt.save_model_binary(llm, BINARY)}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = {"save": save, "load": load, "continue": go_on}
    parser.add_argument("action", choices=actions)
    try:
        actions[parser.parse_args().action]()
    except cgpt.CgptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
