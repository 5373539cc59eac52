"""The relay process: `python -m pharmacy_coverage.relay`, until SIGTERM. Any number of them may run.

MongoDB may come later than they do."""

import asyncio
import logging
import signal

from .outbox.relay import Relay
from .services import Services
from .settings import process_settings

__all__ = ["main"]

logger = logging.getLogger(__name__)


async def main() -> None:
    running = asyncio.create_task(_relay())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        logger.info("relay: stopped")


async def _relay() -> None:
    async with Services(process_settings()) as services:
        await services.prepare_when_there()
        async with Relay(services) as relay:
            logger.info("relay: running")
            await relay.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main())
