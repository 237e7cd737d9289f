"""Stream completions, and say how each ended. Run on the host by the Python that is there.

stream.py WORKERS REQUESTS TOKENS: goes on until so many requests were answered and /tmp/llamarig-enough is there. One
JSON object a line for each request: its status, whether it came to its end, how many tokens it brought, Retry-After.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from pathlib import Path

WORKERS, REQUESTS, TOKENS = (int(word) for word in sys.argv[1:4])
ENOUGH = Path("/tmp/llamarig-enough")  # noqa: S108  on a host of the lab
LOCK = threading.Lock()
answered = 0


def once() -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
    body = {"prompt": "hello", "max_tokens": TOKENS, "stream": True, "ignore_eos": True}
    status, tokens, whole, retry_after, error = 0, 0, False, None, ""
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        status, retry_after = response.status, response.getheader("Retry-After")
        for line in response:
            tokens += line.startswith(b"data: {")
            whole = whole or line.startswith(b"data: [DONE]")
    except (OSError, http.client.HTTPException) as trouble:
        error = repr(trouble)
    finally:
        connection.close()
    return {"status": status, "whole": whole, "tokens": tokens, "retry_after": retry_after, "error": error}


def work() -> None:
    global answered  # noqa: PLW0603  counted under the lock
    while answered < REQUESTS or not ENOUGH.exists():
        said = once()
        with LOCK:
            answered += said["status"] == http.client.OK
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()
        # As a client that was refused would; an idle moment also lets engines change places.
        time.sleep(0.02 if said["status"] == http.client.OK else 0.1)


threads = [threading.Thread(target=work) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
