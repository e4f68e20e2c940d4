"""The engine: models, SAEs, ranking, edits, generation. Never imports textual."""

import os

# Read when torch is loaded. OpenMP's threads spin while they wait, and beside one busy process (the app, say) two
# spinning threads on two cores take seconds for a token that takes 40 ms alone. Waiting passively they take 70 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
