"""Reports for people: formulas, the chain rule of a gradient, what a program does."""

from graphc.report.chain_rule import explain_gradient, parse_explained_gradient
from graphc.report.formula import formula

__all__ = ["explain_gradient", "formula", "parse_explained_gradient"]
