"""The engine: models, SAEs, ranking, edits, generation. Never imports textual."""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

# Read when torch is loaded. By default OpenMP's threads spin while they wait: beside one busy process (say, the app)
# two such threads on two cores take seconds for a token that takes 40 ms alone. If they wait passively, it takes 70 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class EarlierNames(MetaPathFinder):
    """The last import finder: explains to scripts of an earlier saescope what to do about modules that have moved."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raise ModuleNotFoundError for a module that scripts of an earlier saescope imported; else find nothing."""
        if name in ("engine.demo", "engine.sources"):
            raise ModuleNotFoundError(
                f"{name} is gone: an earlier saescope wrote this script. Let this one write it again (y on the text).",
                name=name,
            )


sys.meta_path.append(EarlierNames())
