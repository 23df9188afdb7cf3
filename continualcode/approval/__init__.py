"""Ready-made gates. A gate answers Approve, Edit, Deny, or None: ask the next one."""

from continualcode.approval.blanket import ApproveAll, DenyAll
from continualcode.approval.callback import Callback
from continualcode.approval.command_gate import CommandGate
from continualcode.approval.readonly import ReadOnly
from continualcode.approval.remember import Remember
from continualcode.approval.test_runner import TestRunner

__all__ = ["ApproveAll", "Callback", "CommandGate", "DenyAll", "ReadOnly", "Remember", "TestRunner"]
