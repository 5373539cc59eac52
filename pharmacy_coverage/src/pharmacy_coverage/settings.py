"""What a deployment may set, from the environment, with defaults for development."""

from datetime import timedelta
from functools import cache
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import AnyUrl, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings", "process_settings"]


class Settings(BaseSettings):
    """Every field is an environment variable of the same name in capitals, such as `MONGODB_URL`."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    environment: Literal["development", "production"] = "development"
    """Development lists the demonstration accounts on the sign-in page and sends cookies over plain HTTP."""

    mongodb_url: str = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
    """A replica set, if only of one node: transactions and change streams need it."""
    mongodb_database: str = "pharmacy_coverage"

    toril_url: str = "redis://127.0.0.1:6379"
    """The queues' Redis. Must not evict."""
    queue_prefix: str = "bull"
    cache_url: str = ""
    """The search cache's Redis, which may evict. Empty: the queues' server, which must then be large enough."""
    cache_prefix: str = "pc"

    smtp_url: str = "smtp://127.0.0.1:1025"
    """`smtp://` (STARTTLS where offered) or `smtps://`, with user and password where needed."""
    mail_from: str = "Pharmacy Coverage <no-reply@pharmacy-coverage.example>"
    mail_domain: str = "pharmacy-coverage.example"
    """The right side of every Message-ID."""
    mail_lease_seconds: float = Field(default=90, gt=0)
    """How long one worker owns a delivery. Longer than the longest SMTP conversation, which is cut off before."""
    mail_retry_seconds: float = Field(default=15, gt=0)
    """First wait after the mail server was not reachable; doubles up to five minutes."""

    public_url: str = "http://localhost:8000"
    """Where people reach the application; links in mail begin with it."""
    inbox_url: str = ""
    """Where a mail catcher shows what was sent; named on the sign-in page in development."""

    worker_lock_seconds: float = Field(default=30, gt=0)
    """After this long without renewal the job of a dead worker goes to another."""
    worker_stalled_seconds: float = Field(default=15, gt=0)
    """How often workers look for jobs whose lock has run out."""

    relay_poll_seconds: float = Field(default=1, gt=0)
    relay_epoch_seconds: float = Field(default=2, gt=0)
    relay_reconcile_seconds: float = Field(default=15, gt=0)
    relay_plan_seconds: float = Field(default=20, gt=0)
    relay_visibility_factor: float = Field(default=1, gt=0)
    """Scales how long a published job may stay silent before the reconciler asks after it; tests turn it down."""

    search_concurrency: int = Field(default=8, ge=1)
    """Search queries that one process may have at MongoDB at a time."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.environment == "production" and not self.public_url.startswith("https://"):
            raise ValueError("PUBLIC_URL must begin with https:// in production: session cookies are Secure")
        if urlsplit(self.smtp_url).scheme not in ("smtp", "smtps"):
            raise ValueError("SMTP_URL must begin with smtp:// or smtps://")
        AnyUrl(self.public_url)
        return self

    @property
    def is_development(self) -> bool:
        return self.environment == "development"

    @property
    def search_cache_url(self) -> str:
        return self.cache_url or self.toril_url

    @property
    def session_cookie(self) -> str:
        # The __Host- prefix makes browsers insist on Secure and Path=/, which plain HTTP cannot offer.
        return "pc_session" if self.is_development else "__Host-pc_session"

    @property
    def mail_lease(self) -> timedelta:
        return timedelta(seconds=self.mail_lease_seconds)


@cache
def process_settings() -> Settings:
    """The settings of this process, read from the environment once."""
    return Settings()
