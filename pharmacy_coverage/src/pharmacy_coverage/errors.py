"""What the platform refuses, and how it says so.

    PlatformError
    ├── NotAuthenticated      401  nobody is signed in
    ├── Forbidden             403  signed in, and not allowed to
    ├── CrossSiteRequest      403  a form that another site sent
    ├── NotFound              404  unknown, or not for these eyes: the two look the same
    ├── StateConflict         409  somebody was faster
    │   ├── ShiftTaken             the shift is open no longer
    │   ├── AlreadyApplied         this pharmacist has a live application for the shift
    │   ├── NotConfirmable         the application is submitted no longer
    │   └── CalendarConflict       the pharmacist is booked then
    ├── Invalid               422  what was sent does not hold; `errors` says where
    ├── NotEligible           422  a rule forbids it; `reasons` says which
    └── TemporarilyUnavailable 503 try again; nothing is known to have changed

Errors become RFC 9457 problems, or a page that says the same, in `web.py`.
"""

from collections.abc import Mapping

__all__ = [
    "AlreadyApplied",
    "CalendarConflict",
    "CrossSiteRequest",
    "Forbidden",
    "Invalid",
    "NotAuthenticated",
    "NotConfirmable",
    "NotEligible",
    "NotFound",
    "PlatformError",
    "ShiftTaken",
    "StateConflict",
    "TemporarilyUnavailable",
]


class PlatformError(Exception):
    """Something a person asked for that is not done."""

    status: int = 500
    slug: str = "internal"
    title: str = "Something went wrong"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def extensions(self) -> Mapping[str, object]:
        """What the problem document carries beside the standard members."""
        return {}


class NotAuthenticated(PlatformError):
    status, slug, title = 401, "not-authenticated", "Please sign in"

    def __init__(self, detail: str = "This page is for people who are signed in.") -> None:
        super().__init__(detail)


class Forbidden(PlatformError):
    status, slug, title = 403, "forbidden", "That is not for your account"

    def __init__(self, needed: str) -> None:
        super().__init__(f"This needs the account of a {needed}.")
        self.needed = needed

    @property
    def extensions(self) -> Mapping[str, object]:
        return {"needed": self.needed}


class CrossSiteRequest(PlatformError):
    status, slug, title = 403, "cross-site-request", "That form came from another site"

    def __init__(self) -> None:
        super().__init__("Nothing was changed. Open the page here and send the form again.")


class NotFound(PlatformError):
    status, slug, title = 404, "not-found", "There is nothing here"

    def __init__(self, what: str) -> None:
        super().__init__(f"This {what} does not exist, or it is not yours to see.")


class StateConflict(PlatformError):
    status, slug, title = 409, "state-conflict", "Somebody was faster"


class ShiftTaken(StateConflict):
    slug, title = "shift-taken", "This shift is open no longer"

    def __init__(self) -> None:
        super().__init__("Someone else was confirmed a moment ago, or the shift has begun.")


class AlreadyApplied(StateConflict):
    slug, title = "already-applied", "You have applied for this shift"

    def __init__(self) -> None:
        super().__init__("Your application is with the pharmacy; a second one changes nothing.")


class NotConfirmable(StateConflict):
    slug, title = "not-confirmable", "This application cannot be confirmed"

    def __init__(self, state: str) -> None:
        super().__init__(f"The application is {state} now.")
        self.state = state


class CalendarConflict(StateConflict):
    slug, title = "calendar-conflict", "The pharmacist has another booking"

    def __init__(self) -> None:
        # Whose booking, and when, is not the business of this pharmacy.
        super().__init__(
            "Another pharmacy booked them for that time. The shift is still open: choose someone else."
        )


class Invalid(PlatformError):
    """`errors` maps a field's name to what is wrong with it; the order is that of the form."""

    status, slug, title = 422, "validation", "Please check what you entered"

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(" ".join(errors.values()))
        self.errors = dict(errors)

    @property
    def extensions(self) -> Mapping[str, object]:
        return {
            "errors": [{"pointer": f"/{field}", "detail": detail} for field, detail in self.errors.items()]
        }


class NotEligible(PlatformError):
    """`reasons` are (code, sentence) pairs of the rules that forbid it."""

    status, slug, title = 422, "not-eligible", "This shift is not open to this pharmacist"

    def __init__(self, reasons: list[tuple[str, str]]) -> None:
        super().__init__(" ".join(sentence for _, sentence in reasons))
        self.reasons = reasons

    @property
    def extensions(self) -> Mapping[str, object]:
        return {"items": [{"code": code, "detail": sentence} for code, sentence in self.reasons]}


class TemporarilyUnavailable(PlatformError):
    status, slug, title = 503, "temporarily-unavailable", "Please try again in a moment"

    def __init__(
        self, detail: str = "The platform is busy or being looked after.", retry_after: int = 2
    ) -> None:
        super().__init__(detail)
        self.retry_after = retry_after

    @property
    def extensions(self) -> Mapping[str, object]:
        return {"retry_after": self.retry_after}
