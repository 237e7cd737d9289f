"""Options of llama-server that are not for users to set, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Said by the record's own keys or computed by the planner, so a second voice could only contradict.
OWNED: Final[Mapping[str, str]] = {
    "model": "comes from the profile's files",
    "host": "is set by the service's bind",
    "port": "is set by the service's port",
    "api-key": "is set by the service's api_key, and never put on a command line",
    "api-key-file": "is set by the service's api_key",
    "api-prefix": "would move the paths that the agent asks for health and completions",
    "ssl-key-file": "the agent speaks plain HTTP to its own engine; put TLS in front of it",
    "ssl-cert-file": "the agent speaks plain HTTP to its own engine; put TLS in front of it",
    "gpu-layers": "is decided by the strategy; a number here would end --fit in silence",
    "device": "is decided by the strategy and gpus",
    "split-mode": "is decided by the strategy",
    "tensor-split": "is decided by the strategy and blocks: caches follow it, and weights that --override-tensor moves",
    "main-gpu": "is decided by gpus: a server sees no other cards",
    "override-tensor": "is decided by the strategy and blocks: a pattern that matches nothing is silent",
    "cpu-moe": "is decided by the strategy",
    "n-cpu-moe": "is decided by the strategy and blocks",
    "n-cpu-ffn": "is decided by the strategy and blocks",
    "fit": "is decided by the strategy",
    "fit-target": "is decided by the strategy, for each card by its own reserve_mib",
    "fit-ctx": "is decided by the strategy: a context that was asked for is not shortened in silence",
    "rpc": "is decided by the strategy",
    "mmproj": "comes from the profile's mmproj where the service says vision: true",
    "mmproj-url": "comes from the profile's mmproj, with a checksum",
    "log-jsonl": "is always on: the agent reads the log",
    "log-file": "the log goes to the journal",
    "hf-repo": "models come from the profile's files, with a checksum",
    "hf-token": "models come from the profile's files; no token belongs on a command line",
    "hf-file": "models come from the profile's files, with a checksum",
    "model-url": "models come from the profile's files, with a checksum",
    "docker-repo": "models come from the profile's files, with a checksum",
    "help": "prints something and ends",
    "version": "prints something and ends",
    "cache-list": "prints something and ends",
    "list-devices": "prints something and ends",
    "completion-bash": "prints something and ends",
    "models-dir": "a service serves one model; llamarig does the switching",
    "models-preset": "a service serves one model; llamarig does the switching",
}
