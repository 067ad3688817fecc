"""What must hold wherever graphc is installed. Run by the Python that has it, from outside the checkout."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec

import graphc

print("graphc", version("graphc"), "at", graphc.__file__)
for generic in ("backends", "frontend"):
    if find_spec(generic) is not None:
        sys.exit(f"the installation put a package called {generic!r} into site-packages")
for name in sys.argv[1:] or ("graphc.backends.numba", "graphc.backends.reference", "graphc.frontend.layers"):
    importlib.import_module(name)
for package, data in (("graphc", "py.typed"), ("graphc.frontend.data", "digits.csv.gz")):
    if not files(package).joinpath(data).is_file():
        sys.exit(f"{package} was installed without {data}")
images, labels = importlib.import_module("graphc.frontend.data.digits").load_digits()
if images.shape != (1797, 8, 8) or labels.shape != (1797,):
    sys.exit("the bundled digits are damaged")
print("installed as it should be")
