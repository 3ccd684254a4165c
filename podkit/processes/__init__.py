"""Background processes in a session's container."""

from podkit.processes.manager import ProcessManager
from podkit.processes.models import LogPiece, Process, ProcessStatus

__all__ = ["LogPiece", "Process", "ProcessManager", "ProcessStatus"]
