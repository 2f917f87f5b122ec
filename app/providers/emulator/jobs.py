"""Work that a provider does after it has answered: a video, which its client polls until it is there."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.providers.emulator.wire import Call, Refusal, Refused

_KEPT = 4096


@dataclass(slots=True, kw_only=True)
class VideoCall(Call):
    seconds: str
    size: str


@dataclass(slots=True)
class Job:
    id: str
    model: str
    prompt: str
    seconds: str
    size: str
    created: int
    polls_needed: int
    fails: bool
    polls: int = 0
    poll_errors: int = 0
    """So many polls meet an error first."""
    file_bytes: int = 0
    """How large its file is at least."""

    @property
    def ended(self) -> bool:
        return self.polls >= self.polls_needed

    @property
    def progress(self) -> int:
        return 100 if self.ended else 100 * self.polls // self.polls_needed

    @property
    def status(self) -> str:
        if self.ended:
            return "failed" if self.fails else "completed"
        return "in_progress" if self.polls else "queued"


@dataclass(slots=True)
class Jobs:
    """The newest of a provider, by id."""

    _jobs: dict[str, Job] = field(default_factory=dict)

    def add(self, job: Job) -> None:
        if len(self._jobs) >= _KEPT:
            del self._jobs[next(iter(self._jobs))]
        self._jobs[job.id] = job

    def find(self, id: str) -> Job | None:
        return self._jobs.get(id)

    def poll(self, id: str) -> Job | None:
        """The job after one more poll. Raises Refused."""
        job = self._jobs.get(id)
        if job is not None and job.poll_errors:
            job.poll_errors -= 1
            raise Refused(Refusal(503, "The emulator was told to fail this poll."))
        if job is not None and not job.ended:
            job.polls += 1
        return job

    def remove(self, id: str) -> Job | None:
        return self._jobs.pop(id, None)
