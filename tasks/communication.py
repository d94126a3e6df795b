"""Task of step 5: the notice that closes the incident."""

from mlrunbook.response.review import closing
from tasks._step import step

send_resolution_notice = step(closing.announce_resolution, "announce-resolution-of-{incident_id}")
