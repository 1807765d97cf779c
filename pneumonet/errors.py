"""Every error that PneumoNet raises on purpose.

    PneumoNetError
    ├─ ConfigError(ValueError)              bad_configuration     a setting contradicts itself or is out of range
    ├─ InputError(ValueError)               the caller's request or film is at fault
    │  ├─ BadRequestError                   bad_request      400  malformed request
    │  ├─ NoFileError                       no_file          400  nothing was sent
    │  ├─ NotAcceptableError                not_acceptable   406  an answer in no format that is offered
    │  ├─ EmptyFileError                    empty_file       400  a file of no bytes
    │  ├─ FileTooLargeError                 file_too_large   413  more bytes than the limit
    │  ├─ TooManyPixelsError                too_many_pixels  413  a header that declares too many pixels
    │  ├─ UnsupportedFormatError            unsupported_format          415  not a format we read
    │  ├─ UnsupportedTransferSyntaxError    unsupported_transfer_syntax 415  DICOM compressed as we cannot decode
    │  ├─ UnreadableImageError              unreadable_image 422  damaged, cut short, or without pixels
    │  ├─ FrameNotFoundError                frame_not_found  422  a frame that the file does not have
    │  └─ AdmissionError                    not_admitted     422  readable, but no chest film that the model knows
    ├─ NotLoggedInError                     not_logged_in    401  a login is wanted
    ├─ SignInError                      not_signed_in    403  the provider or the list says no
    ├─ OtherSiteError                       other_site       403  another site's page asks
    ├─ TooManyRequestsError                 too_many_requests 429  one caller asks too often
    ├─ BusyError                            busy             503  the queue is full
    ├─ TookTooLongError                     took_too_long    503  not answered in time
    ├─ ModelUnavailableError(RuntimeError)  model_unavailable 503  starting, or no model
    │  ├─ DownloadError                     download_failed  503  the Hub, a repo or a revision is out of reach
    │  └─ SnapshotError                     damaged_snapshot 503  files that do not match their config
    ├─ WorkerDiedError                      worker_died      500  a batch's film whose process ended, twice
    ├─ FileUnavailableError                 file_unavailable 500  a batch's film whose file could not be opened
    ├─ BatchStoppedError                    batch_stopped    500  films of a batch failed for no fault of theirs
    └─ InternalError                        internal_error   500  ours; the log has it under the request id

Each class has a stable lower-case `code`, the `http_status` that a door answers with, and a `hint`: what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pneumonet.language import said, sentences


class PneumoNetError(Exception):
    """Base of every error that PneumoNet raises on purpose.

    Attributes:
        message: One sentence that says what was found, fit for a user.
        hint: One sentence that says what to do.
        retry_after_seconds: When to try again, where that helps.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    default_hint: ClassVar[str] = ""
    retry_after_seconds: int | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    @property
    def told(self) -> str:
        """What was found and what to do, as plain text for a user."""
        return sentences(filter(None, (self.message, self.hint)))


class ConfigError(PneumoNetError, ValueError):
    """A setting is missing, out of range, or contradicts another."""

    code = "bad_configuration"


class InputError(PneumoNetError, ValueError):
    """The caller's request or film is at fault."""

    code = "bad_input"
    http_status = 400


class BadRequestError(InputError):
    """The request is malformed."""

    code = "bad_request"
    default_hint = said("See GET /api for what each route takes.")


class NotAcceptableError(InputError):
    """The request accepts none of the formats that an answer is given in."""

    code = "not_acceptable"
    http_status = 406
    default_hint = said("Ask for one of the formats that GET /api names.")


class NoFileError(InputError):
    """No film was sent."""

    code = "no_file"
    default_hint = said("Send one chest X-ray: JPEG, PNG, TIFF, WebP, BMP or DICOM.")


class EmptyFileError(InputError):
    """The file has no bytes."""

    code = "empty_file"
    default_hint = said("Check that the file opens on your computer, then send it again.")


class FileTooLargeError(InputError):
    """The file has more bytes than the limit."""

    code = "file_too_large"
    http_status = 413
    default_hint = said("Send a smaller copy: 1000 pixels on the longer side are plenty.")


class TooManyPixelsError(InputError):
    """The file's header declares more pixels than the limit."""

    code = "too_many_pixels"
    http_status = 413
    default_hint = said("Send a smaller copy: 1000 pixels on the longer side are plenty.")


class UnsupportedFormatError(InputError):
    """The bytes are of no format that PneumoNet reads."""

    code = "unsupported_format"
    http_status = 415
    default_hint = said("Send JPEG, PNG, TIFF, WebP, BMP or DICOM; the content decides, not the file's name.")


class UnsupportedTransferSyntaxError(UnsupportedFormatError):
    """A DICOM file compressed in a way that the shipped decoders cannot undo."""

    code = "unsupported_transfer_syntax"
    default_hint = said("Export the film uncompressed, or as JPEG 2000, JPEG-LS, RLE or baseline JPEG.")


class UnreadableImageError(InputError):
    """The file is damaged, cut short, or holds no pixels."""

    code = "unreadable_image"
    http_status = 422
    default_hint = said("The file may be damaged or half uploaded: export it again and send the new copy.")


class FrameNotFoundError(InputError):
    """The file does not have the frame asked for."""

    code = "frame_not_found"
    http_status = 422
    default_hint = said("Frames count from 0.")


@dataclass(frozen=True)
class Reason:
    """Why a film is refused: a stable code and a sentence for the user."""

    code: str
    message: str


class AdmissionError(InputError):
    """The picture is readable but is no chest film that the model knows."""

    code = "not_admitted"
    http_status = 422
    headline: ClassVar[str] = said("This does not look like a chest X-ray that the model knows.")
    default_hint = said("Send one frontal chest X-ray, or force an answer if you know better.")

    def __init__(self, reasons: Sequence[Reason]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(sentences([self.headline, *(reason.message for reason in self.reasons)]))


class NotLoggedInError(PneumoNetError):
    """The server wants a login, and the request has none or a wrong one."""

    code = "not_logged_in"
    http_status = 401
    default_hint = said("Send the user name and the password by HTTP Basic authentication.")


class SignInError(PneumoNetError):
    """The provider did not say who the visitor is, or it is nobody on the list."""

    code = "not_signed_in"
    http_status = 403
    default_hint = said("Sign in again with an account that this server knows.")


class OtherSiteError(PneumoNetError):
    """Another site's page asks, and the server does not list that site."""

    code = "other_site"
    http_status = 403
    default_hint = said("Ask from a program, or have the site listed in PNEUMONET_ALLOWED_ORIGINS.")


class TooManyRequestsError(PneumoNetError):
    """One caller asks too often."""

    code = "too_many_requests"
    http_status = 429
    default_hint = said("Wait a moment, then try again.")
    retry_after_seconds = 10

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds


class BusyError(PneumoNetError):
    """The queue is full."""

    code = "busy"
    http_status = 503
    default_hint = said("Other films are being analysed: try again in a few seconds.")
    retry_after_seconds = 5


class TookTooLongError(PneumoNetError):
    """The film was not answered in the time that the server gives one request."""

    code = "took_too_long"
    http_status = 503
    default_hint = said("The server is slow or busy: try again in a few seconds, or send a smaller film.")
    retry_after_seconds = 5


class ModelUnavailableError(PneumoNetError, RuntimeError):
    """The model is still loading, or there is none."""

    code = "model_unavailable"
    http_status = 503
    default_hint = said("The model is being loaded: try again in a few seconds.")
    retry_after_seconds = 5


class DownloadError(ModelUnavailableError):
    """The Hub, the repo or the revision is out of reach, and nothing usable is cached.

    Attributes:
        repo_id: The repo asked for.
        revision: The revision asked for, None for the default branch.
    """

    code = "download_failed"
    default_hint = said("Check PNEUMONET_MODEL, PNEUMONET_REVISION, the network and HF_TOKEN.")

    def __init__(self, message: str, *, repo_id: str, revision: str | None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.repo_id, self.revision = repo_id, revision


class SnapshotError(ModelUnavailableError):
    """A snapshot's files are missing, damaged, or do not match its config."""

    code = "damaged_snapshot"
    default_hint = said("Pull the snapshot again, or point PNEUMONET_MODEL at a whole one.")


class WorkerDiedError(PneumoNetError):
    """The process that answered a film of a batch ended without an answer, and so did the next one."""

    code = "worker_died"
    default_hint = said("Answer the film alone; it may need more memory than the machine has.")


class FileUnavailableError(PneumoNetError):
    """The file of a batch's film could not be opened: it is gone, or its disk or share is, or it may not be read."""

    code = "file_unavailable"


class BatchStoppedError(PneumoNetError):
    """Many films of a batch in a row failed for no fault of theirs: the others would fail alike."""

    code = "batch_stopped"


class InternalError(PneumoNetError):
    """Something failed that is not the caller's fault; the log has it under the request id."""

    code = "internal_error"
    default_hint = said("Try again; if it persists, report the request id.")
