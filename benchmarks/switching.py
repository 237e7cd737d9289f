"""What a switch costs beyond the engine's own stop and load, beside llama-server's router with the same models.

What is measured, on one host, the same two models to and fro:

  engine stop   from TERM to the end of the engine's process, with nobody's request
  engine load   from the moment that the engine may begin until it says that it is ready
  switch        the whole of POST /switch, which ends when the new service has answered a completion
  cold switch   the same where the new service's container does not wait at its gate
  status        GET /status of the API, asked again and again over TCP while the host switches to and fro
  nobody        how long a client that asks every millisecond is told to wait (503)
  router        a completion from llama-server's router (--models-max 1) whose model the other one has to leave for
  router again  the same once its model is loaded: what the request itself costs
  completion    the same from the service through the door
  daemon        its resident memory, and the CPU it takes in twenty seconds in which nobody asks for anything

How: one SSH session runs a small program as root on the host. Engines are measured in containers of the service's own
image and arguments; the router runs in one too. Rounds are interleaved. Nothing of SSH is in the times.

Conditions: a host whose default service and another one, small enough to be loaded in an instant, take turns on a
port: the lab's. It shares its CPUs with everything else on this machine. ``cost`` is what is judged: a switch less the
medians of the engine's own stop and load, and ``router's cost`` what the router's switch takes beyond its request and
the same two. Only figures of one run may be compared.

Examples:
  scripts/deploy && .venv/bin/python benchmarks/switching.py
  .venv/bin/python benchmarks/switching.py --services dense moe --rounds 30 --json switching.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import common
from benchmarks.common import BenchmarkError

# What runs on the host.
PROGRAM: Final = '''
import http.client, json, os, shutil, signal, socket, subprocess, sys, threading, time
services, rounds = json.loads(sys.argv[1])
specs = {name: json.load(open(f"/etc/llamarig/services.d/{name}.json")) for name in services}
PLACE = "/run/llamarig-benchmark"
ROUTER = ("127.0.0.1", 18099)

class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)

def ask(connection, method, path, body=None):
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()

def docker(*words):
    done = subprocess.run(["docker", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"docker {words[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()

def until(ready, seconds=60):
    end = time.perf_counter() + seconds
    while not ready():
        if time.perf_counter() > end:
            sys.exit("it never came to that")
        time.sleep(0.002)

def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

def own(name):
    """The engine alone: seconds of its load, and of its stop."""
    spec = specs[name]
    shutil.rmtree(PLACE, ignore_errors=True)
    os.makedirs(PLACE, mode=0o777)
    os.chmod(PLACE, 0o777)
    gate = "while [ ! -e /run/llamarig/open ]; do sleep 0.001; done; umask 0; exec llama-server \\"$@\\""
    docker("run", "--detach", "--rm", "--name", "llamarig-benchmark", "--network", "none", "--user", "788:788",
           "--env", "HOME=/tmp", "--volume", f"{PLACE}:/run/llamarig", "--volume", f"{spec['models_dir']}:/models:ro",
           "--entrypoint", "/bin/sh", spec["image"], "-c", gate, "llama-server", *spec["argv"])
    pid = int(docker("inspect", "--format", "{{.State.Pid}}", "llamarig-benchmark"))
    time.sleep(0.2)
    start = time.perf_counter()
    open(f"{PLACE}/open", "w").close()
    until(lambda: ask(Unix(f"{PLACE}/server.sock"), "GET", "/health")[0] == 200)
    load = time.perf_counter() - start
    time.sleep(0.2)
    start = time.perf_counter()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not lives(pid))
    stop = time.perf_counter() - start
    until(lambda: subprocess.run(["docker", "inspect", "llamarig-benchmark"], capture_output=True).returncode != 0)
    return load, stop

def switch(name):
    """One switch: seconds of the whole, of refusals, and of its phases."""
    port, refused, over = specs[name]["port"], [], threading.Event()
    def client():
        while not over.is_set():
            if ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), "GET", "/health")[0] != 200:
                refused.append(time.perf_counter())
            time.sleep(0.001)
    asking = threading.Thread(target=client)
    asking.start()
    start = time.perf_counter()
    status, answer = ask(Unix("/run/llamarig/api/manage.sock"), "POST", "/switch", {"model": name})
    seconds = time.perf_counter() - start
    over.set()
    asking.join()
    if status != 200:
        sys.exit(f"a switch to {name} ended with {status}: {answer.decode()[-500:]}")
    job = json.loads(answer)["job"]
    return seconds, (refused[-1] - refused[0]) if refused else 0.0, job["phases"]

def completion(connection, model):
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello in one short sentence."}],
            "max_tokens": 16, "temperature": 0}
    start = time.perf_counter()
    status, answer = ask(connection, "POST", "/v1/chat/completions", body)
    if status != 200:
        sys.exit(f"a completion ended with {status}: {answer.decode()[-500:]}")
    return time.perf_counter() - start

def router():
    files = {name: os.path.basename(specs[name]["files"][0]["path"]).removesuffix(".gguf") for name in services}
    spec = specs[services[0]]
    place = os.path.dirname(specs[services[0]]["files"][0]["path"])
    docker("run", "--detach", "--rm", "--name", "llamarig-benchmark-router", "--network", "host", "--user", "788:788",
           "--env", "HOME=/tmp", "--tmpfs", "/tmp", "--volume", f"{place}:/models:ro", "--entrypoint", "llama-server",
           spec["image"], "--models-dir", "/models", "--models-max", "1", "--host", ROUTER[0], "--port", str(ROUTER[1]),
           "--ctx-size", "1024")
    until(lambda: ask(http.client.HTTPConnection(*ROUTER, timeout=60), "GET", "/health")[0] == 200)
    return files

def stop(name):
    status, answer = ask(Unix("/run/llamarig/api/manage.sock"), "POST", "/stop", {"model": name})
    if status != 200:
        sys.exit(f"{name} does not stop: {status}, {answer.decode()[-500:]}")

def status(rounds):
    """Seconds of each GET /status while the host switches."""
    took, over = [], threading.Event()
    def client():
        while not over.is_set():
            start = time.perf_counter()
            if ask(http.client.HTTPConnection("127.0.0.1", 8081, timeout=60), "GET", "/status")[0] != 200:
                sys.exit("the API does not say its status")
            took.append(round(time.perf_counter() - start, 6))
            time.sleep(0.002)
    asking = threading.Thread(target=client)
    asking.start()
    for number in range(2 * rounds):
        code, answer = ask(Unix("/run/llamarig/api/manage.sock"), "POST", "/switch", {"model": services[~number % 2]})
        if code != 200:
            sys.exit(f"a switch ended with {code}: {answer.decode()[-500:]}")
    over.set()
    asking.join()
    return took

def daemon(seconds=20):
    """Resident memory in MiB, and the share of one CPU that the idle daemon takes."""
    show = ["systemctl", "show", "--property", "MainPID", "--value", "llamarigd"]
    pid = int(subprocess.run(show, capture_output=True, text=True).stdout)
    def ticks():
        words = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
        return int(words[11]) + int(words[12])
    time.sleep(5)
    first = ticks()
    time.sleep(seconds)
    cpu = (ticks() - first) / os.sysconf("SC_CLK_TCK") / seconds
    lines = open(f"/proc/{pid}/status").read().splitlines()
    resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return {"resident_mib": round(resident / 1024, 1), "idle_cpu": round(cpu, 5)}

times = {key: [] for key in ("engine stop", "engine load", "switch", "nobody", "router", "router again", "completion",
                             "cold switch")}
phases = {}
try:
    files = router()
    for number in range(rounds + 1):
        for name in reversed(services):
            load, end = own(name)
            seconds, nobody, took = switch(name)
            routed = completion(http.client.HTTPConnection(*ROUTER, timeout=60), files[name])
            again = completion(http.client.HTTPConnection(*ROUTER, timeout=60), files[name])
            door = completion(http.client.HTTPConnection("127.0.0.1", specs[name]["port"], timeout=60), name)
            if number:
                for key, value in zip(times, (end, load, seconds, nobody, routed, again, door)):
                    times[key].append(round(value, 6))
                for phase, value in took.items():
                    phases.setdefault(phase, []).append(value)
    for number in range(2 * rounds):
        name = services[~number % 2]
        stop(name)
        times["cold switch"].append(round(switch(name)[0], 6))
    docker("rm", "--force", "llamarig-benchmark-router")
    times["status"] = status(rounds)
    idle = daemon()
finally:
    subprocess.run(["docker", "rm", "--force", "llamarig-benchmark", "llamarig-benchmark-router"], capture_output=True)
    shutil.rmtree(PLACE, ignore_errors=True)
print(json.dumps({"seconds": times, "phases": phases, "daemon": idle}))
'''


def costs(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return what each switch cost beyond the engine's own stop and load, ours and the router's, in seconds."""
    own = common.median(seconds["engine stop"]) + common.median(seconds["engine load"])
    again = common.median(seconds["router again"])
    return {
        "cost": [value - own for value in seconds["switch"]],
        "cold cost": [value - own for value in seconds["cold switch"]],
        "router's cost": [value - again - own for value in seconds["router"]],
    }


def summary(seconds: dict[str, list[float]]) -> str:
    """Draw the table in milliseconds."""
    rows = []
    for name, values in {**seconds, **costs(seconds)}.items():
        ordered = sorted(values)
        late = [ordered[round(share * (len(ordered) - 1))] for share in (0.95, 0.99)]
        figures = [ordered[0], common.median(values), *late]
        rows.append([name, *(f"{1000 * value:.0f}" for value in figures), str(len(values))])
    return common.table(["ms", "min", "median", "p95", "p99", "of"], rows)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = common.host_parser(__doc__, rounds=10)
    parser.add_argument("--services", nargs=2, default=["dense", "moe"], metavar="SERVICE", help="which take turns")
    return parser.parse_args()


def main() -> None:
    """Measure one host."""
    chosen = arguments()
    facts = common.conditions()
    result = common.on_host(chosen, "sudo /usr/bin/python3", PROGRAM, chosen.services, chosen.rounds)
    print(summary(result["seconds"]))
    middle = ", ".join(f"{name} {1000 * common.median(values):.0f}" for name, values in result["phases"].items())
    print(f"\nphases of a switch, medians in ms: {middle}")
    daemon = result["daemon"]
    print(f"the daemon: {daemon['resident_mib']} MiB resident, {daemon['idle_cpu']:.2%} of a CPU while idle")
    print(f"\n{chosen.rounds} rounds to and fro on {chosen.host}. This machine:")
    print(common.describe(facts))
    data = {"benchmark": "switching", "conditions": facts, **result, "costs": costs(result["seconds"])}
    common.write_json(chosen.json, data)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"switching: {error}")
    except KeyboardInterrupt:
        sys.exit("switching: interrupted")
