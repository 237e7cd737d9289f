"""The reference page of the inventory, from the records that users write; its examples are planned as proof."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from llamarig.config.catalogue import ClientSettings, ModelFile, Profile, Speed
from llamarig.config.engine import PREFIX, Archive, Bases, BasesOfBackends, Engine, Package, Prebuilt, Source
from llamarig.config.host import HostIntent
from llamarig.config.owned import OWNED
from llamarig.config.records import Allowed, Gpu, Hardware, Record, Service
from llamarig.control.docs_table import DocsError, markdown_table
from llamarig.planning.intent import plan_host
from llamarig.planning.layers import BUILT_IN

# Variable, the field of HostIntent that it becomes (or what it is), and where it is usually written.
VARIABLES: Final = (
    ("host_hardware", "hardware", "`host_vars`"),
    ("llm_services", "services", "`host_vars`"),
    ("llm_default_service", "default_service", "`host_vars`"),
    ("llm_minimum_minutes", "minimum_minutes", "`host_vars`"),
    ("llm_hung_seconds", "hung_seconds", "`host_vars`"),
    ("llm_crash_limit", "crash_limit", "`host_vars`"),
    ("llm_crash_window_minutes", "crash_window_minutes", "`host_vars`"),
    ("llm_server_defaults", "server_defaults", "`group_vars/all/fleet.yml`"),
    ("fleet_models_dir", "models_dir", "`group_vars/all/fleet.yml`"),
    ("firewall_enabled", "firewall", "`host_vars`"),
    ("firewall_allow", "allowed", "`host_vars`"),
    ("agent_api_port", "management_port", "`host_vars`"),
    ("exporter_port", "exporter_port", "`host_vars`"),
)
_EXAMPLES: Final = {
    Hardware: """\
host_hardware:
  memory_mib: 65536
  cpu_threads: 16
  gpus:
    - name: rtx-4090
      uuid: GPU-8d1c5b4e-0000-4000-8000-000000000001
      model: NVIDIA GeForce RTX 4090
      memory_mib: 24564
      compute_capability: "8.9"
      pci_address: "0000:01:00.0"
      power_limit_watts: 350
""",
    Service: """\
llm_services:
  - name: chat
    profile: small-chat
    strategy: cpu
    port: 8080
  - name: shared
    profile: small-chat
    strategy: cpu
    port: 8090
    bind: 192.0.2.10
    api_key: "{{ vault_shared_api_key }}"
    idle_minutes: 30
    server: {ctx_size: 16384, parallel: 2, metrics: false}

llm_default_service: chat
llm_minimum_minutes: 5
""",
    Profile: """\
llm_profiles_small:
  small-chat:
    title: Small Chat Q4
    description: what it is good at, and what it costs
    files:
      - name: small/chat-q4.gguf
        url: https://hub.example.com/small/chat-q4.gguf
        bytes: 4294967296
        sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    capabilities: [tools]
    server: {ctx_size: 8192, temp: 0.7}
    clients:
      general: {temperature: 0.7, top_p: 0.8}
      coding: {temperature: 0.2}
    speeds:
      - tokens_per_second: 61.5
        hardware: RTX 5060, 32 GB
        layout: strategy A
        source: measured here, llama-server's own timings
        date: "2026-11-21"
  small-chat-long:
    based_on: small-chat
    description: the same with a longer context
    server: {ctx_size: 32768}
""",
    Allowed: """\
firewall_allow:
  - {port: 9100, sources: [192.0.2.0/24], comment: node exporter}
  - {port: 51820, protocol: udp, comment: WireGuard}
""",
    Engine: """\
llama_image_recipe: source
llama_image_backend: cpu
llama_image_bases:
  cpu: {build: mirror.example.com/ubuntu:24.04, runtime: mirror.example.com/ubuntu:24.04}
llama_image_source:
  repository: https://git.example.com/llama.cpp.git
  ref: v0.7.0
  version: 0.7.0
  commit: 0123456789abcdef0123456789abcdef01234567
  committed: 1780000000
""",
}
_SECTIONS: Final[tuple[tuple[type[Record], str], ...]] = (
    (Hardware, "`host_hardware`"),
    (Gpu, "an item of `host_hardware.gpus`"),
    (Service, "an item of `llm_services`"),
    (Profile, "an entry of `llm_profiles_<family>`"),
    (ModelFile, "an item of a profile's `files`, or its `mmproj`"),
    (ClientSettings, "an entry of a profile's `clients`"),
    (Speed, "an item of a profile's `speeds`"),
    (Allowed, "an item of `firewall_allow`"),
    (Engine, "variables of their own, `llama_image_` before each key"),
    (Source, "`llama_image_source`, in `group_vars/all/engine.yml`"),
    (Archive, "a source's `archive`"),
    (BasesOfBackends, "`llama_image_bases`, in `group_vars/all/versions.yml`"),
    (Bases, "an entry of `llama_image_bases`"),
    (Package, "`llama_image_package`, in `group_vars/all/versions.yml`"),
    (Prebuilt, "`llama_image_prebuilt`"),
)


def inventory(root: Path) -> str:
    """Return the reference of everything that an inventory says.

    Raises:
        ConfigError: an example of this page is no inventory that can be planned.

    """
    example()
    schema = HostIntent.model_json_schema()
    # A host that declares no services runs none; the record itself is always given the list.
    schema["properties"]["services"]["default"] = []
    schema["required"].remove("services")
    rows = [
        (f"`{name}`", *_field(schema, field, schema["$defs"])[0:2], where, _meaning(schema, field))
        for name, field, where in VARIABLES
    ]
    rows += [
        (
            f"`{PREFIX}<key>`",
            "a key of [Engine](#engine)",
            "",
            "`group_vars/all/`, or the inventory",
            "The engine, and what goes into its image.",
        ),
        (
            "`llm_profiles_<family>`",
            "mapping of name to [Profile](#profile)",
            "",
            "`group_vars/all/models/`",
            "A part of the catalogue. Parts are joined; the same name in two parts is an error.",
        ),
        (
            "`llm_shapes_<family>`",
            "mapping of name to shape",
            "",
            "`group_vars/all/models/shapes/`",
            "Shapes that profiles name, so that profiles stay readable; joined as the catalogue's parts are.",
        ),
        (
            "`fleet_layer_loaded`",
            "true",
            "",
            "`group_vars/all/fleet.yml`",
            "Proof that the inventory links group_vars; without it nothing is planned.",
        ),
    ]
    parts = ["## Variables", markdown_table(("variable", "type", "default", "written in", "meaning"), rows)]
    for record, what in _SECTIONS:
        parts.append(_section(record, what))
    return "\n\n".join([*parts, *_server_options(root)])


def example() -> dict[str, Any]:
    """Return the plan of the examples on this page."""
    text = re.sub(r"\{\{.*?\}\}", "0123456789abcdef", "\n".join(_EXAMPLES.values()))
    variables = {**yaml.safe_load(text), "fleet_layer_loaded": True, "fleet_models_dir": "/srv/llamarig/models"}
    return plan_host("gpu01", variables)


def _section(record: type[Record], what: str) -> str:
    schema = record.model_json_schema()
    rows = [
        (f"`{name}`", *_field(schema, name, schema.get("$defs", {})), _meaning(schema, name))
        for name in schema["properties"]
    ]
    text = f"## {record.__name__}\n\n{str(record.__doc__).strip()} Written as {what}.\n\n"
    text += markdown_table(("key", "type", "default", "meaning"), rows)
    if record in _EXAMPLES:
        text += f"\n\n```yaml\n{_EXAMPLES[record]}```"
    return text


def _field(schema: dict[str, Any], name: str, known: dict[str, Any]) -> tuple[str, str]:
    """Return type and default of one key."""
    field = schema["properties"][name]
    if name in schema.get("required", []):
        default = "required"
    else:
        default = "" if field["default"] is None else f"`{json.dumps(field['default'])}`"
    return _type(field, known), default


def _meaning(schema: dict[str, Any], name: str) -> str:
    text = schema["properties"][name].get("description")
    if not text:
        msg = f"the key {name} of {schema['title']} has no description"
        raise DocsError(msg, "add Field(description=...) in src/llamarig/config/")
    return str(text)


def _type(field: dict[str, Any], known: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return _type(known[name], known) if "enum" in known[name] else f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(part, known) for part in field["anyOf"] if part.get("type") != "null")
    if "enum" in field or "const" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        least = f", at least {field['minItems']}" if "minItems" in field else ""
        return f"list of {_type(field['items'], known)}{least}"
    values = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
    if field["type"] == "object" and isinstance(values[0], dict) and "$ref" in values[0]:
        return f"mapping of word to {_type(values[0], known)}"
    words = {"object": "mapping"}.get(field["type"], field["type"])
    limits = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "exclusiveMinimum": "more than {}",
        "minLength": "at least {} characters",
        "pattern": "matching `{}`",
    }
    return ", ".join([words, *(text.format(field[key]) for key, text in limits.items() if key in field)])


def _server_options(root: Path) -> list[str]:
    fleet = yaml.safe_load((root / "group_vars/all/fleet.yml").read_text(encoding="utf-8"))
    return [
        "## Server options",
        (
            "`server` takes every option of the pinned `llama-server`, as its long name in snake_case. They are checked"
            " against the recorded `--help` of that engine. A switch takes true or false; an option that takes a value"
            " takes a value, or a list where it may be repeated."
        ),
        (
            "Layers, the weakest first: built-in, profile, strategy, fleet (`llm_server_defaults`), service. A later"
            " layer replaces the whole value; `null` takes the option away. `llamarig plan <service>` shows the layer"
            " that had the last word on each option."
        ),
        f"The fleet layer in this checkout: `{json.dumps(fleet['llm_server_defaults'])}`.",
        "The built-in layer:",
        markdown_table(
            ("option", "value"), [(f"`{key}`", f"`{json.dumps(value)}`") for key, value in sorted(BUILT_IN.items())]
        ),
        "Options that cannot be set, and why:",
        markdown_table(
            ("option", "why"), [(f"`{key.replace('-', '_')}`", reason) for key, reason in sorted(OWNED.items())]
        ),
    ]
