"""storage: parts of files from a folder and from an http server, and what goes wrong."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from range_server import RangeServer, serving

from lib.data.packed import storage
from lib.data.packed.storage import FolderStore, HttpStore, StorageError, Store, open_store
from lib.runtime.files import is_url

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my train").mkdir()
    (tmp_path / "my train" / "0.tar").write_bytes(CONTENT)
    return tmp_path


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> RangeServer:
    monkeypatch.setattr(storage, "_WAITS_S", (0.0, 0.01, 0.01))
    with serving(folder) as running:
        yield running


@pytest.fixture(params=["folder", "http"])
def store(request: pytest.FixtureRequest, folder: Path) -> Store:
    if request.param == "folder":
        return open_store(folder)
    return open_store(request.getfixturevalue("server").url + "/")


def part(store: Store, offset: int, num_bytes: int, *, size: int = len(CONTENT)) -> bytes:
    return store.part("my train/0.tar", offset, num_bytes, size=size)


def test_any_part_and_the_whole_come_back_also_from_a_copy(store: Store) -> None:
    for copy in (store, pickle.loads(pickle.dumps(store))):
        assert part(copy, 3, 5) == CONTENT[3:8]
        assert part(copy, 1023, 1) == CONTENT[-1:] and part(copy, 8, 0) == b""
        assert part(copy, 0, 1024) == copy.whole("my train/0.tar", most=1024) == CONTENT


def test_a_missing_file_is_named_in_one_line(store: Store) -> None:
    where = store.where("my train/1.tar")
    for read in (
        lambda: store.whole("my train/1.tar", most=9),
        lambda: store.part("x", 0, 1, size=1),
    ):
        with pytest.raises(StorageError, match=r"can't be read: (No such file|.*404 ).*") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert where.endswith(("/my train/1.tar", "/my%20train/1.tar"))


def test_a_file_of_another_size_is_not_read(store: Store) -> None:
    with pytest.raises(StorageError, match="0.tar has 1024 bytes and the index says 1000"):
        part(store, 0, 8, size=1000)


def test_a_file_that_was_cut_after_it_was_opened_is_told(folder: Path) -> None:
    store = FolderStore(folder)
    part(store, 0, 8)
    (folder / "my train" / "0.tar").write_bytes(b"short")
    with pytest.raises(StorageError, match="was cut short meanwhile: bytes 3 to 11"):
        part(store, 3, 8)


def test_only_so_many_files_stay_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_MAX_OPEN_FILES", 2)
    for number in range(5):
        (folder / f"{number}.tar").write_bytes(bytes([number]))
    store = FolderStore(folder)
    for number in (0, 1, 2, 3, 4, 0, 4):
        assert store.part(f"{number}.tar", 0, 1, size=1) == bytes([number])
        assert len(store._open) <= 2


def test_one_connection_serves_many_parts(server: RangeServer) -> None:
    store = HttpStore(server.url)
    assert [part(store, at, 2) for at in range(20)] == [CONTENT[at : at + 2] for at in range(20)]
    assert len({port for port, _ in server.requests}) == 1


@pytest.mark.parametrize("fault", ["close", "half", 503, 429])
def test_a_broken_connection_or_a_busy_server_is_tried_again(
    server: RangeServer, fault: int | str
) -> None:
    store = HttpStore(server.url)
    part(store, 0, 1)
    server.faults += [fault] * 3
    assert part(store, 5, 100) == CONTENT[5:105]
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("faults", "pattern", "num_requests"),
    [
        (["half"] * 9, r"IncompleteRead.* \(tried 4 times\)", 4),
        (["close"] * 9, r"RemoteDisconnected.* \(tried 4 times\)", 4),
        ([500] * 9, r"the server answers 500 .* \(tried 4 times\)", 4),
        ([403], "the server answers 403 Forbidden", 1),
        (["other part"], r"was asked for bytes 5-104 and sent 100 bytes, bytes 6-104/1024", 1),
    ],
)
def test_what_stays_wrong_is_told_with_the_address(
    server: RangeServer, faults: list[int | str], pattern: str, num_requests: int
) -> None:
    server.faults += faults
    with pytest.raises(StorageError, match=pattern) as caught:
        part(HttpStore(server.url), 5, 100)
    assert f"{server.url}/my%20train/0.tar" in str(caught.value)
    assert len(server.requests) == num_requests


@contextmanager
def sending(answer: Iterable[bytes]) -> Iterator[str]:
    """An address where each request is answered with these bytes, up to where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    connections[-1].recv(10_000)
                    with suppress(OSError):
                        for piece in answer:
                            connections[-1].sendall(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()
            thread.join()


class Dripping:
    """The beginning of an answer, and then a byte now and then."""

    def __init__(self, begin: bytes) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[bytes]:
        yield self.begin
        while True:
            time.sleep(0.02)
            yield b"x"


_PART = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-104/1024\r\n"
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([_PART, b"\r\n", *[bytes(2**20)] * 64], "sent more than 100 bytes"),
        ([_PART, b"Transfer-Encoding: chunked\r\n\r\n", *[b"8\r\n12345678\r\n"] * 99], "more than"),
        ([_PART, *[b"X-More: " + bytes(60_000) + b"\r\n"] * 64], "can't be read: "),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 100_000, "can't be read: "),
        (Dripping(_PART + b"\r\n"), r"TimeoutError: \d+ bytes came in 0 s"),
        (Dripping(_PART), r"TimeoutError: \d+ bytes came in 0 s"),
    ],
    ids=["endless", "chunks", "headers", "continues", "drips", "drips in the head"],
)
def test_an_answer_has_an_end_to_its_length_and_time(
    monkeypatch: pytest.MonkeyPatch, answer: Iterable[bytes], said: str
) -> None:
    """Fault R1."""
    monkeypatch.setattr(storage, "_WAITS_S", ())
    monkeypatch.setattr(storage, "_TIMEOUT_S", 0.1)
    with sending(answer) as url, pytest.raises(StorageError, match=said) as caught:
        part(HttpStore(url), 5, 100)
    assert f"{url}/my%20train/0.tar" in str(caught.value)


@pytest.mark.parametrize("length", [10**12, 1001])
def test_no_more_of_a_whole_file_is_read_than_it_may_have(length: int) -> None:
    """Fault R1."""
    said = "index.json has more than 1000 bytes"
    with sending([_WHOLE % length, bytes(2000)]) as url, pytest.raises(StorageError, match=said):
        HttpStore(url).whole("index.json", most=1000)


def test_a_slow_answer_is_waited_for_as_long_as_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_WAITS_S", ())
    monkeypatch.setattr(storage, "_TIMEOUT_S", 0.1)
    monkeypatch.setattr(storage, "_LOWEST_BYTES_PER_S", 10)

    def slowly() -> Iterator[bytes]:
        yield _PART + b"Content-Length: 100\r\n\r\n"
        for number in range(10):
            time.sleep(0.03)
            yield bytes([number]) * 10

    with sending(slowly()) as url:
        assert part(HttpStore(url), 5, 100)[-1:] == b"\x09"


def test_a_long_file_or_a_pipe_in_a_folder_is_not_read(folder: Path) -> None:
    """Fault R1, R7."""
    store = FolderStore(folder)
    with pytest.raises(StorageError, match="0.tar has more than 1000 bytes"):
        store.whole("my train/0.tar", most=1000)
    os.mkfifo(folder / "pipe")
    with pytest.raises(StorageError, match="it is no file"):
        store.whole("pipe", most=1000)
    with pytest.raises(StorageError, match="pipe has 0 bytes and the index says 8"):
        store.part("pipe", 0, 8, size=8)


def test_nobody_at_the_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_WAITS_S", (0.0,))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        store = HttpStore(f"http://127.0.0.1:{free.getsockname()[1]}/set")
        with pytest.raises(StorageError, match=r"/set/index.json can't be read: Connection.*refus"):
            store.whole("index.json", most=9)


def test_a_server_that_sends_no_parts_is_told_from_one_that_does(folder: Path) -> None:
    with serving(folder, SimpleHTTPRequestHandler) as server:
        server.RequestHandlerClass.keywords["directory"] = str(folder)
        with pytest.raises(StorageError, match=r"sends whole files where a part .* nginx"):
            part(HttpStore(server.url), 0, 8)


def test_an_error_made_anew_from_a_workers_traceback_is_its_message_alone() -> None:
    text = "Caught StorageError in DataLoader worker process 0.\nOriginal Traceback (most recent"
    error = StorageError(f"{text}\n  File x\nx.y.StorageError: a.tar can't be read: gone\n")
    assert str(error) == "a.tar can't be read: gone"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    "root", ["http://", "http://host:port/a", "http://[1/a", "http://host/a?b=c", "https:///a"]
)
def test_half_an_address_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match=r"is no address to read from: use http://HOST:PORT/PATH"):
        open_store(root)


def test_addresses_and_paths_are_told_apart() -> None:
    assert is_url("http://host/a") and is_url("HTTPS://host")
    assert not is_url(Path("http:/host")) and not is_url("data/http")
