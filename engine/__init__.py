"""The engine: models, SAEs, ranking, edits, generation. Never imports textual."""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

# Read when torch is loaded. OpenMP's threads spin while they wait, and beside one busy process (the app, say) two
# spinning threads on two cores take seconds for a token that takes 40 ms alone. Waiting passively they take 70 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class EarlierNames(MetaPathFinder):
    """Says what to do where a script of an earlier saescope imports what has moved; asked after all other finders."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raises ModuleNotFoundError for a name that scripts used to import."""
        if name in ("engine.demo", "engine.sources"):
            raise ModuleNotFoundError(
                f"{name} is gone: an earlier saescope wrote this script. Let this one write it again (y on the text).",
                name=name,
            )


sys.meta_path.append(EarlierNames())
