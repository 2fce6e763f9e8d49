"""Trained models as files for inference: pruned, quantized, or with whole channels taken out."""

from __future__ import annotations

from quancrypt_fl.export.exporting import ExportOptions, export_run
from quancrypt_fl.export.loading import load_exported

__all__ = ["ExportOptions", "export_run", "load_exported"]
