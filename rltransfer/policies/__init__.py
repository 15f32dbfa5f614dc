"""Policy networks."""

from __future__ import annotations

from rltransfer.policies.network import Network, conv, mlp

__all__ = ["Network", "conv", "mlp"]
