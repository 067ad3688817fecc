"""The user's lines as a file that travels may hold them: without the folders of the machine that wrote it."""

from __future__ import annotations

import os

from graphc.ir.node import Node


def portable_line_of(node: Node) -> str:
    """The line that made a node, the file relative to the working directory or by its bare name."""
    if node.loc is None:
        return ""
    file, _, line = node.loc.short.rpartition(":")
    if os.path.isabs(file):
        file = os.path.basename(file)
    place = f"{file.replace(os.sep, '/')}:{line}"
    return f"{place}   {node.loc.text}" if node.loc.text else place
