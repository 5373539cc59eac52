"""The whole path, with relay and workers at work: sign in, post, find, apply, hear of it, check, confirm."""

import re

from .support import Platform, eventually, results, text_of


async def test_from_a_posted_shift_to_a_booking(platform: Platform, at_work: None) -> None:
    """The manager posts, the pharmacist finds and applies, mail arrives, the verdict appears, the manager confirms."""
    async with platform.browser(platform.mira) as mira, platform.browser(platform.pharmacist()) as dana:
        form = (await mira.get("/pharmacy/shifts/new")).text
        shift_id = re.findall(r'name="shift_id" value="(shf_\w+)"', form)[0]
        day = re.findall(r'name="date" type="date" value="([\d-]+)"', form)[0]
        fields = {"shift_id": shift_id, "date": day, "start": "09:00", "end": "17:00", "rate": "62.50"}
        posted = await mira.post(
            "/pharmacy/shifts", data={**fields, "break_minutes": "30", "notes": "Flu clinic"}
        )
        assert posted.headers["location"] == f"/shifts/{shift_id}?done=posted"

        assert f"/shifts/{shift_id}" in results(await dana.get("/shifts"))
        assert "Flu clinic" in (await dana.get(f"/shifts/{shift_id}")).text
        applied = await dana.post(f"/shifts/{shift_id}/applications", data={"message": "I know the store."})
        assert applied.status_code == 303

        mail = await platform.inbox.wait_for("Dana Kim applied")
        assert mail["To"] == "Mira Castellan <mira@harbour-street.example>"
        assert f"http://testserver/shifts/{shift_id}" in text_of(mail)

        async def has_verdict() -> bool:
            return "Fits" in (await dana.get("/applications")).text

        await eventually(has_verdict, "the pharmacist sees the verdict")
        page = (await mira.get(f"/shifts/{shift_id}")).text
        assert "Fits" in page
        assert "I know the store." in page
        action = re.findall(r'action="(/applications/app_\w+/confirm)"', page)[0]
        assert (await mira.post(action)).headers["location"].endswith("done=confirmed")
        assert "Covered by Dana Kim" in (await mira.get(f"/shifts/{shift_id}")).text

        assert "48 Harbour Street" in text_of(await platform.inbox.wait_for("You are booked"))
        assert "48 Harbour Street" in (await dana.get(f"/shifts/{shift_id}")).text
        assert results(await dana.get("/shifts")).count(shift_id) == 0
        await platform.all_done()
