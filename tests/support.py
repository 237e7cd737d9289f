"""What many tests begin with: a host's variables, a spec, a host's directories, the role's templates rendered."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from llamarig.config import paths
from llamarig.config.spec import Spec, SpecFile
from llamarig.errors import ConfigError, Problem
from llamarig.planning.intent import plan_host

ROOT = Path(__file__).resolve().parents[1]
HOST = "rig01"
KEY = "not-a-real-key-0123456789"
MODEL = b"GGUF of a model"

ENGINE = {
    "image": "llamarig/llama-cpp:test",
    "version": "0.7.0",
    "ref": "0.7.0",
    "commit": None,
    "backend": "cpu",
    "prebuilt": None,
}

_VARIABLES: dict[str, Any] = {
    "fleet_layer_loaded": True,
    "fleet_models_dir": "/srv/llamarig/models",
    "llm_server_defaults": {},
    "llm_profiles_test": {
        "small": {
            "description": "a small one",
            "files": [{"name": "small.gguf", "bytes": 1 << 20, "sha256": "a" * 64}],
            "server": {"ctx_size": 4096},
        }
    },
    "llama_image_recipe": "debian-package",
    "llama_image_package": {"suite": "sid", "version": "0.7.0", "packages": ["llama.cpp-tools"]},
    "host_hardware": {"memory_mib": 4096, "cpu_threads": 4, "reserve_mib": 512},
    "llm_services": [{"name": "chat", "profile": "small", "strategy": "cpu", "port": 8080}],
}


def variables(**changes: Any) -> dict[str, Any]:
    """A host's variables that plan without a problem; ``service`` changes the one service, the rest replaces."""
    result = copy.deepcopy(_VARIABLES)
    result["llm_services"][0] |= changes.pop("service", {})
    return result | changes


def without(data: dict[str, Any], *path: str | int) -> dict[str, Any]:
    """A copy of variables that lacks one place."""
    result = copy.deepcopy(data)
    place: Any = result
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    return result


def problems(data: dict[str, Any], host: str = HOST) -> list[Problem]:
    """Plan what must be refused, and return why it is."""
    try:
        plan_host(host, data)
    except ConfigError as error:
        return error.problems
    msg = "the plan was accepted"
    raise AssertionError(msg)


def argv_of(data: dict[str, Any]) -> list[str]:
    """Plan and return the arguments of the first service."""
    argv: list[str] = plan_host(HOST, data)["specs"][0]["argv"]
    return argv


def after(argv: list[str], option: str) -> str:
    """Return the word after an option."""
    return argv[argv.index(option) + 1]


def make_spec(service: str = "chat", **changes: Any) -> Spec:
    """A hashed spec of a service whose model is ``MODEL``."""
    model = SpecFile(f"/srv/llamarig/models/{service}.gguf", len(MODEL), hashlib.sha256(MODEL).hexdigest())
    values: dict[str, Any] = {
        "host": HOST,
        "service": service,
        "profile": "small",
        "description": "a small one",
        "strategy": "cpu",
        "reason": "everything on the CPU",
        "image": "llamarig/llama-cpp:test",
        "bind": "127.0.0.1",
        "port": 8080,
        "models_dir": "/srv/llamarig/models",
        "files": [model],
        "argv": ["--model", f"/models/{service}.gguf"],
        "memory_mib": 1024,
        "load_timeout_seconds": 60,
        "drain_seconds": 5,
        "api_key_file": None,
        "api_key_sha256": None,
        "origins": {"ctx_size": {"value": 4096, "layer": "profile"}},
    }
    return Spec(**values | changes).hashed()


def provision(root: Path, *specs: Spec, default: str | None = None) -> None:
    """Write below ``root`` what the playbook leaves on a host: specs, compose projects, models, host file."""
    for directory in (paths.ETC, paths.STATE):
        below(root, directory).mkdir(parents=True, exist_ok=True)
    for spec in specs:
        contents = {
            f"{paths.SPECS}/{spec.service}.json": json.dumps(spec.to_dict()).encode(),
            f"{paths.COMPOSE}/{spec.service}/compose.yaml": f"# compose of {spec.spec_sha256}\n".encode(),
            **{item.path: MODEL for item in spec.files},
        }
        for path, content in contents.items():
            below(root, path).parent.mkdir(parents=True, exist_ok=True)
            below(root, path).write_bytes(content)
    if default is not None:
        host = {"schema_version": 1, "default_service": default}
        below(root, paths.HOST_FILE).write_text(json.dumps(host), encoding="utf-8")


def below(root: Path, absolute: str) -> Path:
    """Return an absolute path of a host below ``root``."""
    return root / absolute.lstrip("/")


_TEMPLAR = Templar(loader=DataLoader(), variables={})


def render(entry: dict[str, Any], role: str = "llama_service") -> str:
    """Render one entry of a role's manifest as plugins/action/manifest.py does."""
    templates = ROOT / "templates" / role
    templar = _TEMPLAR.copy_with_new_env(searchpath=[str(templates)], available_variables=entry.get("vars", {}))
    text = trust_as_template((templates / entry["template"]).read_text(encoding="utf-8"))
    overrides = {"trim_blocks": True, "lstrip_blocks": True}
    return str(templar.template(text, escape_backslashes=False, overrides=overrides))


def rendered(plan: dict[str, Any]) -> dict[str, str]:
    """Return every file of a plan's manifest, by its path on the host."""
    manifest = plan["manifest"]
    return {entry["path"]: render(entry) for entry in manifest["files"]} | {
        entry["path"]: entry["content"] for entry in manifest["secrets"]
    }


def rendered_file(plan: dict[str, Any], path: str) -> str:
    """Return one file of a plan's manifest."""
    (entry,) = (entry for entry in plan["manifest"]["files"] if entry["path"] == path)
    return render(entry)


class ComposeLoader(yaml.SafeLoader):
    """PyYAML, with the numbers that docker compose's YAML (1.2, go-yaml) also takes unquoted for numbers.

    PyYAML writes and reads YAML 1.1, to which ``1e-05`` and ``0o17`` are strings. Compose reads numbers, and refuses
    a command with one.
    """


ComposeLoader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
ComposeLoader.add_implicit_resolver(
    "!number",
    re.compile(r"^[-+]?(0[xob][0-9A-Fa-f_]+|(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9_]+)?)$"),
    list("-+.0123456789"),
)
ComposeLoader.add_constructor("!number", lambda _, node: ("number", node.value))


def compose_command(text: str) -> list[Any]:
    """Read a compose file's command as compose does: YAML, then ``$$`` is a dollar."""
    command = yaml.load(text, ComposeLoader)["services"]["server"]["command"]  # noqa: S506  a SafeLoader
    return [word.replace("$$", "$") if isinstance(word, str) else word for word in command]
