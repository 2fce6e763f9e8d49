"""A page about runs: finds ``results.json`` files in a folder and makes one HTML page of them.

The files may come from anybody. Reading (:mod:`~quancrypt_fl.report.reading`) is bounded in size,
parsing (:mod:`~quancrypt_fl.report.runs`) checks every type and range, and the template escapes all
text. Neither torch nor the native package is needed.
"""
