"""Fail if a public name has no entry in the reference of the site: `site_names.py objects.inv`."""

import importlib
import inspect
import sys
import zlib
from pathlib import Path

ROOMS = [
    "kvis2",
    *(f"kvis2.{room}" for room in ("callbacks", "dataset", "images", "layers", "lrp", "metrics")),
]
ROOMS += [
    f"kvis2.{room}"
    for room in ("shortcuts", "scores", "visualization", "ascent", "inspection", "models")
]


def documented(inventory: Path) -> set[str]:
    """The last parts of all names that the inventory lists."""
    body = inventory.read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(body).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines}


def main() -> None:
    """Compare with what the rooms export."""
    listed = documented(Path(sys.argv[1]))
    missing, count = [], 0
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not inspect.isclass(value) and not inspect.isfunction(value):
                continue  # Constants, aliases, and submodules, which have pages of their own.
            count += 1
            # Where a module has the name of its function, the reference has the latter's own path.
            if not {f"{room}.{name}", f"{value.__module__}.{name}"} & listed:
                missing.append(f"{room}.{name}")
    if missing:
        raise SystemExit(f"Expected every public name in the reference. Missing: {missing}.")
    print(f"{count} public names are in the reference")


if __name__ == "__main__":
    main()
