"""A server that has lost slots finishes what it draws, takes nothing new, says why, and ends."""

import socket
import threading
import time

import pytest

from serving.slots import ServerEndsError, Slots, slot_sockets


class Server:
    """Pairs of sockets in place of Cog's, and a function that notes the reason to end."""

    def __init__(self, count: int = 4):
        self.pairs = [socket.socketpair() for _ in range(count)]
        self.ended = threading.Event()
        self.reasons = []
        self.slots = Slots(self.end, [ours.fileno() for ours, _ in self.pairs])

    def end(self, reason: str) -> None:
        self.reasons.append(reason)
        self.ended.set()

    def lose(self, number: int) -> None:
        self.pairs[number][1].shutdown(socket.SHUT_WR)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("serving.slots.EVERY_SECONDS", 0.02)
    server = Server()
    yield server
    server.slots.close()
    for pair in server.pairs:
        for one in pair:
            one.close()


def wait_for_trouble(slots) -> ServerEndsError:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            slots.check()
        except ServerEndsError as error:
            return error
        time.sleep(0.01)
    raise AssertionError("nothing was noticed")


def test_a_server_with_all_its_slots_goes_on(server):
    for number, (_, theirs) in enumerate(server.pairs):
        theirs.sendall(b"a prediction that waits")
        with server.slots.prediction():
            assert number >= 0
    assert not server.ended.wait(0.2)
    server.slots.check()


def test_lost_slots_are_counted_and_end_the_server(server, capfd):
    server.lose(1)
    server.lose(2)
    error = wait_for_trouble(server.slots)
    assert "Cog has lost" in str(error)
    assert "of 4 slots: this server ends by itself" in str(error)
    assert server.ended.wait(30)
    assert "of 4 slots" in server.reasons[0]
    assert "this server ends by itself" in capfd.readouterr().out


def test_running_predictions_are_finished_first_and_new_ones_refused(server):
    with server.slots.prediction():
        server.lose(0)
        wait_for_trouble(server.slots)
        with pytest.raises(ServerEndsError, match="ask again in a minute"), server.slots.prediction():
            raise AssertionError("it was taken")
        assert not server.ended.wait(0.2)
    assert server.ended.wait(30)


def test_a_prediction_that_fails_is_no_longer_counted(server):
    with pytest.raises(KeyError), server.slots.prediction():
        raise KeyError
    server.lose(3)
    assert server.ended.wait(30)


def test_a_reason_of_another_kind_ends_the_server_at_once(server):
    with server.slots.prediction():
        server.slots.end("nothing can be drawn any more (the GPU is gone)")
        assert server.reasons == ["nothing can be drawn any more (the GPU is gone)"]
    with pytest.raises(ServerEndsError, match="the GPU is gone"):
        server.slots.check()


def test_there_are_no_slots_outside_cogs_server():
    assert slot_sockets() == []
