"""The exception tree: who is at fault decides the branch.

    TacitError
    ├── UserError                  the caller can fix it
    │   ├── UnsupportedModelError    the ONNX file holds nodes we cannot compile (lists all of them)
    │   ├── ModelError               the ONNX file is malformed, dynamic or not finite
    │   ├── InputShapeError          a tensor has the wrong shape or dtype
    │   ├── InputRangeError          an input lies outside the calibrated range
    │   ├── ParameterError           CKKS parameters that do not fit together
    │   │   └── SecurityError          ... or are below 128-bit security
    │   ├── UnknownModelError        no such model or version
    │   │   └── ModelChangedError        ... or it was compiled again since its signature was read
    │   ├── UnknownKeyError          the server does not hold these evaluation keys
    │   ├── ExpiredKeyError          keys made for a retired configuration
    │   ├── KeyFileError             key file missing, unreadable, wrong passphrase
    │   ├── TrainingRowsError        rows that cannot be trained on (also a ValueError)
    │   │   └── LabelError             ... labels or targets that cannot (also a ValueError)
    │   ├── NotTrainedError          a model that was asked before it was trained
    │   ├── ReleaseError             decrypted results may not be shared, or no more of them
    │   ├── UnusableEnvironmentError the interpreter or a wheel cannot work
    │   ├── DirectoryInUseError      another process works in a directory; names which
    │   ├── ServiceError             the server refused or could not be reached
    │   └── PartyError               a session of several parties cannot go on
    │       ├── WriteOnceError         another message was sent for this step already
    │       ├── MissingPartyError      somebody has not sent what is waited for; names who
    │       ├── WrongShareError        somebody's share is wrong; names who, where it can be told
    │       ├── SchemaMismatchError    the parties disagree on columns or terms
    │       ├── TranscriptError        the history was changed, or parties saw different ones
    │       └── UnsupportedKeysError   keys that no threshold protocol makes
    ├── DamagedInputError          bytes from outside that are not what they claim
    │   ├── WireError                a Tacit frame
    │   │   ├── TruncatedError, OversizedError, HeaderError, ChecksumError
    │   │   ├── ResidueError           a residue is not below its modulus
    │   │   ├── LevelRangeError        a level outside the parameters' range
    │   │   ├── ParameterMismatchError made for other CKKS parameters
    │   │   ├── KeyMismatchError       made under another key
    │   │   └── ReplayError            a request that was already answered
    │   ├── ForeignBytesError        OpenFHE's serialised objects
    │   ├── AnswerError              an answer that fails its known-answer check
    │   │   └── OverflowedAnswerError, WrongAnswerError
    │   └── ArtifactError            a compiled model on disk
    └── InternalError              our own bug, or a limit the compiler should have kept
        ├── LevelError               no level left
        ├── CircuitError             a circuit that breaks its own rules
        ├── OutOfMemoryError         an operation needs more memory than there is
        ├── DeviceLostError          a device stopped working: nothing on it can be used any more
        └── WorkerCrashError         a worker process died while it answered a request

Messages say what was expected, what came, and what to do. They never hold a secret or slot values.
Each class carries `code`, a stable identifier that travels over the wire; HTTP statuses are chosen
in one table in `tacit.runtime.statuses`.
"""


class TacitError(Exception):
    """Root of every error Tacit raises on purpose."""

    code = "error"


class UserError(TacitError):
    """The caller can fix it; the message says how."""

    code = "user_error"


class UnsupportedModelError(UserError):
    """The model holds operators that cannot be compiled; lists all of them."""

    code = "unsupported_model"

    def __init__(self, problems: "tuple[str, ...] | list[str]") -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{len(self.problems)} unsupported node(s):\n{lines}")


class ModelError(UserError):
    """The ONNX file is malformed, has dynamic shapes, or holds NaN or infinite weights."""

    code = "model_error"


class InputShapeError(UserError):
    """A tensor has the wrong shape or dtype."""

    code = "input_shape"


class InputRangeError(UserError):
    """An input value lies outside the range the model was calibrated for."""

    code = "input_range"


class ParameterError(UserError):
    """CKKS parameters that do not fit together."""

    code = "parameters"


class SecurityError(ParameterError):
    """CKKS parameters below 128-bit security."""

    code = "security"


class UnknownModelError(UserError):
    """The server has no such model or version."""

    code = "unknown_model"


class ModelChangedError(UnknownModelError):
    """The model was compiled again since its signature was read; read the signature again."""

    code = "model_changed"


class UnknownKeyError(UserError):
    """The server does not hold these evaluation keys; upload them and try again."""

    code = "key_unknown"


class ExpiredKeyError(UserError):
    """The keys belong to a retired configuration; make new ones."""

    code = "key_expired"


class KeyFileError(UserError):
    """A key file is missing, unreadable, or the passphrase is wrong."""

    code = "key_file"


class TrainingRowsError(UserError, ValueError):
    """Rows that cannot be trained on: missing values, constant columns, another shape, too many."""

    code = "training_rows"


class LabelError(TrainingRowsError):
    """Labels or targets that cannot be trained on."""

    code = "training_labels"


class NotTrainedError(UserError, ValueError, AttributeError):
    """The model was asked before it was trained."""

    code = "not_trained"


class ReleaseError(UserError):
    """Decrypted results may not be shared: too few bits would be left, or the budget is spent."""

    code = "release"


class UnusableEnvironmentError(UserError):
    """The interpreter or an installed wheel cannot work; `tacit doctor` explains."""

    code = "environment"


class DirectoryInUseError(UserError):
    """Another process works in a directory that only one may use; the message names it."""

    code = "directory_in_use"


class ServiceError(UserError):
    """The server refused the request or could not be reached."""

    code = "service"


class PartyError(UserError):
    """A session of several parties cannot go on."""

    code = "party"


class WriteOnceError(PartyError):
    """Another message was sent for this step already; a second, different one is never accepted."""

    code = "party_write_once"


class MissingPartyError(PartyError):
    """Somebody has not sent what is waited for; the message names who."""

    code = "party_missing"


class WrongShareError(PartyError):
    """Somebody's share is wrong; the message names who, where it can be told."""

    code = "party_wrong_share"


class SchemaMismatchError(PartyError):
    """The parties disagree on the columns or the terms of their session."""

    code = "party_schema"


class TranscriptError(PartyError):
    """The history of a session was changed, or two parties were shown different ones."""

    code = "party_transcript"


class UnsupportedKeysError(PartyError):
    """Keys that no threshold protocol makes: those of bootstrapping, or of sparse secrets."""

    code = "party_unsupported_keys"


class DamagedInputError(TacitError):
    """Bytes from outside that are not what they claim to be."""

    code = "damaged_input"


class WireError(DamagedInputError):
    """A Tacit frame that breaks the wire format."""

    code = "wire"


class TruncatedError(WireError):
    """Fewer bytes than the header declares."""

    code = "wire_truncated"


class OversizedError(WireError):
    """More bytes, or larger dimensions, than allowed."""

    code = "wire_oversized"


class HeaderError(WireError):
    """Wrong magic, version, kind, or a field out of range."""

    code = "wire_header"


class ChecksumError(WireError):
    """The payload does not match its checksum."""

    code = "wire_checksum"


class ResidueError(WireError):
    """A residue is not below its modulus."""

    code = "wire_residue"


class LevelRangeError(WireError):
    """A level outside what the parameters or the model allow."""

    code = "wire_level"


class ParameterMismatchError(WireError):
    """The frame was made for other CKKS parameters."""

    code = "wire_parameters"


class KeyMismatchError(WireError):
    """The frame was made under another key than the one it is used with."""

    code = "wire_key"


class ReplayError(WireError):
    """A request that was already answered."""

    code = "replayed"


class ForeignBytesError(DamagedInputError):
    """OpenFHE's serialised bytes are not what this version writes."""

    code = "foreign_bytes"


class AnswerError(DamagedInputError):
    """The row with a known answer came back wrong, so the answer is not to be used."""

    code = "answer"


class OverflowedAnswerError(AnswerError):
    """Values outgrew their range, or the server used other evaluation keys."""

    code = "answer_overflowed"


class WrongAnswerError(AnswerError):
    """The server computed something else: other weights, another circuit, or a fault."""

    code = "answer_wrong"


class ArtifactError(DamagedInputError):
    """A compiled model on disk is incomplete, damaged or of an unknown format version."""

    code = "artifact"


class InternalError(TacitError):
    """Our own bug, or a limit the compiler should have kept."""

    code = "internal"


class LevelError(InternalError):
    """A ciphertext has no level left for the operation."""

    code = "level"


class CircuitError(InternalError):
    """A circuit that breaks its own rules."""

    code = "circuit"


class OutOfMemoryError(InternalError):
    """An operation needs more memory than there is; nothing was changed, smaller ones may work."""

    code = "out_of_memory"


class DeviceLostError(InternalError):
    """A device stopped working; nothing on it can be used any more by this process."""

    code = "device_lost"


class WorkerCrashError(InternalError):
    """A worker process died while it answered a request."""

    code = "worker_crash"
