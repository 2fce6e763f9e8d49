"""``python aggregation_scale.py``: what adding costs a server, per value, on one thread.

An upload of a client, whose second polynomial is expanded from its seed, beside a sum of a region,
which brings both polynomials, beside what Flower does to a message of these bytes at each end
(objects of 5 MiB, each named by its SHA-256): in turn, so that what else happens on the machine
slows all. Checks the answer. Prints a JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

import quancrypt_native as qn

VALUES = 2_000_000  # so many are added at a time; ciphertexts are independent of each other


def measure(clients: int, bits: int, values: int, pairs: int) -> dict[str, object]:
    qn.set_num_threads(1)
    params = qn.Parameters.for_aggregation(
        bits=bits,
        max_weight=1 << (clients - 1).bit_length(),
        key_mode="symmetric",
        values=values,
    )
    secret = qn.keygen(params).secret
    encryptor = qn.Encryptor(params, secret)
    limit = params.q_max
    integers = np.random.default_rng(1).integers(-limit, limit + 1, VALUES)
    upload = encryptor.encrypt_integers(integers).to_bytes()
    total = qn.aggregate([qn.EncryptedUpdate.from_bytes(upload, params)] * 2).to_bytes()

    seconds: dict[str, list[float]] = {"upload": [], "sum": [], "send": [], "receive": []}
    aggregator = qn.Aggregator(params)
    added = 0
    for _ in range(pairs):
        for name, data, weight in (("upload", upload, 1), ("sum", total, 2)):
            start = time.perf_counter()
            aggregator.add(qn.EncryptedUpdate.parse(data, params))
            seconds[name].append(time.perf_counter() - start)
            added += weight
        start = time.perf_counter()
        contents, root = sent(upload)
        seconds["send"].append(time.perf_counter() - start)
        start = time.perf_counter()
        assert received(contents, root) == upload
        seconds["receive"].append(time.perf_counter() - start)
    found = qn.Decryptor(params, secret).decrypt_integers(aggregator.result())
    assert np.array_equal(found, added * integers)

    per_value = {name: statistics.median(each) / VALUES for name, each in seconds.items()}
    ciphertexts = -(-values // params.values_per_ciphertext)
    words = 2 * len(params.data_primes) * params.poly_degree * ciphertexts
    ratios = [s / u for u, s in zip(seconds["upload"], seconds["sum"], strict=True)]
    return {
        "clients": clients,
        "bits": bits,
        "values": values,
        "poly_degree": params.poly_degree,
        "upload_bytes": params.upload_bytes(values),
        "sum_bytes": 2 * params.upload_bytes(values),
        "running_sum_bytes": 8 * words,
        "ns_per_value": {name: round(1e9 * each, 3) for name, each in per_value.items()},
        "sum_over_upload": round(statistics.median(ratios), 3),
        "flower_bytes_per_second": {
            name: round(len(upload) / statistics.median(seconds[name]))
            for name in ("send", "receive")
        },
        "seconds_per_client": round(per_value["upload"] * values, 2),
        "seconds_per_region": round(per_value["sum"] * values, 2),
        "backend": qn.backend(),
    }


def sent(data: bytes) -> tuple[dict[str, bytes], str]:
    """Flower's objects of a message with these bytes, and the outermost one's name."""
    record = RecordDict({"data": ArrayRecord({"a": Array("uint8", (len(data),), "bytes", data)})})
    objects = get_all_nested_objects(record)
    return {name: item.deflate() for name, item in objects.items()}, record.object_id


def received(contents: dict[str, bytes], root: str) -> bytes:
    """The bytes of a message, every object checked against its name."""
    assert all(get_object_id(data) == name for name, data in contents.items())
    found = inflate_object_from_contents(root, contents)
    assert isinstance(found, RecordDict)
    return found.array_records["data"]["a"].data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--values", type=int, default=7_000_000_000)
    parser.add_argument("--pairs", type=int, default=15)
    wanted = parser.parse_args()
    print(json.dumps(measure(wanted.clients, wanted.bits, wanted.values, wanted.pairs), indent=1))


if __name__ == "__main__":
    main()
