"""All of an incident's evidence as one file, each piece checked against its SHA-256 before anything is sent."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import IO

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from mlrunbook.domain.containment import bundle
from mlrunbook.domain.errors import NotFound, Refused
from mlrunbook.gateway.api.dependencies import IncidentId
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.visitor import Reader
from mlrunbook.response.communication.chain import sent
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents

IN_MEMORY = 8 << 20
PIECE = 64 << 10
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-store"}


def router(world: World) -> APIRouter:
    routes = console_router()

    @routes.get("/incidents/{id}/evidence.zip")
    def save_bundle(visitor: Reader, incident_id: IncidentId) -> StreamingResponse:
        """The files, SHA256SUMS over them, and where the chain of the incident stood: `sha256sum --check SHA256SUMS` checks them again."""
        file = bundled(world, incident_id)
        size = file.seek(0, 2)
        file.seek(0)
        saved_as = {"Content-Disposition": f'attachment; filename="{incident_id}-evidence.zip"', "Content-Length": str(size)}
        return StreamingResponse(_pieces(file), media_type="application/zip", headers=HEADERS | saved_as)

    return routes


def bundled(world: World, incident_id: str) -> IO[bytes]:
    """A file of which the disk keeps nothing once it is closed. Refused where a piece is not as it was preserved."""
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        kept = evidence.manifest(conn, incident.id)
    if not kept:
        raise Refused(f"{incident_id} has no evidence: nothing has been preserved yet")

    def fetch(name: str) -> bytes:
        with world.transaction() as conn:
            found = evidence.content(conn, incident_id, name)
        if found is None:
            raise NotFound(f"{incident_id} has no evidence {name[:100]} any more")
        return found[0]

    taken = {item.name: item.taken_at.timetuple()[:6] for item in kept}
    file: IO[bytes] = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  the answer closes it
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in bundle.checked([(i.name, i.sha256) for i in kept], fetch, head=str(sent(world, incident_id) or "")):
                at = taken.get(name, world.now().timetuple()[:6])
                archive.writestr(zipfile.ZipInfo(f"{incident_id}/{name}", at), content, zipfile.ZIP_DEFLATED)
    except BaseException:
        file.close()
        raise
    return file


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece
