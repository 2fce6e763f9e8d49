"""A stage that :mod:`quancrypt_fl.deployment.lm_stages` started, with a folder and two numbers.

What it has to tell is a line of JSON after a record separator (RFC 7464); all other lines are what
libraries print.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["JOB", "LOST", "REFUSED", "SEPARATOR", "STORE"]

JOB, STORE = "job.json", "store"
"""Files in the folder."""

SEPARATOR = "\x1e"

REFUSED, LOST = 2, 3
"""Exit statuses: an expected error; another stage is gone."""


def main(folder: Path, stage: int, stages: int) -> int:
    """Be a stage; the exit status."""
    import torch.distributed as dist

    from quancrypt_fl.errors import FederatedError
    from quancrypt_fl.lm.pipeline_job import PipelineJob
    from quancrypt_fl.lm.pipeline_lost import StageLostError
    from quancrypt_fl.lm.pipeline_stage import run_stage

    try:
        job = PipelineJob.from_json((folder / JOB).read_text(encoding="utf-8"))
        store = dist.FileStore(  # type: ignore[attr-defined]
            str(folder / STORE), stages
        )
        result = run_stage(job, stage, stages, store, lambda s, token: _tell(token=[s, token]))
    except StageLostError as error:
        _tell(error=str(error))
        return LOST
    except FederatedError as error:
        _tell(error=str(error))
        return REFUSED
    if result is not None:
        _tell(result=result)
    return 0


def _tell(**document: Any) -> None:
    print(SEPARATOR + json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
