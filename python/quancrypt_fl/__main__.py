"""``python -m quancrypt_fl`` is the ``quancrypt`` command."""

from quancrypt_fl.cli import main

if __name__ == "__main__":
    main()
