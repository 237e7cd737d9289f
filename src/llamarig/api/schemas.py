"""What goes over the wire, as JSON schemas (2020-12): the components of the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
NUMBER: Final[Schema] = {"type": "number"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
ANYTHING: Final[Schema] = {"type": "object"}
# A service's name, as a plan takes it.
SERVICE: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 64}


def reference(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(name: str) -> Schema:
    """Return a list of a component."""
    return {"type": "array", "items": reference(name)}


def mapped(schema: Schema) -> Schema:
    """Return an object of any names with values of one kind."""
    return {"type": "object", "additionalProperties": schema}


def maybe(schema: Schema) -> Schema:
    """Return what may be null too."""
    return {"anyOf": [schema, {"type": "null"}]}


def answer(**properties: Schema) -> Schema:
    """Return an object that has all of these, and may have more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def body(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """Return an object that may have these, and nothing else."""
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


def also(schema: Schema, **properties: Schema) -> Schema:
    """Return an object with more properties that it may have."""
    return {**schema, "properties": {**schema["properties"], **properties}}


_STATE: Final[Schema] = {"enum": ["idle", "starting", "running", "stopping"]}
_QUEUE: Final[Schema] = {**FLAG, "description": "Whether it may wait for what is under way."}

_FIGURES: Final[Schema] = {"type": "array", "items": maybe(NUMBER)}

SCHEMAS: Final[dict[str, Schema]] = {
    "Error": also(
        answer(error=TEXT, remedy=TEXT),
        state=_STATE,
        job=maybe(reference("Job")),
    ),
    "Switch": body(
        ("model",),
        model={**SERVICE, "description": "The service that is to serve."},
        now={**FLAG, "description": "Whether it may end what has not served its minimum yet."},
        queue=_QUEUE,
    ),
    "Stop": body(
        model={**SERVICE, "description": "The service that is to end; without it, all of them."},
        queue={**_QUEUE, "default": True},
    ),
    "Reconcile": body(
        adopt={**FLAG, "description": "Whether what serves gets its present spec."},
        queue={**_QUEUE, "default": True},
    ),
    "Model": answer(id=TEXT, name=TEXT, speed=TEXT, ctx_size=TEXT, is_bench=FLAG, active=FLAG),
    "Models": answer(models=listed("Model")),
    "JobError": answer(message=TEXT, remedy=TEXT, serving=maybe(TEXT), log_lines=TEXTS, exit_code={"type": "integer"}),
    "Job": answer(
        id=TEXT,
        kind={"enum": ["switch", "stop", "reconcile"]},
        service=maybe(TEXT),
        origin=TEXT,
        reason=TEXT,
        state={"enum": ["queued", "running", "succeeded", "failed", "cancelled"]},
        phase=TEXT,
        phases=mapped(NUMBER),
        text=TEXT,
        submitted=NUMBER,
        started=maybe(NUMBER),
        finished=maybe(NUMBER),
        outcome=maybe(ANYTHING),
        error=maybe(reference("JobError")),
    ),
    "JobAnswer": answer(job=reference("Job")),
    "Jobs": answer(jobs=listed("Job")),
    "Done": answer(
        success={"const": True},
        model=maybe(TEXT),
        model_name=TEXT,
        state=_STATE,
        job=reference("Job"),
    ),
    "Failed": answer(
        success={"const": False},
        error=TEXT,
        remedy=TEXT,
        model=maybe(TEXT),
        model_name=TEXT,
        state=_STATE,
        log_lines=TEXTS,
        job=reference("Job"),
    ),
    "Active": answer(
        service=TEXT,
        profile=TEXT,
        name=TEXT,
        url=TEXT,
        port=COUNT,
        health={"enum": ["ok", "loading", "hung", "failing", "down", "unknown"]},
        reason=TEXT,
        since=NUMBER,
        pinned=FLAG,
        idle_seconds=maybe(COUNT),
        in_flight=maybe(COUNT),
        restarts=maybe(COUNT),
        version=TEXT,
        planned=FLAG,
    ),
    "GivenUp": answer(time=NUMBER, reason=TEXT),
    "Version": answer(version=TEXT, release=maybe(TEXT), host=TEXT),
    "Status": answer(
        model=maybe(TEXT),
        model_name=TEXT,
        state=_STATE,
        status=TEXT,
        active=listed("Active"),
        default=maybe(TEXT),
        stopped=FLAG,
        job=maybe(reference("Job")),
        queue=listed("Job"),
        given_up=mapped(reference("GivenUp")),
        warnings=TEXTS,
        agent=reference("Version"),
        time=NUMBER,
    ),
    "Service": answer(
        service=TEXT,
        profile=TEXT,
        name=TEXT,
        description=TEXT,
        speed=TEXT,
        context=maybe(COUNT),
        strategy=TEXT,
        is_bench=FLAG,
        url=TEXT,
        port=COUNT,
        active=FLAG,
        pinned=FLAG,
        default=FLAG,
        state=TEXT,
        memory=maybe(ANYTHING),
        leaves=TEXTS,
    ),
    "Services": answer(services=listed("Service")),
    "Plan": answer(
        service=TEXT,
        active=FLAG,
        leaves=TEXTS,
        stays=TEXTS,
        refused=maybe(TEXT),
        remedy=TEXT,
        memory=maybe(ANYTHING),
        url=TEXT,
    ),
    "Log": answer(
        service=TEXT, lines={**TEXTS, "description": "Of each 4 KiB at most; a mark says where the rest is left out."}
    ),
    "Event": answer(time=NUMBER, kind=TEXT, outcome=TEXT),
    "History": answer(events=listed("Event")),
    "Gpus": answer(gpus={"type": "array", "items": ANYTHING}, age_seconds=maybe(NUMBER), error=maybe(TEXT)),
    "CardSamples": answer(
        uuid=TEXT,
        name=TEXT,
        memory_mib=NUMBER,
        power_limit_w=maybe(NUMBER),
        used_mib=_FIGURES,
        utilisation=_FIGURES,
        power_w=_FIGURES,
        temperature_c=_FIGURES,
    ),
    "Samples": answer(
        every_seconds=NUMBER,
        time=NUMBER,
        times={"type": "array", "items": {"type": "integer"}},
        gpus=listed("CardSamples"),
    ),
    "Text": TEXT,
    "System": answer(
        cpu=maybe(NUMBER),
        load=maybe({"type": "array", "items": NUMBER}),
        memory=maybe(mapped(NUMBER)),
        swap=maybe(mapped(NUMBER)),
        services=mapped(ANYTHING),
    ),
    "Health": answer(ok=FLAG),
    "Document": answer(openapi=TEXT, info=ANYTHING, paths=ANYTHING),
}


def mistake(schema: Schema, value: object) -> str:
    """Say what is wrong with a body, by a schema of those above; nothing where it is right."""
    if not isinstance(value, dict):
        return "the body is no JSON object"
    missing = [name for name in schema["required"] if name not in value]
    if missing:
        return f"the field {missing[0]!r} is missing"
    strange = [name for name in value if name not in schema["properties"]]
    if strange:
        return f"there is no field {strange[0]!r}: there are {', '.join(schema['properties'])}"
    found = (_mistake(name, schema["properties"][name], item) for name, item in value.items())
    return next(filter(None, found), "")


def _mistake(name: str, schema: Schema, value: object) -> str:
    if schema["type"] == "boolean":
        return "" if isinstance(value, bool) else f"the field {name!r} is neither true nor false"
    if not isinstance(value, str):
        return f"the field {name!r} is no text"
    if not schema["minLength"] <= len(value) <= schema["maxLength"]:
        return f"the field {name!r} has {len(value)} characters, and may have up to {schema['maxLength']}"
    return ""
