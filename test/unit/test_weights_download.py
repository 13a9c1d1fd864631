"""Downloads of weights, from a server of this machine: resumed, checked, whole or not there."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import pickle
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.error import URLError
from urllib.request import OpenerDirector, Request

import numpy as np
import pytest
import torch
from range_server import RangeServer, WeightHandler, serving
from safetensors.torch import save

from lib.config.load import load_config
from lib.data.packed import storage
from lib.models.weights import download, find, transfer
from lib.models.weights.find import find_weights
from lib.models.weights.load import read_weights
from lib.models.weights.registry import Entry
from lib.models.weights.transfer import DownloadError, Source
from lib.training.start import TrainRequest, fetch_pretrained

Publish = Callable[[str, str], None]
NUM_WAITS, WAITS_S = 5, download._WAITS_S
PAGE = "<!DOCTYPE html><html><head><title>Sign in to\n the network</title></head></html>"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder that is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def server(site: Path) -> Iterator[RangeServer]:
    with serving(site, WeightHandler) as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's folder of checkpoints, for this test alone; nothing waits between two tries."""
    for name in ("HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(download, "_WAITS_S", (0.0,) * NUM_WAITS)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Gives weights at an address the name `published`, with the first digits of their sha256."""

    def name(url: str, sha256: str) -> None:
        entry = Entry("published", "hrnet_w18", "nobody", url, 0.0, None, "mit", sha256)
        monkeypatch.setattr(find, "lookup", {"published": entry}.get)

    return name


def weight_bytes(seed: int = 0) -> bytes:
    """A file of 40 kB, under the only name in it."""
    return save({"a": torch.rand(10_000, generator=torch.Generator().manual_seed(seed))})


def left_in(folder: Path) -> list[str]:
    """The files of a cache, also hidden ones."""
    return sorted(path.name for path in folder.rglob("*") if not path.is_dir())


def refused(wanted: str) -> str:
    """The line in which a download is refused."""
    with pytest.raises(DownloadError) as error:
        find_weights(wanted)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_address_is_fetched_once_and_read_offline_from_then_on(
    site: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    with serving(site, WeightHandler) as server:
        url = f"{server.url}/x.safetensors"
        read = read_weights(url).weights
    assert torch.equal(read["a"], torch.rand(10_000, generator=torch.Generator().manual_seed(0)))
    said = capsys.readouterr()
    assert said.out == "" and f"downloading x.safetensors (0.0 MB) from {url}\n" in said.err
    path = find_weights(url)
    assert left_in(cache) == [path.name] and path.name.endswith("_x.safetensors")


def test_two_addresses_of_files_of_one_name_are_two_files(site: Path, server: RangeServer) -> None:
    for folder in ("a", "b"):
        (site / folder).mkdir()
        (site / folder / "model.safetensors").write_bytes(weight_bytes(ord(folder)))
    first, second = (find_weights(f"{server.url}/{f}/model.safetensors") for f in ("a", "b"))
    assert first.read_bytes() == weight_bytes(ord("a"))
    assert second.read_bytes() == weight_bytes(ord("b"))


def test_a_broken_connection_is_gone_on_with_where_it_broke(
    site: Path, server: RangeServer
) -> None:
    content = weight_bytes()
    (site / "x.safetensors").write_bytes(content)
    server.faults = ["half", "close", 503, "half", "half"]
    assert find_weights(f"{server.url}/x.safetensors").read_bytes() == content
    half = len(content) // 2
    quarter = half + (len(content) - half) // 2
    eighth = quarter + (len(content) - quarter) // 2
    starts = [half, half, half, quarter, eighth]
    assert server.ranges == [None, *(f"bytes={start}-" for start in starts)]


def test_more_breaks_than_tries_are_survived_as_long_as_something_arrives(
    site: Path, server: RangeServer
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    server.faults = ["half"] * (NUM_WAITS + 4)
    assert find_weights(f"{server.url}/x.safetensors").read_bytes() == weight_bytes()


def test_a_server_that_begins_anew_and_breaks_again_is_given_up_with_growing_waits(
    site: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    server.faults = ["no parts, 0.6", "no parts, 0.4"] * 10
    monkeypatch.setattr(download, "_WAITS_S", WAITS_S)
    waits_s: list[float] = []
    monkeypatch.setattr(time, "sleep", waits_s.append)
    assert "(tried 6 times)" in refused(f"{server.url}/x.safetensors")
    assert len(server.requests) == 1 + NUM_WAITS
    assert waits_s == sorted(set(waits_s)) and len(waits_s) == NUM_WAITS and waits_s[0] > 0


def test_the_next_process_goes_on_with_what_one_before_has_left(
    site: Path, server: RangeServer, cache: Path
) -> None:
    content = weight_bytes()
    (site / "x.safetensors").write_bytes(content)
    server.faults = ["half", *[503] * NUM_WAITS]
    url = f"{server.url}/x.safetensors"
    said = refused(url)
    assert "503 Service Unavailable (tried 6 times); what has arrived is kept" in said
    assert all(name.startswith(".") for name in left_in(cache)), "half a file has no final name"
    server.ranges.clear()
    path = find_weights(url)
    assert path.read_bytes() == content and left_in(cache) == [path.name]
    assert server.ranges == [f"bytes={len(content) // 2}-"]


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(
    site: Path, server: RangeServer
) -> None:
    path = site / "x.safetensors"
    path.write_bytes(weight_bytes(0))
    server.faults = ["half", *[503] * NUM_WAITS]
    refused(f"{server.url}/x.safetensors")
    path.write_bytes(weight_bytes(1))
    assert find_weights(f"{server.url}/x.safetensors").read_bytes() == weight_bytes(1)
    assert str(server.ranges[-1]).startswith("bytes="), "the server saw by If-Range that it did"


def test_a_beginning_of_another_file_is_found_out_by_the_hash_and_fetched_anew(
    site: Path, server: RangeServer, publish: Publish
) -> None:
    """Where a server takes no notice of If-Range."""
    path = site / "x.safetensors"
    publish(f"{server.url}/x.safetensors", hashlib.sha256(weight_bytes(1)).hexdigest()[:8])
    path.write_bytes(weight_bytes(0))
    server.faults = ["half", *[503] * NUM_WAITS]
    refused("published")
    path.write_bytes(weight_bytes(1))
    server.faults = ["any tag"]
    assert find_weights("published").read_bytes() == weight_bytes(1)
    assert server.ranges[-1] is None


def test_a_server_without_parts_or_tags_sends_the_file_again(
    site: Path, server: RangeServer
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    server.faults = ["half", "no parts"]
    assert find_weights(f"{server.url}/x.safetensors").read_bytes() == weight_bytes()
    (site / "y.safetensors").write_bytes(weight_bytes())
    server.faults, server.ranges = ["no tag"], []
    assert find_weights(f"{server.url}/y.safetensors").read_bytes() == weight_bytes()
    assert server.ranges == [None, None], "nothing would tell whether the file is still the same"


def test_a_part_longer_than_the_file_is_fetched_from_the_start(
    site: Path, server: RangeServer, publish: Publish
) -> None:
    path = site / "x.safetensors"
    publish(f"{server.url}/x.safetensors", hashlib.sha256(weight_bytes()).hexdigest())
    path.write_bytes(weight_bytes() * 4)
    server.faults = ["half", *[503] * NUM_WAITS]
    refused("published")
    path.write_bytes(weight_bytes())
    server.faults = ["any tag"] * (NUM_WAITS + 1)
    assert find_weights("published").read_bytes() == weight_bytes()


def test_a_file_of_another_hash_is_refused_and_removed(
    site: Path, server: RangeServer, cache: Path, publish: Publish
) -> None:
    (site / "x-deadbeef.safetensors").write_bytes(weight_bytes())
    publish(f"{server.url}/x-deadbeef.safetensors", "deadbeef")
    said = refused("published")
    assert "downloaded and removed: its sha256 is" in said and "published is deadbeef" in said
    assert left_in(cache) == []


@pytest.mark.parametrize("digits, warns", [("20240115", False), ("deadbeef", True)])
def test_digits_in_the_name_at_an_unknown_address_are_no_published_hash(
    digits: str, warns: bool, site: Path, server: RangeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        (site / folder).mkdir()
        (site / folder / f"m-{digits}.safetensors").write_bytes(weight_bytes(ord(folder)))
        url = f"{server.url}/{folder}/m-{digits}.safetensors"
        assert find_weights(url).read_bytes() == weight_bytes(ord(folder))
        warning = f"[Warning] {url} is not of the sha256 that its name may state, {digits}\n"
        assert (warning in capsys.readouterr().err) == warns
    assert find_weights(url).read_bytes() == weight_bytes(ord("b"))
    assert len(server.requests) == 2


@pytest.mark.parametrize("status, expected", [(404, "404 Not Found"), (403, "wants a login")])
def test_an_answer_that_no_further_try_mends_is_said_at_once(
    status: int, expected: str, site: Path, server: RangeServer, cache: Path
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    server.faults = [status]
    assert expected in refused(f"{server.url}/x.safetensors")
    assert len(server.requests) == 1 and left_in(cache) == []


def test_redirects_in_a_circle_are_said_in_one_plain_sentence(server: RangeServer) -> None:
    url = f"{server.url}/x.pth"
    server.redirects = {"/x.pth": {"Location": "/y.pth"}, "/y.pth": {"Location": "/x.pth"}}
    said = f"{url} cannot be downloaded: its redirects lead back to where they began; the file has"
    assert refused(url).startswith(said)


def test_a_proxys_page_in_place_of_the_file_is_told_by_its_title(
    site: Path, server: RangeServer, cache: Path
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    server.faults = [f"page {PAGE}", "page not even html"]
    said = refused(f"{server.url}/x.safetensors")
    assert "a web page ('Sign in to the network') in place of the file" in said
    assert "sends a web page in place of the file" in refused(f"{server.url}/x.safetensors")
    (site / "login").write_bytes(PAGE.encode())
    server.redirects = {"/y.safetensors": {"Location": f"{server.url}/login"}}
    assert f"from {server.url}/login" in refused(f"{server.url}/y.safetensors")
    assert left_in(cache) == []


def test_files_that_are_cut_short_or_no_weights_are_refused_by_their_form(
    site: Path, server: RangeServer, cache: Path, tmp_path: Path
) -> None:
    torch.save({"a": torch.zeros(9)}, tmp_path / "x.pth")
    cases = {
        "short.safetensors": (weight_bytes()[:-8], "has 40064 bytes and should have 40072"),
        "header.safetensors": (weight_bytes()[:20], "it is cut short, at 20 bytes"),
        "empty.safetensors": (b"", "no safetensors file, 0 bytes"),
        "cut.pth": ((tmp_path / "x.pth").read_bytes()[:-30], "it is cut short"),
        "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\n", "holds no weights"),
    }
    for name, (content, expected) in cases.items():
        (site / name).write_bytes(content)
        assert expected in refused(f"{server.url}/{name}")
    assert left_in(cache) == []


def pickled(form: str, path: Path) -> bytes:
    """Weights as PaddlePaddle, and as torch before 1.6, writes them."""
    if form == "pdparams":
        return pickle.dumps({"a": np.arange(9_000, dtype=np.float32), "b": np.zeros(3)}, 2)
    weights = {"a": torch.rand(100, 90), "n": torch.tensor(3), "h": torch.rand(5).half()}
    weights["t"] = weights["a"].t()
    content = {"state_dict": weights, "options": argparse.Namespace(lr=0.1), "lr": np.float64(1)}
    content["network"] = torch.nn.Linear(2, 2)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["pdparams", "pth"])
def test_a_pickle_that_ends_early_is_refused_though_the_server_gives_no_length(
    form: str, site: Path, server: RangeServer, cache: Path, tmp_path: Path
) -> None:
    content = pickled(form, tmp_path / "x.pth")
    (site / f"x.{form}").write_bytes(content)
    server.faults = ["half without length"]
    assert f"{len(content) // 2} bytes" in refused(f"{server.url}/x.{form}")
    assert left_in(cache) == []
    for num_bytes in (len(content) - 1, 400, 30):
        (site / f"y.{form}").write_bytes(content[:num_bytes])
        assert f"{num_bytes} bytes" in refused(f"{server.url}/y.{form}")
    (site / f"y.{form}").write_bytes(content + b".")
    assert f"should have {len(content)}" in refused(f"{server.url}/y.{form}")
    assert left_in(cache) == []
    assert find_weights(f"{server.url}/x.{form}").read_bytes() == content


@pytest.mark.parametrize("form", ["pdparams", "pth"])
def test_a_part_of_an_unknown_whole_has_the_length_that_the_server_announces(
    form: str, site: Path, server: RangeServer, tmp_path: Path
) -> None:
    content = pickled(form, tmp_path / "x.pth")
    (site / f"x.{form}").write_bytes(content)
    server.faults = ["half", "half of unknown"]
    assert find_weights(f"{server.url}/x.{form}").read_bytes() == content
    half = len(content) // 2
    assert server.ranges[1:] == [f"bytes={half}-", f"bytes={half + (len(content) - half) // 2}-"]


def test_a_damaged_file_in_the_cache_is_named_as_what_to_delete(
    site: Path, server: RangeServer, tmp_path: Path
) -> None:
    (site / "x.pdparams").write_bytes(pickled("pdparams", tmp_path))
    url = f"{server.url}/x.pdparams"
    path = find_weights(url)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ValueError, match=f"is damaged .*; it was downloaded for .*delete {path}"):
        read_weights(url)
    with pytest.raises(ValueError, match="is damaged") as error:
        read_weights(path)
    assert "delete" not in str(error.value), "a user's own file"


def test_without_a_network_the_last_line_says_so_and_what_to_do(cache: Path, site: Path) -> None:
    with serving(site, WeightHandler) as server:
        url = f"{server.url}/x.safetensors"
    said = refused(url)
    assert "ConnectionRefusedError" in said and "(tried once); check the network" in said
    digits = hashlib.sha256(url.encode()).hexdigest()[:8]
    place = cache / f"{digits}_x.safetensors"
    assert f"put it here as {place}, or give its path" in said and left_in(cache) == []
    place.write_bytes(weight_bytes())
    assert find_weights(url) == place


def test_without_a_network_a_name_says_file_place_and_mirror_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault M4: no tries that mend nothing; what else there is; and that it works."""
    tries: list[object] = []

    def fail(*arguments: object, **options: object) -> None:
        tries.append(arguments)
        raise URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(transfer.OpenerDirector, "open", fail)
    said = refused("hrnet_w18")
    assert "Temporary failure in name resolution (tried once)" in said and len(tries) == 1
    assert "let HF_ENDPOINT be the address of a mirror, or fetch it on another machine" in said
    place = Path(said.partition("put it here as ")[2].partition(",")[0])
    assert place.name == "model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(weight_bytes())
    assert find_weights("hrnet_w18") == place
    place.unlink()
    request = TrainRequest(Path("data"), Path("run"), "x")
    with pytest.raises(DownloadError, match=r"--pretrained none \(finetune.py\)"):
        fetch_pretrained(load_config(None, ["MODEL.PRETRAINED", "hrnet_w18"]), request)


def test_a_connection_that_is_lost_on_the_way_is_tried_again(
    site: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault M4: only a server that was never reached is given up at once."""
    (site / "x.safetensors").write_bytes(weight_bytes())
    server.faults = ["half"]
    opened = transfer.OpenerDirector.open
    times = iter(range(99))

    def sometimes(self: OpenerDirector, *arguments: object, **options: object) -> object:
        if next(times) in (1, 2):
            raise URLError(ConnectionRefusedError(111, "Connection refused"))
        return opened(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer.OpenerDirector, "open", sometimes)
    assert find_weights(f"{server.url}/x.safetensors").read_bytes() == weight_bytes()


class Hostile(SimpleHTTPRequestHandler):
    """Answers without end, one way for each path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            getattr(self, f"_{self.path[1:].partition('.')[0]}")()
        self.close_connection = True

    def _drip(self) -> None:
        self._begin(200, ETag='"1"')
        while True:
            self.wfile.write(b"x")
            time.sleep(0.02)

    def _header(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            self.wfile.write(b"x")
            time.sleep(0.02)

    def _endless(self) -> None:
        self._begin(200)
        while True:
            self.wfile.write(b"\x80" * 65536)

    def _huge(self) -> None:
        self._begin(200, **{"Content-Length": str(10**12)})

    def _nonsense(self) -> None:
        self._begin(200, **{"Content-Length": "9" * 5000, "X-Linked-Etag": "\x1b[31m"})

    def _reason(self) -> None:
        self.wfile.write(b"HTTP/1.1 404 No\x1b[31m such\r\nContent-Length: 0\r\n\r\n")

    def _begin(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    "path, expected",
    [
        ("drip.pth", "bytes came in 0 s"),
        ("header.pth", "bytes came in 0 s"),
        ("endless.pth", "sends more than 300000 bytes, and weights have at most"),
        ("huge.pth", "announces 1000.0 GB"),
        ("nonsense.pth", "holds no weights, 0 bytes"),
        ("reason.pth", "404 No\\x1b[31m such"),
    ],
)
def test_an_answer_without_end_is_given_up_in_one_line(
    path: str, expected: str, site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault R1: too slow, too long, or of a length that is none."""
    monkeypatch.setattr(storage, "_TIMEOUT_S", 0.1)
    monkeypatch.setattr(find, "Source", partial(Source, max_bytes=300_000))
    with serving(site, Hostile) as server:
        url = f"{server.url}/{path}"
        said = refused(url)
    assert expected in said and url in said and said.isprintable()
    assert sum(file.stat().st_size for file in cache.rglob("*")) < 10_000


def test_an_untrusted_certificate_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
    reason.verify_message = "self-signed certificate"

    def fail(*arguments: object, **options: object) -> None:
        raise URLError(reason)

    monkeypatch.setattr(transfer.OpenerDirector, "open", fail)
    said = refused("https://127.0.0.1/x.pth")
    assert "certificate is not trusted (self-signed certificate)" in said
    assert "SSL_CERT_FILE" in said


def test_a_secure_address_that_leads_to_an_insecure_one_is_refused() -> None:
    hops = transfer._Hops()
    request = Request("https://127.0.0.1/x.pth")
    with pytest.raises(DownloadError, match="leads to http://login, which is not https"):
        hops.redirect_request(request, None, 302, "Found", Message(), "http://login")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["http://", "https://host:x/w.pth", "https://[::1/w", "http://h/a b"]
)
def test_half_an_address_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ValueError, match="is no address to download from: use https://HOST/PATH"):
        find_weights(url)


def test_too_little_space_is_seen_before_a_byte_is_written(
    site: Path, server: RangeServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    real = shutil.disk_usage(site)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=1000))
    said = refused(f"{server.url}/x.safetensors")
    assert f"in {cache}: 0.0 MB are needed and 0.0 MB free; make room" in said
    assert left_in(cache) == []


def test_a_disk_that_gets_full_is_said_and_nothing_has_the_final_name(
    site: Path, server: RangeServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "write_whole", full)
    assert "no space for" in refused(f"{server.url}/x.safetensors")
    assert left_in(cache) == []


def test_a_cache_that_cannot_be_written_is_named_with_what_to_set(
    site: Path, server: RangeServer, tmp_path: Path
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    (tmp_path / "torch").write_text("a file")
    said = refused(f"{server.url}/x.safetensors")
    assert "cannot be written (Not a directory)" in said and "TORCH_HOME" in said
    assert server.requests == []


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that downloads say, of all threads."""
    lines: list[str] = []
    monkeypatch.setattr(find, "_say", lines.append)
    return lines


def num_waiting(said: list[str]) -> int:
    return sum(line.endswith("waiting for it") for line in said)


def wait_until(is_so: Callable[[], bool], threads: list[threading.Thread]) -> None:
    while not is_so():
        assert all(thread.is_alive() for thread in threads)
        time.sleep(0.002)


def test_two_processes_at_once_fetch_a_file_once_and_both_get_it(
    site: Path, server: RangeServer, cache: Path, said: list[str]
) -> None:
    """A thread holds its lock as another process would: by a file of its own."""
    (site / "x.safetensors").write_bytes(weight_bytes())
    url, paths = f"{server.url}/x.safetensors", []
    server.may_answer.clear()
    threads = [threading.Thread(target=lambda: paths.append(find_weights(url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: num_waiting(said) == 2, threads)
    server.may_answer.set()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert left_in(cache) == [paths[0].name] and paths == [paths[0]] * 3
    assert paths[0].read_bytes() == weight_bytes()


def test_who_waits_for_a_download_that_fails_does_it_himself(
    site: Path, server: RangeServer, said: list[str]
) -> None:
    (site / "x.safetensors").write_bytes(weight_bytes())
    url, answers = f"{server.url}/x.safetensors", []
    server.faults = [404]
    server.may_answer.clear()

    def fetch() -> None:
        try:
            answers.append(find_weights(url))
        except DownloadError as error:
            answers.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: num_waiting(said) == 1, threads)
    server.may_answer.set()
    for thread in threads:
        thread.join()
    assert sorted(type(answer).__name__ for answer in answers) == ["DownloadError", "PosixPath"]
