"""In the place of setuptools while pip downloads an sdist (cmake/seal_fetch.cmake)."""
