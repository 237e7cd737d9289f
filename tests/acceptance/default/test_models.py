"""Model files: fetched over HTTP, resumed after an interruption, never trusted without their checksum."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

from tests.acceptance.box import ROOT, SCENARIO, Box

MIB = 2**20


def fetch(arguments: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
    command = ["ansible", "beta", "-i", str(SCENARIO / "inventory"), "--become", "-m", "model_files"]
    command += ["-a", json.dumps(arguments), "-e", "ansible_become_flags='-H -S -n'"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


def publish(alpha: Box, name: str, mebibytes: int) -> str:
    alpha.run(f"sudo sh -c 'head -c {mebibytes * MIB} /dev/urandom > /var/www/html/{name}'")
    return alpha.run(f"sha256sum /var/www/html/{name}").split()[0]


def test_the_model_came_by_http(alpha: Box) -> None:
    assert "GET /tiny-moe.gguf" in alpha.run("sudo cat /var/log/nginx/access.log")


def test_an_interrupted_fetch_goes_on_where_it_stopped(alpha: Box, beta: Box) -> None:
    digest = publish(alpha, "big.bin", 48)
    alpha.run("echo 'limit_rate 4m;' | sudo tee /etc/nginx/conf.d/slow.conf && sudo systemctl reload nginx")
    entry = {"name": "test/big.bin", "bytes": 48 * MIB, "sha256": digest, "url": "http://alpha/big.bin"}
    part = f"/srv/llamarig/models/.incoming/{digest}"
    command = ["ansible", "beta", "-i", str(SCENARIO / "inventory"), "--become", "-m", "model_files", "-a"]
    arguments = {"directory": "/srv/llamarig/models", "owner": "root", "files": [entry]}
    with subprocess.Popen([*command, json.dumps(arguments)], stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        beta.wait_until(
            "some MiB arrived",
            lambda: beta.attempt(f"sudo sh -c 'test $(du -k {part} | cut -f1) -gt 16000'").returncode == 0,
            90,
        )
        beta.run("sudo pkill -KILL aria2c")
        process.terminate()
    assert beta.attempt("test -e /srv/llamarig/models/test/big.bin").returncode == 1
    kept = int(beta.run(f"sudo du -k {part}").split()[0])
    assert kept > 16000
    alpha.run("sudo rm /etc/nginx/conf.d/slow.conf && sudo systemctl reload nginx")
    alpha.run("sudo truncate -s 0 /var/log/nginx/access.log")
    done = fetch(arguments)
    assert done.returncode == 0, done.stdout
    assert beta.run("sha256sum /srv/llamarig/models/test/big.bin").split()[0] == digest
    log = alpha.run("sudo cat /var/log/nginx/access.log")
    sent = sum(int(line.split()[9]) for line in log.splitlines() if "GET /big.bin" in line)
    assert sent < 48 * MIB
    assert " 206 " in log


def test_a_file_that_is_not_what_the_profile_says_is_discarded(alpha: Box, beta: Box) -> None:
    publish(alpha, "wrong.bin", 1)
    entry = {"name": "test/wrong.bin", "bytes": MIB, "sha256": "0" * 64, "url": "http://alpha/wrong.bin"}
    done = fetch({"directory": "/srv/llamarig/models", "owner": "root", "files": [entry]})
    assert done.returncode != 0
    assert "checksum" in done.stdout + done.stderr
    assert beta.attempt("test -e /srv/llamarig/models/test/wrong.bin").returncode == 1


def test_a_missing_file_is_said_with_its_url() -> None:
    entry = {"name": "test/none.bin", "bytes": MIB, "sha256": "1" * 64, "url": "http://alpha/none.bin"}
    done = fetch({"directory": "/srv/llamarig/models", "owner": "root", "files": [entry]})
    assert "http://alpha/none.bin" in done.stdout + done.stderr
    assert "no such file" in done.stdout + done.stderr


def test_a_model_larger_than_the_disk_is_refused_before_a_byte_is_fetched(beta: Box) -> None:
    entry = {"name": "test/huge.bin", "bytes": 2**50, "sha256": "2" * 64, "url": "http://alpha/big.bin"}
    done = fetch({"directory": "/srv/llamarig/models", "owner": "root", "files": [entry]})
    assert "GiB free" in done.stdout + done.stderr
    assert beta.attempt(f"sudo test -e /srv/llamarig/models/.incoming/{'2' * 64}").returncode == 1


def test_a_model_damaged_on_the_host_is_fetched_anew(beta: Box) -> None:
    path = "/srv/llamarig/models/hub/tiny-moe.gguf"
    good = beta.run(f"sha256sum {path}")
    beta.run(f"sudo sh -c 'printf X | dd of={path} bs=1 seek=500000 conv=notrunc status=none'")
    assert beta.run(f"sha256sum {path}") != good
    entry = {
        "name": "hub/tiny-moe.gguf",
        "bytes": 1041312,
        "sha256": good.split()[0],
        "url": "http://alpha/tiny-moe.gguf",
    }
    done = fetch({"directory": "/srv/llamarig/models", "owner": "root", "files": [entry]})
    assert done.returncode == 0, done.stdout
    assert beta.run(f"sha256sum {path}") == good
