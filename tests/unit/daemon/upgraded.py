"""A host in memory that is provisioned with one engine after the other, and can go back. Its files are real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.chores import Chores
from llamarig.daemon.generation import MARK, GenerationStore
from llamarig.daemon.request import Kind, Origin, Outcome
from llamarig.daemon.rollback import Back, Rollback
from tests.support import below, make_spec
from tests.unit.daemon.fakes import FakeUnits, Host

OLD, NEW, NEWEST = (f"llamarig/llama-cpp:{name}" for name in ("old", "new", "newest"))


class Units(FakeUnits):
    """Leaves a version of whatever it starts, as the unit's engine-begin does."""

    def start(self, service: str) -> None:
        super().start(service)
        spec = self.units[service].spec
        if spec is not None:
            place = below(self.host.root, f"{paths.VERSIONS}/{service}/{spec.spec_sha256}/spec.json")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(spec.to_dict()), encoding="utf-8")


class Box(Host):
    """A host that is provisioned as the role does it: units and slices too, and what is no longer planned goes."""

    def __init__(self, root: Path, image: str = OLD) -> None:
        self.images = {OLD, NEW, NEWEST}
        self.reloads = 0
        self.before_effect: Callable[[], None] = lambda: None
        super().__init__(root)
        self.units: Units = Units(self)
        self.plan(image)

    def effect(self, what: str) -> None:
        super().effect(what)
        self.before_effect()

    def plan(self, image: str, *names: str, **changes: Any) -> None:
        """Write what a plan with an engine says; alpha and beta where no service is named."""
        specs = [
            make_spec(name, image=image, port=8080 + n, **changes) for n, name in enumerate(names or ("alpha", "beta"))
        ]
        for kept in (*below(self.root, paths.SPECS).glob("*.json"), *below(self.root, paths.UNITS).glob("llama-*")):
            if not any(spec.service in kept.name for spec in specs):
                kept.unlink()
        for kept in below(self.root, paths.COMPOSE).glob("*"):
            if kept.name not in {spec.service for spec in specs}:
                shutil.rmtree(kept)
        self.provision(*specs, default=specs[0].service)
        for spec in specs:
            for kind in ("service", "slice"):
                self.write(f"{paths.UNITS}/llama-{spec.service}.{kind}", f"{MARK}\n# for {spec.image}\n")
        host = {"schema_version": 1, "default_service": specs[0].service, "engine": {"image": image}}
        self.write(paths.HOST_FILE, json.dumps(host))

    def write(self, path: str, text: str) -> None:
        below(self.root, path).parent.mkdir(parents=True, exist_ok=True)
        below(self.root, path).write_text(text, encoding="utf-8")

    def converge(self, image: str, *names: str, **changes: Any) -> None:
        """Do what site.yml does with an engine."""
        self.plan(image, *names, **changes)
        self.adopt()

    def adopt(self) -> None:
        """Do what llamarig reconcile does."""
        self.perform(Kind.RECONCILE, adopt=True, origin=Origin.PLAYBOOK)
        self.chores.run()

    def back(self, to: str | None = None, *, dry: bool = False) -> Back:
        def reload() -> None:
            self.before_effect()
            self.reloads += 1

        asked = Asked(self)
        return Rollback(self.store, asked, self.chores, self.images.__contains__, reload, now=self.clock).run(
            to, dry=dry
        )

    @property
    def chores(self) -> Chores:
        return Chores(self.root, now=self.clock, sleep=self.clock.sleep)

    @property
    def store(self) -> GenerationStore:
        return GenerationStore(self.root)

    def images_now(self) -> dict[str, str]:
        """The engine that each service which serves really runs."""
        specs: dict[str, Spec | None] = {name: self.units.units[name].spec for name in self.serving()}
        return {name: spec.image for name, spec in specs.items() if spec is not None}

    def whole(self) -> str:
        """The engine of every file of the host, which is one; the generation that is current is these files."""
        files = self.store.files()
        (image,) = self.store.images(files)
        current = self.store.current()
        assert current is not None
        assert (current.image, current.files) == (image, files)
        assert all(image in file.text for path, file in files.items() if path.startswith(paths.UNITS))
        assert json.loads(files[paths.HOST_FILE].text)["engine"]["image"] == image
        return image

    def files(self) -> dict[str, bytes]:
        """Everything on the host's disk but what the daemon keeps for itself."""
        found = (path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())
        every = {f"/{path.relative_to(self.root)}": path.read_bytes() for path in found}
        return {path: data for path, data in every.items() if not path.startswith((paths.RUN, paths.DAEMON_STATE))}


class Asked:
    """The daemon, for a way back."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def switch(self, service: str) -> Outcome:
        return self.box.perform(Kind.SWITCH, service, origin=Origin.CLI, now=True)

    def reconcile(self) -> Outcome:
        return self.box.perform(Kind.RECONCILE, adopt=True, origin=Origin.CLI)


@contextmanager
def interrupted(box: Box) -> Iterator[None]:
    """Let somebody type Ctrl-C while the first thing that is asked of the daemon is under way."""
    perform = box.perform

    def ended(*_: object, **__: object) -> Outcome:
        box.perform = perform  # type: ignore[method-assign]
        raise KeyboardInterrupt

    box.perform = ended  # type: ignore[method-assign]
    yield
    box.perform = perform  # type: ignore[method-assign]
