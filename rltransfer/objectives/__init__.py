"""How far a student is from its teacher."""

from __future__ import annotations

# Loaded with the package: each class of terms makes its own name known to the text of objectives.
from rltransfer.objectives import features as features
from rltransfer.objectives import outputs as outputs
