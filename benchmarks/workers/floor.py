"""Worker of the floor."""

from benchmarks.floors import METHODS
from benchmarks.models import load
from benchmarks.workers.protocol import serve

if __name__ == "__main__":
    serve(load, METHODS, ["tensorflow", "keras", "numpy"])
