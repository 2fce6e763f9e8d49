"""A stage that a launcher started, on this machine or on one of several: ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from torch.distributed.rendezvous import rendezvous

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.lm.pipeline_interfaces import INTERFACE, checked_interface
from quancrypt_fl.lm.pipeline_job import PipelineJob
from quancrypt_fl.lm.pipeline_lost import StageLostError
from quancrypt_fl.lm.pipeline_stage import OnToken, run_stage

__all__ = ["launched_as", "run_launched"]


def launched_as(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Number of this stage, from 0, and how many there are; None without a launcher."""
    try:
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    except KeyError:
        return None
    except ValueError as error:
        raise ConfigError("RANK and WORLD_SIZE are not the numbers that torchrun sets") from error


def run_launched(
    job: PipelineJob, interface: str | None, on_token: OnToken
) -> dict[str, Any] | None:
    """Be the stage that a launcher says; see :func:`~.pipeline_stage.run_stage`.

    Parameters
    ----------
    interface
        Network interface to listen on; None: loopback, with which all stages are on one machine.
    """
    place = launched_as()
    assert place is not None
    stage, stages = place
    here = int(os.environ.get("LOCAL_WORLD_SIZE", stages))
    os.environ[INTERFACE] = checked_interface(interface, stages, here)
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(seconds=job.timeout))))
    except (RuntimeError, ValueError) as error:
        raise StageLostError(f"the launcher's rendezvous failed: {error}") from error
    return run_stage(job, stage, stages, store, on_token)
