"""The relay process: `python -m pharmacy_coverage.relay`, until SIGTERM. Any number of them may run."""

import asyncio
import logging
import signal

from .outbox.relay import Relay
from .services import Services
from .settings import process_settings

__all__ = ["main"]


async def main() -> None:
    async with Services(process_settings()) as services:
        await services.prepare()
        async with Relay(services) as relay:
            running = asyncio.create_task(relay.run())
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, running.cancel)
            logging.getLogger(__name__).info("relay: running")
            try:
                await running
            except asyncio.CancelledError:
                logging.getLogger(__name__).info("relay: stopped")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main())
