"""Jobs as the kit reports them, and references to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .schema import JobProblemCode, JobState, JobUpdateKind, StaleReason


@dataclass(frozen=True)
class JobProgress:
    """Completed and known parts of a job. The total can grow."""

    completed: int
    total: int


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed, as its upstream reports it."""

    code: str | None
    message: str | None


@dataclass(frozen=True)
class Job:
    """A job of any upstream. `data` has every selected field by its name in the schema."""

    id: str
    source: str
    external_id: str
    state: JobState
    is_terminal: bool
    native_state: str | None
    progress: JobProgress | None
    failure: JobFailure | None
    #: Whether the state is older than requested, and why.
    is_stale: bool
    stale_reason: StaleReason | None
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class JobProblem:
    """Why there is no job for a reference."""

    code: JobProblemCode
    message: str
    retryable: bool
    #: Seconds.
    retry_after: float | None
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class JobChange:
    """An update of a watched job: either `job` or `problem` is set."""

    #: The reference, as it was passed.
    ref: str
    kind: JobUpdateKind
    #: Whether this is the last update of the job: it is terminal, or cannot be found.
    is_final: bool
    job: Job | None
    problem: JobProblem | None


def result_of(data: Mapping[str, Any]) -> Job | JobProblem:
    """A job or a problem from a `JobResult`."""
    if data["__typename"] == "JobProblem":
        after = data["retryAfterMs"]
        return JobProblem(data["code"], data["message"], data["retryable"], None if after is None else after / 1000, data)
    progress, failure, freshness = data["progress"], data["failure"], data["freshness"]
    return Job(
        id=data["id"],
        source=data["source"]["name"],
        external_id=data["externalId"],
        state=data["state"],
        is_terminal=data["isTerminal"],
        native_state=data["nativeState"],
        progress=progress and JobProgress(progress["completed"], progress["total"]),
        failure=failure and JobFailure(failure["code"], failure["message"]),
        is_stale=freshness["isStale"],
        stale_reason=freshness["staleReason"],
        data=data,
    )


def parse(ref: str) -> dict[str, Any]:
    """A reference in the form of the schema."""
    if not isinstance(ref, str):
        raise TypeError(f"{ref!r} is not a job reference: write 'SOURCE/EXTERNAL_ID' or a node ID")
    source, slash, external_id = ref.partition("/")
    if not source or (slash and not external_id):
        raise ValueError(f"{ref!r} is not a job reference: write 'SOURCE/EXTERNAL_ID' or a node ID")
    return {"external": {"source": source, "externalId": external_id}} if slash else {"id": ref}


def keys_of(data: Mapping[str, Any]) -> list[str]:
    """The references by which a `JobResult` may have been requested."""
    is_problem = data["__typename"] == "JobProblem"
    ref = data["ref"] if is_problem else {**data, "source": data["source"]["name"]}
    keys = [ref["id"]] if ref["id"] else []
    if ref["source"] and ref["externalId"]:
        keys.append(f"{ref['source']}/{ref['externalId']}")
    return keys


def signature_of(is_final: bool, data: Mapping[str, Any]) -> object:
    """Equal for updates that differ in nothing but the age of the result, the estimate, and the times of a gateway that
    began to observe the job later."""
    ignored = ("freshness", "estimate", "firstSeenAt", "stateSince", "terminalSeenAt")
    rest = {name: value for name, value in data.items() if name not in ignored}
    freshness = data.get("freshness") or {}
    return [is_final, freshness.get("isStale"), freshness.get("staleReason"), rest]
