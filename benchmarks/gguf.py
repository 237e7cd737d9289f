"""What it costs to read the header of a GGUF model: this package's reader beside the gguf package's.

What is measured, each in a process of its own, with CPython alone as the unit:

  python -c pass           what starting the interpreter costs
  llamarig.gguf            read_model: shape, parts, quantisation; the vocabulary is hopped over
  gguf.GGUFReader          the reader of the gguf package, which maps the file and makes objects of every field
  llamarig gguf --json     the whole command

How: a file is made with as many tokens and merges as asked for and 733 tensors whose data is a hole. Every reader runs
once unmeasured, then N times, in turns. "read" is the time of the read itself, taken inside the process after its
imports; "process" is the whole process; "memory" is the peak of its resident memory (VmHWM).

Conditions: the file is in the page cache. Only the ratios to the reader of this package say anything.

Examples:
  .venv/bin/python benchmarks/gguf.py
  .venv/bin/python benchmarks/gguf.py --tokens 50000 --rounds 30 --json gguf.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

sys.path.pop(0)  # this folder, in which there is a gguf of its own
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import common
from benchmarks.common import ROOT, BenchmarkError

OWN: Final = "llamarig.gguf"
BLOCKS: Final = 40
# What every process ends with: how long the read took, and how much memory the process had at most.
REPORT: Final = """
import json, pathlib, re
status = pathlib.Path("/proc/self/status").read_text()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
print("\\n" + json.dumps({"read": ended - began, "memory_kib": peak}))
"""
TIMED: Final = "began = time.perf_counter()\n{}\nended = time.perf_counter()\n"
PROGRAMS: Final = {
    "python -c pass": "import sys, time\n" + TIMED.format("pass"),
    OWN: "import sys, time\nfrom llamarig.gguf.model import read_model\nfrom llamarig.gguf.source import FileSource\n"
    + TIMED.format("found = len(read_model(sys.argv[1], FileSource).shape.tensors)")
    + "assert found == int(sys.argv[2])\n",
    "gguf.GGUFReader": "import sys, time\nfrom gguf import GGUFReader\n"
    + TIMED.format("found = len(GGUFReader(sys.argv[1]).tensors)")
    + "assert found == int(sys.argv[2])\n",
    "llamarig gguf --json": "import sys, time\nfrom llamarig.cli.main import cli\n"
    + TIMED.format('cli.main(["gguf", sys.argv[1], "--json"], standalone_mode=False)'),
}


def make(path: Path, tokens: int) -> int:
    """Write a model with a vocabulary and a hole for data; return how many tensors it has."""
    import numpy as np  # noqa: PLC0415  not what this package's reader is measured with
    from gguf import GGUFWriter  # noqa: PLC0415

    writer = GGUFWriter(path, "llama")
    for key, value in {"block_count": BLOCKS, "embedding_length": 256, "attention.head_count": 4}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"Ġtoken{number}" for number in range(tokens)])
    writer.add_token_types([1] * tokens)
    writer.add_token_merges([f"Ġtok en{number}" for number in range(tokens)])
    names = [f"blk.{block}.part{part}.weight" for block in range(BLOCKS) for part in range(18)]
    names += [f"part{part}.weight" for part in range(13)]
    for name in names:
        writer.add_tensor_info(name, (256, 256), np.dtype(np.float32), 256 * 256 * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("rb+") as stream:
        stream.truncate(path.stat().st_size + 32 + len(names) * 256 * 256 * 4)
    return len(names)


def once(program: str, path: Path, tensors: int) -> dict[str, float]:
    """Run one program in a process of its own."""
    command = [sys.executable, "-c", program + REPORT, str(path), str(tensors)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    wall = time.perf_counter() - start
    if done.returncode != 0:
        msg = f"a reader ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}"
        raise BenchmarkError(msg)
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**figures, "process": wall}


def measure(path: Path, tensors: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run every program in turns; the first turn is not counted."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in PROGRAMS}
    for number in range(rounds + 1):
        for name, program in PROGRAMS.items():
            figures = once(program, path, tensors)
            if number:
                results[name].append(figures)
    return results


def summary(results: dict[str, list[dict[str, float]]]) -> str:
    """Draw the table; ratios are of medians, to this package's reader."""
    rows = []
    own = {key: common.median([figures[key] for figures in results[OWN]]) for key in results[OWN][0]}
    for name, runs in results.items():
        middle = {key: common.median([figures[key] for figures in runs]) for key in own}
        row = [name]
        for key, scale, digits in (("read", 1000, 1), ("process", 1000, 0), ("memory_kib", 1 / 1024, 1)):
            row += [f"{middle[key] * scale:.{digits}f}", f"{middle[key] / own[key]:.2f}"]
        rows.append(row)
    return common.table(["median", "read, ms", "ratio", "process, ms", "ratio", "memory, MiB", "ratio"], rows)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = common.parser(__doc__)
    parser.add_argument("--tokens", type=common.positive, default=200_000, metavar="N", help="tokens (default: 200000)")
    parser.add_argument("--rounds", type=common.positive, default=10, metavar="N", help="rounds (default: 10)")
    return parser.parse_args()


def main() -> None:
    """Measure all readers on one file."""
    chosen = arguments()
    facts = common.conditions()
    with common.workplace("gguf") as directory:
        path = directory / "model.gguf"
        tensors = make(path, chosen.tokens)
        results = measure(path, tensors, chosen.rounds)
    print(summary(results))
    print(f"\n{chosen.rounds} rounds, {chosen.tokens} tokens and as many merges, {tensors} tensors. This machine:")
    print(common.describe(facts))
    common.write_json(chosen.json, {"benchmark": "gguf", "conditions": facts, "runs": results})


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"gguf: {error}")
    except KeyboardInterrupt:
        sys.exit("gguf: interrupted")
