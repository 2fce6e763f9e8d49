"""What can go wrong between a strategy and one client, as scripted for a ``LocalGrid``.

A fault stands around the client app's call, edits its replies, or changes when they are delivered.
``LocalGrid.inject`` says which messages it meets. What a hostile client replies is in hostile.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

from flwr.app import Message

if TYPE_CHECKING:
    from tests.fl.flower.local_grid import Exchange, LocalGrid

Edit = Callable[[Message], Message | Sequence[Message]]


class Killed(BaseException):
    """The process died here. Not an ``Exception``: nothing in an app catches it.

    ``finally`` blocks still run, which a real SIGKILL does not allow: what is left on the disk at
    such a moment is a matter for tests with processes.
    """

    def __init__(self, context: Literal["lost", "kept"] = "lost", comes_back: bool = True) -> None:
        super().__init__("killed")
        self.context = context
        self.comes_back = comes_back


class ScriptError(AssertionError):
    """The test's script does not fit the code under test; a grid lets it through."""


class Unheard(BaseException):
    """The client never saw the message."""


class Fault:
    """One kind of fault; the base class is no fault at all."""

    runs = 1  # how often the client answers the same message

    @contextmanager
    def around(self, exchange: Exchange) -> Iterator[None]:
        """Surround the app's call: raise before or after it."""
        yield

    def edit(self, replies: list[Message], exchange: Exchange, grid: LocalGrid) -> list[Message]:
        """Replies as they leave the client."""
        return replies

    def objects(self, contents: dict[str, bytes], root: str) -> tuple[dict[str, bytes], str]:
        """Serialized objects of a reply, by object ID, and the ID of the message among them."""
        return contents, root

    def schedule(self, exchange: Exchange) -> None:
        """When the replies can be pulled."""


@dataclass
class Raises(Fault):
    """The app raises, before or after its work: the server gets an error reply."""

    error: Exception = field(default_factory=lambda: RuntimeError("no data on this machine"))
    at: Literal["before", "after"] = "before"

    @contextmanager
    def around(self, exchange: Exchange) -> Iterator[None]:
        if self.at == "before":
            raise self.error
        yield
        raise self.error


@dataclass
class Kill(Fault):
    """The client dies before the app is called, or after it and before its reply is sent.

    Parameters
    ----------
    context : {"lost", "kept"}
        ``"lost"``: the SuperNode dies too, and Flower's ``Context`` with it. ``"kept"``: only the
        app's process, so that the context is what it was before this message. Folders stay as
        they are either way, and an app that was given as a factory is built again.
    comes_back : bool
        Whether the node stays in the federation; if not, ``LocalGrid.join`` brings it back.
    """

    at: Literal["before", "after"] = "before"
    context: Literal["lost", "kept"] = "lost"
    comes_back: bool = True

    @contextmanager
    def around(self, exchange: Exchange) -> Iterator[None]:
        if self.at == "before":
            raise Killed(self.context, self.comes_back)
        yield
        raise Killed(self.context, self.comes_back)


@contextmanager
def killing(
    target: Any,
    attribute: str,
    *,
    call: int = 1,
    at: Literal["before", "after"] = "before",
    error: BaseException | None = None,
) -> Iterator[list[int]]:
    """Die at the ``call``-th call of ``target.attribute``, before or after its work.

    ``error`` is raised instead of `Killed`: ``OSError(errno.ENOSPC, ...)`` at ``os.replace``, say.
    Yields a list that holds the number of calls seen. For a server under test as well as a client.
    """
    real = getattr(target, attribute)
    seen = [0]

    def wrapper(*args: Any, **options: Any) -> Any:
        seen[0] += 1
        if seen[0] != call:
            return real(*args, **options)
        if at == "after":
            real(*args, **options)
        raise error if error is not None else Killed()

    with mock.patch.object(target, attribute, wrapper):
        yield seen


@dataclass(frozen=True)
class Death:
    """A death at the ``call``-th call of ``target.attribute`` from now on, by whichever process.

    ``what`` says in a word what the process is doing there, ``side`` whether it is the server.
    """

    what: str
    target: Any
    attribute: str
    call: int = 1
    at: Literal["before", "after"] = "before"
    side: Literal["client", "server"] = "client"


@contextmanager
def dying(plan: Sequence[Death], on_death: Callable[[Death], BaseException]) -> Iterator[None]:
    """Die again and again: the next death of the plan is due once the one before has come.

    ``on_death`` is told of each and gives what is raised.
    """
    done, seen = 0, 0

    def wrapped(real: Callable[..., Any], target: Any, attribute: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            nonlocal done, seen
            due = plan[done] if done < len(plan) else None
            if due is None or (due.target, due.attribute) != (target, attribute):
                return real(*args, **options)
            seen += 1
            if seen != due.call:
                return real(*args, **options)
            if due.at == "after":
                real(*args, **options)
            done, seen = done + 1, 0
            raise on_death(due)

        return wrapper

    with ExitStack() as stack:
        for target, attribute in dict.fromkeys((each.target, each.attribute) for each in plan):
            real = getattr(target, attribute)
            made = wrapped(real, target, attribute)
            stack.enter_context(mock.patch.object(target, attribute, made))
        yield


@dataclass
class KillAt(Fault):
    """The client dies inside the app, at a call of ``target.attribute`` (see `killing`)."""

    target: Any
    attribute: str
    call: int = 1
    at: Literal["before", "after"] = "before"
    context: Literal["lost", "kept"] = "lost"
    comes_back: bool = True

    @contextmanager
    def around(self, exchange: Exchange) -> Iterator[None]:
        dead = Killed(self.context, self.comes_back)
        with killing(self.target, self.attribute, call=self.call, at=self.at, error=dead) as calls:
            problem: Exception | None = None
            try:
                yield
            except Exception as error:
                problem = error
        raise ScriptError(
            f"the client was to die at call {self.call} of {self.attribute}, "
            f"but called it {calls[0]} times"
        ) from problem


@dataclass
class FailAt(Fault):
    """A call inside the app raises ``error`` (a full disk, say); what follows is up to the app."""

    target: Any
    attribute: str
    error: Exception
    call: int = 1

    @contextmanager
    def around(self, exchange: Exchange) -> Iterator[None]:
        with killing(self.target, self.attribute, call=self.call, error=self.error) as calls:
            yield
        if calls[0] < self.call:
            raise ScriptError(f"{self.attribute} was called {calls[0]} times, not {self.call}")


@dataclass
class Hang(Fault):
    """The client does its work and the reply is not there in time.

    ``seconds``: after so long by the grid's clock. ``pulls``: so many pulls that ask for it find
    nothing. Neither: never, and the work is not done either.
    """

    seconds: float | None = None
    pulls: int | None = None

    @contextmanager
    def around(self, exchange: Exchange) -> Iterator[None]:
        if self.seconds is None and self.pulls is None:
            raise Unheard
        yield

    def schedule(self, exchange: Exchange) -> None:
        exchange.due += self.seconds or 0.0
        exchange.pulls_left += self.pulls or 0


@dataclass
class Lose(Fault):
    """The message is lost on its way to the client, or the reply on its way back."""

    what: Literal["request", "reply"] = "reply"

    @contextmanager
    def around(self, exchange: Exchange) -> Iterator[None]:
        if self.what == "request":
            raise Unheard
        yield

    def edit(self, replies: list[Message], exchange: Exchange, grid: LocalGrid) -> list[Message]:
        return []


@dataclass
class Repeat(Fault):
    """The reply comes twice.

    ``"together"``: both in one pull. ``"later"``: again in the next pull, whatever that asks for.
    ``"rerun"``: the client is given the message twice and answers twice, its state moved on.
    """

    how: Literal["together", "later", "rerun"] = "together"

    def __post_init__(self) -> None:
        self.runs = 2 if self.how == "rerun" else 1

    def edit(self, replies: list[Message], exchange: Exchange, grid: LocalGrid) -> list[Message]:
        return replies * 2 if self.how == "together" else replies

    def schedule(self, exchange: Exchange) -> None:
        exchange.again = exchange.again or self.how == "later"


@dataclass
class Replace(Fault):
    """The reply is another: ``edit`` gets the honest one (see hostile.py)."""

    with_: Edit

    def edit(self, replies: list[Message], exchange: Exchange, grid: LocalGrid) -> list[Message]:
        changed: list[Message] = []
        for reply in replies:
            new = self.with_(reply)
            changed.extend([new] if isinstance(new, Message) else new)
        return changed


@dataclass
class ReplyOf(Fault):
    """The content is that of another reply: of another node, another round, or both.

    The other reply must have been computed (put that node earlier in the push).
    """

    node: int | None = None
    round: int | None = None

    def edit(self, replies: list[Message], exchange: Exchange, grid: LocalGrid) -> list[Message]:
        node = exchange.node if self.node is None else self.node
        number = exchange.round if self.round is None else self.round
        other = grid.reply_content(node, number, exchange.asks)
        return [Message(other, reply_to=exchange.request()) for _ in replies]


@dataclass
class Damage(Fault):
    """The reply's serialized objects are changed: ``edit(contents, root)`` (see hostile.py)."""

    edit_objects: Callable[[dict[str, bytes], str], tuple[dict[str, bytes], str]]

    def objects(self, contents: dict[str, bytes], root: str) -> tuple[dict[str, bytes], str]:
        return self.edit_objects(contents, root)
