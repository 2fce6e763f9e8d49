"""How the two halves of a region talk: letters in a folder, each written as a whole or not at all.

Towards the root a region is a SuperNode, whose app runs for one message and ends; towards its
clients it is a ServerApp that stays. Both are on one machine. A letter is a folder of Flower's
serialized objects, named by the digest of its content: the same request comes to the same place.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from quancrypt_fl.errors import FederatedError

__all__ = ["Mailbox", "MailboxError"]

_ENVELOPE = "quancrypt-envelope"
_OBJECT = re.compile("[0-9a-f]{64}")


class MailboxError(FederatedError):
    """A letter cannot be written or read, or the answer is a refusal."""


class Mailbox:
    """A folder with requests and answers.

    Parameters
    ----------
    folder
        Made if absent, for its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self._requests = Path(folder) / "requests"
        self._answers = Path(folder) / "answers"
        for place in (self._requests, self._answers):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)

    # --- the root's side ---

    def send(self, message: Message) -> str:
        """Leave a request; its letter's name."""
        envelope = ConfigRecord(
            {
                "kind": message.metadata.message_type.split(".")[0],
                "group": message.metadata.group_id,
            }
        )
        return _write(self._requests, RecordDict({**message.content, _ENVELOPE: envelope}))

    def take_answer(self, letter: str) -> RecordDict | None:
        """The answer to a letter, once; None if it is not there yet.

        Raises
        ------
        MailboxError
            If it is a refusal: the text of it.
        """
        place = self._answers / letter
        if not place.is_dir():
            return None
        content = _read(place)
        shutil.rmtree(place)
        envelope = content.pop(_ENVELOPE)
        if refusal := envelope.get("refusal"):
            raise MailboxError(str(refusal))
        return content

    # --- the region's side ---

    def next_request(self) -> tuple[str, Message] | None:
        """The oldest request and its letter's name; it stays until it is answered."""
        letters = [place for place in self._requests.iterdir() if _OBJECT.fullmatch(place.name)]
        if not letters:
            return None
        place = min(letters, key=lambda each: (each.stat().st_mtime_ns, each.name))
        content = _read(place)
        envelope = content.pop(_ENVELOPE)
        message = Message(content, 1, str(envelope["kind"]), group_id=str(envelope["group"]))
        return place.name, message

    def answer(self, letter: str, content: RecordDict) -> None:
        """Answer a letter. Answers to other letters that nobody took are thrown away."""
        self._reply(letter, RecordDict({**content, _ENVELOPE: ConfigRecord({})}))

    def refuse(self, letter: str, reason: str) -> None:
        """Answer a letter with the reason why there is no answer."""
        self._reply(letter, RecordDict({_ENVELOPE: ConfigRecord({"refusal": reason})}))

    def _reply(self, letter: str, content: RecordDict) -> None:
        for old in self._answers.iterdir():
            shutil.rmtree(old, ignore_errors=True)
        _write(self._answers, content, letter)
        shutil.rmtree(self._requests / letter, ignore_errors=True)


def _write(folder: Path, content: RecordDict, name: str | None = None) -> str:
    """Write the objects of a record; the folder appears under its name when all are there."""
    objects = get_all_nested_objects(content)
    root = content.object_id
    letter = name or root
    temporary = folder / f"{letter}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        for key, item in objects.items():
            (temporary / key).write_bytes(item.deflate())
        (temporary / "root").write_text(root, encoding="ascii")
        if (folder / letter).is_dir():
            shutil.rmtree(temporary)  # the same letter is there already
        else:
            temporary.rename(folder / letter)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise MailboxError(f"{folder}: a letter cannot be written: {error.strerror}") from error
    return letter


def _read(place: Path) -> RecordDict:
    try:
        contents = {
            path.name: path.read_bytes() for path in place.iterdir() if _OBJECT.fullmatch(path.name)
        }
        found = inflate_object_from_contents((place / "root").read_text("ascii"), contents)
    except (OSError, ValueError, KeyError) as error:
        raise MailboxError(f"{place}: a letter cannot be read: {error!r:.200}") from error
    if not isinstance(found, RecordDict) or _ENVELOPE not in found.config_records:
        raise MailboxError(f"{place}: a letter without an envelope")
    return found
