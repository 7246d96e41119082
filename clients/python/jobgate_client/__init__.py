"""Follows jobs of a jobgate gateway: see README.md."""

from .client import ConnectionStatus, JobgateClient
from .errors import JobgateError
from .jobs import Job, JobChange, JobFailure, JobProblem, JobProgress
from .schema import POSSIBLE_TYPES, JobProblemCode, JobState, JobUpdateKind, StaleReason

__all__ = [
    "POSSIBLE_TYPES",
    "ConnectionStatus",
    "Job",
    "JobChange",
    "JobFailure",
    "JobProblem",
    "JobProblemCode",
    "JobProgress",
    "JobState",
    "JobUpdateKind",
    "JobgateClient",
    "JobgateError",
    "StaleReason",
]
