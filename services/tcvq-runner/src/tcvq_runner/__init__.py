"""The `tcvq` command: recipes that take a spiking image generator from data to a report.

Light to import; the work is in ``tcvq_runner.recipe``, ``.stages`` and ``.pipeline``, which import torch.
"""

import importlib.metadata

__version__ = importlib.metadata.version("tcvq-runner")

__all__ = ["__version__"]
