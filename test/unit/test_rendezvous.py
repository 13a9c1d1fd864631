"""How machines wait for each other before a run."""

import socket
import threading

import pytest

from lib.runtime import rendezvous
from lib.runtime.rendezvous import Patience, Place, meet

SOON = Patience(say_every_s=0.03, give_up_s=0.1, look_every_s=0.01)
AT_ONCE = Patience(look_every_s=0.02)


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_machine_that_waits_says_so_at_once_and_again(port, capsys):
    """Fault M6: `--nproc=8 --dn=1`, meant as processes and cards, waited without a line."""
    with pytest.raises(TimeoutError, match="gave up after 0 s of waiting for machine 0 at 127"):
        meet(Place(1, 8, "127.0.0.1", port), SOON)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"machine 1 of 8: waiting for machine 0 at 127.0.0.1:{port} (")
    assert "127.0.0.1 is this machine itself: is that meant?" in first
    assert "--nproc counts machines" in first and "processes that load data are --workers" in first
    assert second.startswith("machine 1 of 8: waiting for machine 0 at ") and second.endswith(")")


def test_machine_0_says_who_is_missing(port, capsys):
    """Fault M6."""
    with pytest.raises(TimeoutError, match="waiting for machines 1, 2 to come to"):
        meet(Place(0, 3, "127.0.0.1", port), SOON)
    assert f"machine 0 of 3: waiting for machines 1, 2 to come to 127.0.0.1:{port}; " in (
        capsys.readouterr().out
    )


def test_machines_that_have_met_go_on(port, capsys):
    """Fault M6: and torchrun's own meeting finds the place open."""
    from torch.distributed import TCPStore

    places = []

    def come(rank: int) -> None:
        places.append(meet(Place(rank, 3, "127.0.0.1", port), AT_ONCE))

    machines = [threading.Thread(target=come, args=(rank,), daemon=True) for rank in (2, 0, 1)]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join(60)
    assert len(places) == 3
    assert "all 3 machines are there\n" in capsys.readouterr().out
    again = TCPStore("127.0.0.1", port, 1, True, multi_tenant=True)
    assert again.check(["hrnet/machine_2"])


def test_a_place_where_machines_cannot_meet_is_named(port):
    """Fault M6: a port that is taken was a traceback."""
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(ValueError, match=f"cannot meet at 127.0.0.1:{port}: is the port free"):
            meet(Place(0, 2, "127.0.0.1", port), AT_ONCE)


def test_an_address_of_another_machine_is_no_place_for_machine_0(port):
    """Fault M6: it waited for its own answer."""
    with pytest.raises(ValueError, match="cannot meet at no.such.host.invalid:.*: is --addr an ad"):
        meet(Place(0, 2, "no.such.host.invalid", port), AT_ONCE)


def test_a_service_that_is_no_machine_0_is_not_waited_for(port, monkeypatch):
    """Fault M6: torch waits for its answer without end."""
    monkeypatch.setattr(rendezvous, "_ANSWER_S", 0.1)
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(ValueError, match=r"something else answers there: .* \(no answer\)"):
            meet(Place(1, 2, "127.0.0.1", port), AT_ONCE)


@pytest.mark.parametrize("address", ["no.such.host.invalid", "a" * 70 + ".b", "\x1b[31m"])
def test_an_address_that_is_none_is_said_in_the_line(address, port, capsys):
    """Fault M6."""
    with pytest.raises(TimeoutError):
        meet(Place(1, 2, address, port), SOON)
    line = capsys.readouterr().out.splitlines()[0]
    assert "waiting for machine 0 at " in line and line.isprintable()
