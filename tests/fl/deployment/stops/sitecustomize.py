"""On the PYTHONPATH of a deployment under test: lets a client's process die in a phase of choice.

The file that ``QUANCRYPT_TEST_STOPS`` names the folder of, with a client's name or called ``any``,
holds a phase. The process of that client, or of any, which next comes to that phase renames it to
``CLIENT.PHASE`` and goes no further; SIGKILL is then the test's to send. Nothing else is changed by
it.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("QUANCRYPT_TEST_STOPS", "")
# FLWR_HOME is KIT/state/flower.
CLIENT = Path(os.environ.get("FLWR_HOME", "/none/none/none")).parts[-3]

LARGE = 5_000  # bytes; of a report or an upload there is one such object


def stop(phase: str) -> None:
    """Go no further, if this client is to stop here."""
    for order in (Path(FOLDER, CLIENT), Path(FOLDER, "any")):
        try:
            if order.read_text() == phase:
                order.rename(Path(FOLDER, f"{CLIENT}.{phase}"))
                break
        except FileNotFoundError:
            continue
    else:
        return
    while True:
        time.sleep(3600)


def amid_training(module: Any) -> None:
    """At the third step of the optimizer."""
    adam, steps = module.torch.optim.Adam, [0]

    def after() -> None:
        steps[0] += 1
        if steps[0] == 3:
            stop("training")

    adam.step = followed(adam.step, after)


def amid_keeping() -> None:
    """The finished training is written, and not yet in its place."""
    replace = Path.replace

    @functools.wraps(replace)
    def wrapper(written: Path, place: Any) -> Path:
        if Path(place).name == "pending":
            stop("keeping")
        return replace(written, place)

    Path.replace = wrapper  # type: ignore[method-assign]


def amid_encrypting(module: Any) -> None:
    """The update is encrypted, and nobody has it."""
    module.Protector.protect = followed(module.Protector.protect, lambda: stop("encrypting"))


def amid_uploading(module: Any) -> None:
    """The SuperNode is about to announce a reply; or the largest part of it is not there yet."""
    tell, push = module.FleetHttpClient.PushMessages, module.FleetHttpClient.PushObject

    @functools.wraps(tell)
    def telling(client: Any, request: Any) -> Any:
        stop("sending")
        return tell(client, request)

    @functools.wraps(push)
    def pushing(client: Any, request: Any) -> Any:
        if len(request.object_content) > LARGE:
            stop("uploading")
        return push(client, request)

    module.FleetHttpClient.PushMessages = telling
    module.FleetHttpClient.PushObject = pushing


def amid_opening(module: Any) -> None:
    """The client has been asked for its part of opening a sum, and has not begun."""
    part = module.JointParty.part

    @functools.wraps(part)
    def wrapper(*args: Any) -> Any:
        stop("opening")
        return part(*args)

    module.JointParty.part = wrapper


PLACES: dict[str, Callable[[Any], None]] = {
    "quancrypt_fl.training": amid_training,
    "quancrypt_fl.protect": amid_encrypting,
    "quancrypt_fl.flower.parties": amid_opening,
    "flwr.supernode.fleet_http_client": amid_uploading,
}


def followed(real: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    """A function, and what comes after it."""

    @functools.wraps(real)
    def wrapper(*args: Any, **options: Any) -> Any:
        result = real(*args, **options)
        then()
        return result

    return wrapper


class Places(MetaPathFinder):
    """Puts the stops into the modules above once they are imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec that the other finders have, with a loader that puts the stop in."""
        if name not in PLACES:
            return None
        found = (
            finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self
        )
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            PLACES[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FOLDER:
    amid_keeping()
    sys.meta_path.insert(0, Places())
