"""After the first converge: built on one host, handed to the other, and never again."""

from __future__ import annotations

from tests.acceptance.box import Box, changes, playbook
from tests.acceptance.engine.engine import ARCHIVES, archive_here, bring, images, layers, planned


def test_the_host_that_built_nothing_serves(node: Box) -> None:
    assert len(set(node.answers(8080))) > 1
    assert node.attempt("command -v mmdebstrap").returncode != 0
    assert node.attempt("sudo ls /var/log/llamarig/engine-build.log").returncode != 0


def test_both_have_the_same_image_by_the_same_name(forge: Box, node: Box) -> None:
    image = planned(node)
    assert images(forge) == images(node) == [image]
    assert layers(forge, image) == layers(node, image)


def test_the_builder_keeps_the_archive_with_its_checksum_and_the_other_does_not(forge: Box, node: Box) -> None:
    image = planned(node)
    name = f"{image.split(':')[1]}.tar.zst"
    assert forge.run(f"sudo sh -c 'cd {ARCHIVES} && sha256sum --check {name}.sha256'") == f"{name}: OK"
    assert forge.run(f"sudo stat -c %a {ARCHIVES}/{name}") == "644"
    assert archive_here(image).stat().st_size == int(forge.run(f"sudo stat -c %s {ARCHIVES}/{name}"))
    assert node.run(f"sudo ls {ARCHIVES}") == ""


def test_nothing_is_left_of_the_build(forge: Box) -> None:
    assert forge.run("sudo ls /var/cache/llamarig/engine") == ""
    assert forge.run("systemctl show --property=LoadState --value llamarig-engine-build.service") == "not-found"


def test_the_same_inputs_are_not_built_again(forge: Box) -> None:
    look = "sudo stat -c %Y /var/log/llamarig/engine-build.log; sudo docker image ls --no-trunc --quiet"
    before = forge.run(look)
    done = playbook("site.yml")
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout) == {"forge": 0, "node": 0}
    assert forge.run(look) == before


def test_what_is_there_costs_one_skipped_task() -> None:
    done = bring()
    assert done.returncode == 0, done.stdout
    assert "bring |" not in done.stdout


def test_check_mode_says_what_it_would_do(node: Box) -> None:
    """Under another name, the same engine is another image."""
    before = images(node)
    done = bring("--check", "-e", "llama_image_repository=llamarig/other")
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout)["node"] == 2
    assert images(node) == before
    assert node.attempt("sudo docker image inspect llamarig/other").returncode != 0
