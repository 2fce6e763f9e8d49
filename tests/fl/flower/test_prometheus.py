"""The metrics of a run: values, bounded labels, and the text that Prometheus reads."""

from __future__ import annotations

import sys
import urllib.request
from typing import Any

import pytest
from tests.fl.flower.runs import NODES, answer, ask, begin, record, whole_round

pytest.importorskip("prometheus_client", reason="needs the [prometheus] extra")

from prometheus_client.parser import text_string_to_metric_families

from quancrypt_fl.flower import prometheus
from quancrypt_fl.flower.prometheus import MetricsError, PrometheusMetrics, PrometheusServer

BERLIN, UPPSALA, PORTO = NODES


@pytest.fixture
def metrics() -> PrometheusMetrics:
    return PrometheusMetrics(clock=lambda: 1_000.0)


def value(metrics: PrometheusMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"quancrypt_{name}", labels)


def test_a_run_in_figures(metrics: PrometheusMetrics) -> None:
    begin(metrics, rounds=5)
    metrics.waiting(connected=2, needed=3)
    assert value(metrics, "run_state", quancrypt_run_state="waiting") == 1
    assert value(metrics, "clients_connected") == 2
    ask(metrics, 1)
    assert value(metrics, "clients", state="asked") == 3
    answer(metrics, 1, BERLIN)
    about: dict[str, Any] = {"round": 1, "phase": "train+upload"}
    metrics.refused(**about, node=UPPSALA, name="Uppsala", reason="no")
    metrics.lost(**about, node=PORTO, name="Porto", reason="late")
    metrics.ignored(round=1, node=PORTO, name="Porto", reason="late")
    assert [value(metrics, "clients", state=s) for s in ("asked", "answered", "refused", "lost")] \
        == [0, 1, 1, 1]  # fmt: skip
    for result in ("accepted", "refused", "lost"):
        assert value(metrics, "replies_total", phase="train+upload", result=result) == 1
    assert value(metrics, "replies_total", phase="over", result="ignored") == 1
    assert value(metrics, "received_bytes_total", phase="train+upload") == 1_000
    assert value(metrics, "client_last_answer_timestamp_seconds", client="Berlin") == 1_000
    assert value(metrics, "client_seconds_sum", step="protect") == 0.25
    metrics.round_finished(record(1))
    assert value(metrics, "clients", state="answered") == 0
    assert value(metrics, "rounds") == 5
    assert value(metrics, "round") == 1
    assert value(metrics, "rounds_finished_total", result="ok") == 1
    assert value(metrics, "rounds_finished_total", result="failed") == 0
    assert value(metrics, "test_accuracy") == 0.5
    assert value(metrics, "phase_seconds_sum", phase="protect") == 0.5
    assert value(metrics, "phase_seconds_sum", phase="wall") is None
    assert value(metrics, "round_seconds_count") == 1
    assert value(metrics, "client_traffic_bytes_total", direction="upload") == 1_000
    assert value(metrics, "round_weight") == 16
    whole_round(metrics, 2, failed="too few", test_accuracy=None, weight=0)
    assert value(metrics, "rounds_finished_total", result="failed") == 1
    assert value(metrics, "test_accuracy") == 0.5  # the last one that there is
    metrics.run_finished(None, "broken")
    assert value(metrics, "run_state", quancrypt_run_state="failed") == 1
    metrics.run_stopped()
    assert value(metrics, "run_state", quancrypt_run_state="failed") == 0
    assert value(metrics, "run_state", quancrypt_run_state="stopped") == 1


def test_clients_cannot_make_series_without_end(
    metrics: PrometheusMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "MOST_CLIENTS", 5)
    monkeypatch.setattr(prometheus, "MOST_STEPS", 4)
    begin(metrics)
    for i in range(50):
        metrics.answered(
            round=1, phase="train", node=i, name=f"name {i}\n\"{{}}" + "x" * 1_000,
            seconds={f"step_{chr(97 + i % 26)}": 1.0, "Ünsinn": 1.0, "train": float("nan")},
            nbytes=1,
        )  # fmt: skip
    families = {f.name: f for f in metrics.registry.collect()}
    clients = families["quancrypt_client_last_answer_timestamp_seconds"].samples
    assert len(clients) == 6
    assert max(len(sample.labels["client"]) for sample in clients) == 100
    steps = {s.labels["step"] for s in families["quancrypt_client_seconds"].samples}
    assert len(steps) <= 5
    assert prometheus.OTHER in steps


def test_served_on_loopback_in_the_text_format(metrics: PrometheusMetrics) -> None:
    begin(metrics)
    whole_round(metrics, 1)
    with PrometheusServer(metrics) as server:
        assert server.host == "127.0.0.1"
        url = f"http://127.0.0.1:{server.port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answered:
            kind, text = answered.headers["Content-Type"], answered.read().decode()
        with pytest.raises(MetricsError, match=f"at 127.0.0.1:{server.port}: "):
            PrometheusServer(metrics, server.port)
    assert kind.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["quancrypt_rounds_finished"].type == "counter"
    assert families["quancrypt_phase_seconds"].type == "histogram"
    assert all(name.startswith("quancrypt_") for name in families)
    assert all(family.documentation for family in families.values())


def test_two_runs_in_one_process_do_not_meet() -> None:
    first, second = PrometheusMetrics(), PrometheusMetrics()
    first.round_finished(record(1))
    assert value(first, "rounds_finished_total", result="ok") == 1
    assert value(second, "rounds_finished_total", result="ok") == 0


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MetricsError, match=r"quancrypt-native\[prometheus\]"):
        PrometheusMetrics()
