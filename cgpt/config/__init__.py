"""The configurations of models, training, sampling and runs: frozen, validated once.

Each option is declared once: of a model's shape in `model.py`, of training in `training.py`, of
sampling in `sampling.py`, of a run's data in `run.py`. Flags, TOML, environment, JSON and
validation follow from the declaration. The package may import `validation` and what lies below
it. Begin with `declaration.py`.
"""

from cgpt.config.declaration import ABOVE_0, BELOW_1, COUNT, MAX_THREADS, POSITIVE, SHARE
from cgpt.config.model import (
    KINDS,
    MAX_BLOCK_SIZE,
    MAX_VOCAB_SIZE,
    PRESETS,
    SHAPE,
    WEIGHT_DTYPES,
    GPTConfig,
)
from cgpt.config.run import CHECKPOINTS, EXPORTS, MAX_MIX, SAMPLE_EVERY, STRATEGIES, RunConfig
from cgpt.config.sampling import MAX_BIAS, SamplingConfig
from cgpt.config.training import (
    EARLIER_WARMUP,
    EMBEDDING_RATES,
    LEARNING_RATES,
    LOSS_ON,
    MOST_WARMUP,
    OPTIMIZERS,
    SCHEDULES,
    TOO_LONG,
    TUNED_WIDTH,
    WINDOWS,
    TrainConfig,
    default_lr,
    default_warmup,
)

__all__ = [
    "ABOVE_0",
    "BELOW_1",
    "CHECKPOINTS",
    "COUNT",
    "EARLIER_WARMUP",
    "EMBEDDING_RATES",
    "EXPORTS",
    "KINDS",
    "LEARNING_RATES",
    "LOSS_ON",
    "MAX_BIAS",
    "MAX_BLOCK_SIZE",
    "MAX_MIX",
    "MAX_THREADS",
    "MAX_VOCAB_SIZE",
    "MOST_WARMUP",
    "OPTIMIZERS",
    "POSITIVE",
    "PRESETS",
    "SAMPLE_EVERY",
    "SCHEDULES",
    "SHAPE",
    "SHARE",
    "STRATEGIES",
    "TOO_LONG",
    "TUNED_WIDTH",
    "WEIGHT_DTYPES",
    "WINDOWS",
    "GPTConfig",
    "RunConfig",
    "SamplingConfig",
    "TrainConfig",
    "default_lr",
    "default_warmup",
]
