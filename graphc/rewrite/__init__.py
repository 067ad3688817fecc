"""Rewriting: rules with names, an engine that applies them to a fixpoint, and a log of every firing."""

from __future__ import annotations

from graphc.rewrite.engine import Firing, RewriteLog, RuleSet, rewrite
from graphc.rewrite.rule import FunctionRule, RewriteRule, Rule, rule

__all__ = ["Firing", "FunctionRule", "RewriteLog", "RewriteRule", "Rule", "RuleSet", "rewrite", "rule"]
