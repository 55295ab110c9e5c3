"""The paper's experiments as recipes: data, models, training runs, sweeps and their pictures.

>>> from momos_rs.experiments import RunConfig, train
>>> result = train(RunConfig(model="mlp", data="digits", s=4, capacity=0.05))  # doctest: +SKIP
>>> result.summary["test_accuracy"]                                            # doctest: +SKIP
"""

from .config import RunConfig
from .recipes import RECIPES, recipe
from .trainer import RunResult, train

__all__ = ["RECIPES", "RunConfig", "RunResult", "recipe", "train"]
