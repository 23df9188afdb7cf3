"""Ready-made gates. A gate answers Approve, Edit, Deny, or None: ask the next one."""

from continualcode.approval.blanket import ApproveAll, DenyAll
from continualcode.approval.budget import Budget
from continualcode.approval.callback import Callback
from continualcode.approval.command_gate import CommandGate
from continualcode.approval.judge import Judge
from continualcode.approval.prefix import Prefix
from continualcode.approval.readonly import ReadOnly
from continualcode.approval.remember import Allowed, Remember
from continualcode.approval.rules import Rule, Rules
from continualcode.approval.test_runner import TestRunner

__all__ = [
    "Allowed",
    "ApproveAll",
    "Budget",
    "Callback",
    "CommandGate",
    "DenyAll",
    "Judge",
    "Prefix",
    "ReadOnly",
    "Remember",
    "Rule",
    "Rules",
    "TestRunner",
]
