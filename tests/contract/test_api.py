"""What the API says of itself is what it does: every route is declared, and every answer is of its schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from llamarig.api.openapi import OPERATIONS, Operation, document
from llamarig.api.reads import Reads
from llamarig.api.work import Work
from llamarig.daemon.job import Job
from llamarig.daemon.request import Kind, Request
from llamarig.errors import CancelledError, NotFoundError, SwitchError
from tests.unit.api.world import JSON, Said, World, broken, world
from tests.unit.daemon.acting import SECONDS

DOCUMENT = document()
# What any request may get, whatever it asks for; the guards' own tests provoke each of them.
GUARDS = {"401", "403", "408", "413", "415", "421", "429", "503"}
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@pytest.fixture
def api() -> Iterator[World]:
    with world() as found:
        yield found


def declared(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return found


def check(operation: Operation, said: Said) -> None:
    """See that an answer is declared, and of its schema."""
    answers = declared(operation)["responses"]
    assert str(said.status) in answers, (
        f"{operation.method} {operation.path} does not say that it may answer {said.status}"
    )
    content = answers[str(said.status)].get("content")
    if content is None:
        assert said.data is None
        return
    ((kind, described), *_) = content.items()
    schema = {**described["schema"], "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(schema).validate(said.data)
    assert said.headers["content-type"].partition(";")[0] == kind


def test_every_function_that_answers_is_declared_and_every_declared_one_is_there() -> None:
    found = [
        name
        for kind in (Reads, Work)
        for name, what in vars(kind).items()
        if inspect.iscoroutinefunction(what) and not name.startswith("_")
    ]
    assert sorted(found) == sorted(operation.name for operation in OPERATIONS)


def test_nothing_is_declared_twice() -> None:
    places = [(operation.method, operation.path) for operation in OPERATIONS]
    assert len(set(places)) == len(places)


def test_the_document_is_what_readers_of_openapi_expect() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    jsonschema_rs.meta.validate(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": DOCUMENT["components"]["schemas"]}
    )
    references = {text.partition('"')[0] for text in json.dumps(DOCUMENT).split('"#/components/schemas/')[1:]}
    assert references == DOCUMENT["components"]["schemas"].keys(), "every schema is used, and every used one is there"


@each_operation
def test_what_changes_something_needs_the_right_to_it(operation: Operation) -> None:
    assert (operation.scope == "manage") == (operation.method in {"POST", "DELETE"})
    assert (operation.scope == "open") == (operation.path in {"/healthz", "/ui"})
    assert declared(operation)["x-scope"] == operation.scope
    assert bool(operation.body) == (operation.method == "POST")


@each_operation
def test_fields_of_a_path_are_declared(operation: Operation) -> None:
    parameters = declared(operation)["parameters"]
    assert [item["name"] for item in parameters if item["in"] == "path"] == operation.fields
    for item in operation.query:
        assert "default" in item.schema
        assert item.description


def ended(api: World, how: BaseException | None) -> None:
    api.ask("POST", "/switch?wait=false", {"model": "chat"})
    api.acting.end(how)
    (job,) = api.jobs.all()
    api.jobs.wait(job.id, SECONDS)


def a_failure() -> SwitchError:
    return SwitchError("code did not load", "llamarig logs code", "chat", ["bad magic"])


def prepare(api: World, operation: Operation, status: int) -> str:
    """Bring the API to where an operation answers so; returns the path to ask for."""
    path = operation.path.replace("{service}", "nothing" if status == 404 else "chat")
    if status == 400:
        return f"{path.replace('{job}', 'x')}?strange=1"
    if status == 500:
        api.board.trouble = broken()
        api.board.status = api.board.models = api.board.version = api.board.services  # type: ignore[method-assign]
        api.server._providers.desk.jobs = api.server._providers.desk.job = api.board.services  # type: ignore[method-assign, assignment]
        api.server._providers.gauges.gpus = api.server._providers.gauges.system = api.board.services  # type: ignore[method-assign]
        api.metrics.text = lambda: api.board.services()["text"]  # type: ignore[method-assign]
        api.samples.recent = lambda seconds: api.board.services()  # type: ignore[method-assign]  # noqa: ARG005
        api.logs.lines = lambda *_: api.board.services()["lines"]  # type: ignore[method-assign]
    if "{job}" in path and status != 404:
        if operation.name == "cancel" and status == 202:
            api.ask("POST", "/switch?wait=false", {"model": "chat"})
        else:
            ended(api, a_failure())
        (job,) = api.jobs.all()
        path = path.replace("{job}", job.id)
    return path.replace("{job}", "nothing")


def work(api: World, operation: Operation, status: int) -> Said:
    """Ask for work so that it ends as it should."""
    body: dict[str, Any] = {"model": "chat"} if operation.name != "reconcile" else {}
    if status == 409:
        api.ask("POST", "/switch?wait=false", {"model": "chat"})
        api.acting.wait_for_start()
        refused = api.ask("POST", operation.path, {**body, "queue": False})
        check(operation, refused)
        api.acting.end()
        body["queue"] = True
    ends: dict[int, BaseException | None] = {
        404: NotFoundError("there is no chat any more"),
        409: CancelledError("it was cancelled", "", None, []),
        502: a_failure(),
    }
    api.acting.end(ends.get(status))
    query = "?wait=false" if status == 202 else "?strange=1" if status == 400 else ""
    return api.ask("POST", operation.path + query, body)


STATUSES = [
    (operation, int(status))
    for operation in OPERATIONS
    for status in declared(operation)["responses"]
    if status not in GUARDS and not (operation.events and status in {"200", "204"} and operation.name != "logs")
]


@pytest.mark.parametrize(
    ("operation", "status"), STATUSES, ids=[f"{operation.name}-{status}" for operation, status in STATUSES]
)
def test_every_answer_is_of_its_schema(api: World, operation: Operation, status: int) -> None:
    api.board.events = [{"time": 1.0, "kind": "switch", "outcome": "ok"}]
    if operation.body:
        said = work(api, operation, status)
    else:
        said = api.ask(operation.method, prepare(api, operation, status), headers=JSON)
    assert said.status == status
    check(operation, said)


def test_events_are_of_their_schemas(api: World) -> None:
    def of(name: str, data: Any) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
        jsonschema_rs.Draft202012Validator(schema).validate(data)

    with api.events("/events") as events:
        name, data = (events.next() or (None, "", None))[1:]
        assert name == "status"
        of("Status", data)
        api.ask("POST", "/switch?wait=false", {"model": "code"})
        of("Job", (events.next("job") or (None, "", None))[2])
        api.board.events.append({"time": 1.0, "kind": "switch", "outcome": "ok"})
        of("Event", (events.next("history") or (None, "", None))[2])


def test_a_job_has_just_the_fields_that_are_declared() -> None:
    job = Job.of(Request(Kind.SWITCH, "chat"), "x", 1.0).to_dict()
    assert job.keys() == DOCUMENT["components"]["schemas"]["Job"]["properties"].keys()
