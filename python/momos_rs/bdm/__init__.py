"""The Block Decomposition Method: a drop-in for pybdm 0.1.0, computed in Rust.

``import momos_rs.bdm as pybdm`` is all that has to change. The names of modules are pybdm's.
"""

from . import algorithms, encoding, exceptions, options, partitions, utils
from .algorithms import PerturbationExperiment
from .bdm import BDM
from .exceptions import BDMConfigurationError, BDMRuntimeWarning, CTMDatasetNotFoundError
from .partitions import PartitionCorrelated, PartitionIgnore, PartitionRecursive
from .signs import sign_bdm, sign_complexity

__all__ = [
    "BDM",
    "BDMConfigurationError",
    "BDMRuntimeWarning",
    "CTMDatasetNotFoundError",
    "PartitionCorrelated",
    "PartitionIgnore",
    "PartitionRecursive",
    "PerturbationExperiment",
    "algorithms",
    "encoding",
    "exceptions",
    "options",
    "partitions",
    "sign_bdm",
    "sign_complexity",
    "utils",
]
