"""The console: what an on-call engineer sees and does in a browser. Server-rendered pages; htmx only makes them live."""
