"""Text that users write, parsed as Python expressions and never executed."""

from __future__ import annotations

LARGEST = 1e38
"""What a number must be below, to be finite in float32."""
