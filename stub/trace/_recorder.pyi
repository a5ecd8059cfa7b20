"""The hypercall log's hot part (``_recorder.c``), as type checkers see it."""

class Recorder:
    """Puts records into a window of the log's file; a full one is followed by the next by ``_advance()``."""

    vcpu: int
    off: bool
    _calls: list[int]
    _exceptions: list[int]
    _records: list[int]
    @property
    def _at(self) -> int: ...
    def _attach(self, window: object, at: int, limit: int, /) -> None: ...
    def _detach(self) -> None: ...
    def _cpuid(self, time_ns: int, rip: int, forced: bool, leaf_subleaf: int, a_b: int, c_d: int, /) -> None: ...
    def _append(
        self, kind: int, code: int, time_ns: int, rip: int, words: tuple[int, ...], payload: bytes = ...,
        out: bytes = ..., /,
    ) -> None: ...  # fmt: skip
    def _advance(self) -> None:
        """A subclass's: attach the next window."""
    def _wide_call(
        self, kind: int, time_ns: int, rip: int, nr: int, args: tuple[int, ...], rc: int, payload: bytes, out: bytes
    ) -> None:
        """A subclass's: a hypercall whose number is above 255."""
    def hypercall(
        self, time_ns: int, rip: int, nr: int, a1: int, a2: int, a3: int, a4: int, a5: int, rc: int, payload: bytes,
        out: bytes, /,
    ) -> None: ...  # fmt: skip
    def nested(
        self, time_ns: int, rip: int, nr: int, a1: int, a2: int, a3: int, a4: int, a5: int, rc: int, payload: bytes,
        out: bytes, /,
    ) -> None: ...  # fmt: skip
    def exception(
        self, time_ns: int, rip: int, vector: int, error_code: int, cr2: int, rsp: int, to_rip: int, user: bool, /
    ) -> None: ...
