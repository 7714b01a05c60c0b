"""What can be typed after `headrace`: one file a command or group, each with its own `add`."""

from __future__ import annotations

from proxy.commands import fetch, keys, plan_gpu, record, report, routes, serve, top

COMMANDS = (serve, routes, plan_gpu, fetch, record, report, keys, top)
"""In the order in which the help shows them."""
