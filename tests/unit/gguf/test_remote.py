from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamarig.gguf.address import Hub, address
from llamarig.gguf.error import GgufError
from llamarig.gguf.header import Header, read_header
from llamarig.gguf.model import ModelFile, read_model
from llamarig.gguf.remote import HttpSource
from tests.unit.gguf.files import METADATA, TENSORS, Made, file, header, split
from tests.unit.gguf.server import Handler, Site, serving

DATA = file()
BIG = file(
    {**METADATA, "tokenizer.ggml.tokens": ["token" * 4] * 200_000}, [*TENSORS, Made("blk.0.big", "f32", (9 << 20,))]
)
BIG_HEADER = 5_600_000 + len(header())
COMMIT = "0123456789abcdef" * 2 + "01234567"
SHA256 = "fedcba9876543210" * 4


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        running.files["/m.gguf"] = DATA
        yield running


def read(name: str, hub: Hub | None = None, **options: Any) -> Header:
    source = HttpSource(name, hub or Hub(), timeout=5, **options)
    try:
        return read_header(source)
    finally:
        source.close()


def refused(name: str, hub: Hub | None = None, **options: Any) -> GgufError:
    with pytest.raises(GgufError) as caught:
        read(name, hub, **options)
    assert caught.value.message.startswith(name)
    assert caught.value.remedy
    return caught.value


def model(name: str, hub: Hub | None = None) -> ModelFile:
    return read_model(name, lambda part: HttpSource(part, hub or Hub(), timeout=5))


def test_a_remote_header_is_that_of_the_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(DATA)
    remote = read(f"{site.address}/m.gguf")
    assert (remote.size, remote.data_offset) == (len(DATA), len(header()))
    assert [tensor.name for tensor in remote.tensors] == [tensor.name for tensor in TENSORS]
    assert (remote.revision, remote.sha256) == (None, None)


def test_only_ranges_are_asked_for(site: Site) -> None:
    read(f"{site.address}/m.gguf")
    assert site.asked == [("/m.gguf", "bytes=0-1048575", None)]


def test_a_large_header_takes_a_few_growing_ranges_over_one_connection_and_little_of_the_data(site: Site) -> None:
    site.files["/big.gguf"] = BIG
    source = HttpSource(f"{site.address}/big.gguf", Hub())
    found = read_header(source)
    source.close()
    assert found.counts["tokenizer.ggml.tokens"] == 200_000
    mebi = 1 << 20
    ranges = [asked.removeprefix("bytes=").split("-") for _, asked, _ in site.asked if asked]
    assert [int(last) - int(first) + 1 for first, last in ranges] == [mebi, 2 * mebi, 4 * mebi]
    assert len(BIG) > 36 * mebi
    assert found.data_offset < 6 * mebi


def test_what_a_server_without_ranges_sends_is_left_as_soon_as_the_header_is_read(site: Site) -> None:
    site.answers["/big.gguf"] = lambda handler: handler.reply(200, BIG)
    found = read(f"{site.address}/big.gguf")
    assert found.size == len(BIG)
    assert len(found.tensors) == 6
    time.sleep(0.05)
    assert site.sent < len(BIG) // 2


def test_a_server_that_says_no_size_is_read_without_one(site: Site) -> None:
    def unsized(handler: Handler) -> None:
        handler.reply(200, DATA, {"Content-Length": "", "Connection": "close"})
        handler.close_connection = True

    site.answers["/unsized.gguf"] = unsized
    assert read(f"{site.address}/unsized.gguf").size is None
    site.answers["/star.gguf"] = lambda handler: handler.reply(
        206, DATA, {"Content-Range": f"bytes 0-{len(DATA) - 1}/*"}
    )
    assert read(f"{site.address}/star.gguf").size is None


def test_a_file_that_ends_in_its_header_is_truncated_there(site: Site) -> None:
    site.files["/cut.gguf"] = DATA[:300]
    assert "the file ends at byte 300" in refused(f"{site.address}/cut.gguf").message
    site.files["/empty.gguf"] = b""
    assert "is empty" in refused(f"{site.address}/empty.gguf").message
    site.files["/short.gguf"] = DATA[:-1]
    assert "is incomplete" in refused(f"{site.address}/short.gguf").message


def test_a_web_page_in_place_of_a_model_is_called_one(site: Site) -> None:
    site.answers["/login"] = lambda handler: handler.reply(200, b"<!DOCTYPE html>please log in")
    assert "is a web page" in refused(f"{site.address}/login").message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["/m.gguf", "m.gguf", "{}/m.gguf", "//{0}/m.gguf"])
def test_redirects_are_followed(site: Site, status: int, to: str) -> None:
    target = to.format(site.address if to.startswith("{") else site.address.removeprefix("http://"))
    site.redirect("/old.gguf", target, status)
    assert read(f"{site.address}/old.gguf").size == len(DATA)


def test_after_a_redirect_the_new_place_is_asked_for_the_rest(site: Site) -> None:
    site.files["/big.gguf"] = BIG
    site.redirect("/old.gguf", "/big.gguf")
    read(f"{site.address}/old.gguf")
    assert [path for path, _, _ in site.asked] == ["/old.gguf", "/big.gguf", "/big.gguf", "/big.gguf"]


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("/loop", "more than 5 redirects"),
        ("", "redirects to nowhere"),
        ("ftp://example.com/m.gguf", "is no address"),
        ("http://[broken/m.gguf", "is no address"),
        ("http://user:word@127.0.0.1/m.gguf", "holds a user name or a password"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_refused(site: Site, to: str, message: str) -> None:
    site.redirect("/loop", to)
    with pytest.raises(GgufError, match=message):
        read(f"{site.address}/loop")


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (401, "answers 401 Unauthorized", "needs none"),
        (403, "answers 403 Forbidden", "needs none"),
        (404, "answers 404 Not Found", "names of repository, revision and file"),
        (410, "answers 410 Gone", "look at the address"),
        (429, "answers 429 Too Many Requests", "try again later"),
        (500, "answers 500 Internal Server Error", "try again later"),
        (503, "answers 503 Service Unavailable", "try again later"),
        (204, "answers 204 No Content", "look at the address"),
    ],
)
def test_a_refusal_is_said_with_its_status_and_what_to_do(site: Site, status: int, message: str, remedy: str) -> None:
    site.status("/x.gguf", status)
    error = refused(f"{site.address}/x.gguf")
    assert message in error.message
    assert remedy in error.remedy


def test_a_gated_model_of_the_hub_asks_for_its_licence_and_a_token(site: Site) -> None:
    site.status("/owner/repo/resolve/main/m.gguf", 401)
    error = refused("hf:owner/repo/m.gguf", Hub(site.address))
    assert "accept its licence" in error.remedy
    assert "HF_TOKEN" in error.remedy


@pytest.mark.parametrize(
    "said",
    [
        "bytes 1-999/1000",
        "bytes 0-0/0",
        "bytes 5-1/1000",
        "bytes 0-999/10",
        "bytes 0-/1000",
        "items 0-9/10",
        "",
        f"bytes 0-9/{'9' * 5000}",
    ],
)
def test_an_answer_for_another_range_is_refused(site: Site, said: str) -> None:
    site.answers["/x.gguf"] = lambda handler: handler.reply(206, DATA, {"Content-Range": said})
    assert "answers for bytes 0 on with the range" in refused(f"{site.address}/x.gguf").message


def test_a_range_that_says_less_than_it_sends_is_taken_at_its_word(site: Site) -> None:
    def answer(handler: Handler) -> None:
        asked = handler.headers["Range"]
        start = int(asked.removeprefix("bytes=").split("-")[0])
        body = DATA[start : start + 100] + b"garbage" * 10
        last = min(start + 100, len(DATA)) - 1
        handler.reply(206, body, {"Content-Range": f"bytes {start}-{last}/{len(DATA)}"})

    site.answers["/x.gguf"] = answer
    assert len(read(f"{site.address}/x.gguf").tensors) == 5


def test_a_file_that_changes_on_the_way_is_noticed(site: Site) -> None:
    def answer(handler: Handler) -> None:
        start = int(handler.headers["Range"].removeprefix("bytes=").split("-")[0])
        total = len(DATA) + start
        handler.reply(206, DATA[start : start + 100], {"Content-Range": f"bytes {start}-{start + 99}/{total}"})

    site.answers["/x.gguf"] = answer
    assert f"its size changed from {len(DATA)} to {len(DATA) + 100} bytes" in refused(f"{site.address}/x.gguf").message


@pytest.mark.parametrize("length", [0, 10, 400])
def test_a_connection_that_is_cut_is_said_to_be_cut(site: Site, length: int) -> None:
    def answer(handler: Handler) -> None:
        said = {"Content-Length": str(len(DATA)), "Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
        handler.reply(206, DATA[:length], said)
        handler.close_connection = True

    site.answers["/x.gguf"] = answer
    error = refused(f"{site.address}/x.gguf")
    assert "the connection was cut" in error.message
    assert error.remedy == "try again later"


def test_a_server_that_hangs_up_between_ranges_is_asked_again(site: Site) -> None:
    def answer(handler: Handler) -> None:
        handler.give(BIG)
        handler.close_connection = True

    site.answers["/big.gguf"] = answer
    assert read(f"{site.address}/big.gguf").counts["tokenizer.ggml.tokens"] == 200_000


def test_a_silent_server_is_given_up(site: Site) -> None:
    site.answers["/x.gguf"] = lambda _: time.sleep(1)
    source = HttpSource(f"{site.address}/x.gguf", Hub(), timeout=0.1)
    with pytest.raises(GgufError, match="does not answer: timed out"):
        read_header(source)


@pytest.mark.parametrize("what", ["body", "status"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(site: Site, what: str) -> None:
    def answer(handler: Handler) -> None:
        if what == "body":
            handler.reply(206, b"", {"Content-Length": "1000", "Content-Range": "bytes 0-999/1000"})
        with contextlib.suppress(OSError):
            for count in range(400):
                handler.wfile.write(b"GGUF"[count : count + 1] or b"\2")
                time.sleep(0.05)

    site.answers["/x.gguf"] = answer
    began = time.monotonic()
    message = refused(f"{site.address}/x.gguf", patience=0.3).message
    assert "no whole header within 0.3 seconds" in message
    assert time.monotonic() - began < 15


def test_what_is_no_http_is_said_in_a_sentence(site: Site) -> None:
    def answer(handler: Handler) -> None:
        handler.wfile.write(b"hello \x1b[2J\r\n\r\n")
        handler.close_connection = True

    site.answers["/x.gguf"] = answer
    assert r"does not answer: hello \x1b[2J" in refused(f"{site.address}/x.gguf").message


def test_a_server_that_is_not_there_is_said_not_to_answer() -> None:
    assert "does not answer: Connection refused" in refused("http://127.0.0.1:9/m.gguf").message
    assert "there is no host nowhere.invalid" in refused("http://nowhere.invalid/m.gguf").message


def test_a_certificate_that_nobody_vouches_for_is_refused(site: Site) -> None:
    name = site.address.replace("http:", "https:") + "/m.gguf"
    assert "cannot be trusted" in refused(name).message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http:///m.gguf", "is no address"),
        ("https://host:port/m.gguf", "is no address"),
        ("https://[::1/m.gguf", "is no address"),
        ("https://user:secret@example.com/m.gguf", "^the address of example.com holds a user name or a password"),
        ("hf:owner/m.gguf", "names no file of a hub"),
        ("hf:owner/repo/../../m.gguf", "names no file of a hub"),
        ("hf:", "names no file of a hub"),
    ],
)
def test_a_name_that_is_no_address_is_refused_before_anything_is_asked(name: str, message: str) -> None:
    with pytest.raises(GgufError, match=message):
        HttpSource(name, Hub())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:owner/repo/m.gguf", "https://huggingface.co/owner/repo/resolve/main/m.gguf"),
        ("hf:owner/repo/Q4_K_M/m.gguf", "https://huggingface.co/owner/repo/resolve/main/Q4_K_M/m.gguf"),
        ("hf:owner/repo/m.gguf@v1.0", "https://huggingface.co/owner/repo/resolve/v1.0/m.gguf"),
        ("hf:owner/repo/m.gguf@refs/pr/3", "https://huggingface.co/owner/repo/resolve/refs%2Fpr%2F3/m.gguf"),
        ("hf:owner/repo/a b?#ä.gguf", "https://huggingface.co/owner/repo/resolve/main/a%20b%3F%23%C3%A4.gguf"),
        ("https://example.com/m.gguf?x=1", "https://example.com/m.gguf?x=1"),
    ],
)
def test_a_short_name_leads_to_the_hub(name: str, expected: str) -> None:
    assert address(name, Hub()) == expected


def test_a_mirror_takes_the_place_of_the_hub(site: Site) -> None:
    site.files["/owner/repo/resolve/main/m.gguf"] = DATA
    assert read("hf:owner/repo/m.gguf", Hub(f"{site.address}/")).size == len(DATA)


def test_blanks_in_an_address_are_escaped(site: Site) -> None:
    site.files["/a%20b.gguf?c=%20d"] = DATA
    assert read(f"{site.address}/a b.gguf?c= d#part").size == len(DATA)


def test_the_token_goes_to_the_hub_and_to_nobody_else(site: Site) -> None:
    with serving("127.0.0.2") as elsewhere:
        elsewhere.files["/cdn.gguf"] = DATA
        site.redirect("/owner/repo/resolve/main/m.gguf", "/renamed")
        site.redirect("/renamed", f"{elsewhere.address}/cdn.gguf")
        read("hf:owner/repo/m.gguf", Hub(site.address, "hf_secret"))
        assert [given for _, _, given in site.asked] == ["Bearer hf_secret"] * 2
        assert [given for _, _, given in elsewhere.asked] == [None]
        read(f"{elsewhere.address}/cdn.gguf", Hub(site.address, "hf_secret"))
        assert [given for _, _, given in elsewhere.asked] == [None] * 2


def test_another_port_is_another_host(site: Site) -> None:
    with serving() as elsewhere:
        elsewhere.files["/m.gguf"] = DATA
        read(f"{elsewhere.address}/m.gguf", Hub(site.address, "hf_secret"))
        assert [given for _, _, given in elsewhere.asked] == [None]


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "schlüssel"])
def test_what_is_no_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(GgufError, match="HF_TOKEN is no token") as caught:
        Hub(token=token)
    assert not token or token not in str(caught.value)


def test_a_token_is_not_in_what_is_printed_of_a_hub() -> None:
    assert "hf_secret" not in repr(Hub(token="hf_secret"))


def test_the_hub_says_commit_and_checksum(site: Site) -> None:
    with serving("127.0.0.2") as elsewhere:
        elsewhere.files["/cdn.gguf"] = DATA
        said = {"X-Repo-Commit": COMMIT, "X-Linked-ETag": f'"{SHA256}"'}
        site.redirect("/owner/repo/resolve/main/m.gguf", f"{elsewhere.address}/cdn.gguf", headers=said)
        (part,) = model("hf:owner/repo/m.gguf", Hub(site.address)).parts
        assert (part.revision, part.sha256, part.bytes) == (COMMIT, SHA256, len(DATA))
        found = read(f"{site.address}/owner/repo/resolve/main/m.gguf")
        assert (found.revision, found.sha256) == (None, None), "another server's word is not the hub's"


def test_a_split_model_is_read_over_http(site: Site, tmp_path: Path) -> None:
    for path in split(tmp_path):
        site.files[f"/m/{path.name}?x=1"] = path.read_bytes()
    read_ = model(f"{site.address}/m/model-00002-of-00003.gguf?x=1")
    assert [part.name for part in read_.parts] == [
        f"{site.address}/m/model-0000{number}-of-00003.gguf?x=1" for number in (1, 2, 3)
    ]
    assert len(read_.shape.tensors) == len(TENSORS)


def test_a_split_model_of_the_hub_is_read_at_one_revision(site: Site, tmp_path: Path) -> None:
    for path in split(tmp_path, parts=2):
        site.files[f"/owner/repo/resolve/v1/dir/{path.name}"] = path.read_bytes()
    read_ = model("hf:owner/repo/dir/model-00001-of-00002.gguf@v1", Hub(site.address))
    assert read_.parts[1].name == "hf:owner/repo/dir/model-00002-of-00002.gguf@v1"


def test_a_part_that_the_server_does_not_have_is_missing(site: Site, tmp_path: Path) -> None:
    site.files["/model-00001-of-00003.gguf"] = split(tmp_path)[0].read_bytes()
    with pytest.raises(GgufError, match=r"part 2 of 3 is missing: .*00002-of-00003.gguf: 127.0.0.1 answers 404"):
        model(f"{site.address}/model-00001-of-00003.gguf")


def test_a_proxy_is_told_the_whole_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["http://example.com/m.gguf?x=1"] = DATA
    monkeypatch.setenv("http_proxy", site.address)
    assert read("http://example.com/m.gguf?x=1").size == len(DATA)


def test_credentials_of_a_proxy_go_to_the_proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str | None] = []

    def answer(handler: Handler) -> None:
        given.append(handler.headers["Proxy-Authorization"])
        handler.give(DATA)

    site.answers["http://example.com/m.gguf"] = answer
    monkeypatch.setenv("http_proxy", site.address.replace("http://", "http://me:p%40ss@"))
    read("http://example.com/m.gguf")
    assert given == ["Basic bWU6cEBzcw=="]


def test_an_encrypted_address_is_tunnelled_through_the_proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", site.address)
    assert "does not answer: Tunnel connection failed: 501" in refused("https://example.com/m.gguf").message


def test_hosts_that_need_no_proxy_get_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert read(f"{site.address}/m.gguf").size == len(DATA)


@pytest.mark.parametrize("proxy", ["http://", "http://[x", "http://host:port"])
def test_a_proxy_that_is_no_address_is_said_to_be_none(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(GgufError, match="the proxy named by HTTP_PROXY or HTTPS_PROXY is no address"):
        read("http://example.com/m.gguf")
